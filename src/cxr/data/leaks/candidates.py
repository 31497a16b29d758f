"""Which of many images may show the same film: a search over thumbnails in blocks of matrix products.

Knows nothing of files or parts. It finds too much rather than too little: `alignment` looks at every candidate closely.

A thumbnail becomes a short vector in which what all chests share counts little: contrast is evened out locally, and
the principal components of this very collection are brought to equal weight (whitening). Every image is compared whole
with every other one whole and with its edges cut off, since a crop moves everything that a thumbnail shows.
Time grows with the square of the number of images, memory with the number.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cxr.data.leaks.thumbnails import THUMBNAIL, Thumbnails

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NEIGHBOURS = 32  # candidates of one image
LEAST_SIMILARITY = 0.5  # of whitened vectors: below, fewer than 2% of the re-encoded, marked or cropped films lie
_SIDE = 16
_WINDOW = 2.0  # standard deviation of the local mean and contrast, in pixels of the vector's image
_FLAT = 3.0  # grey levels of 255: contrast below this is noise
_CUT = 3  # pixels of the thumbnail that a cut takes from an edge: 5%
_BOXES = tuple(itertools.product((0, _CUT), repeat=4))
_COMPONENTS = 128
_IMAGES_PER_COMPONENT = 8  # with fewer, what tells two copies of one film apart is whitened as well
_LEAST_VARIANCE = 1e-4  # of a component; less is noise, which tells two copies of one film apart
_FEWEST = 16  # below, every pair is a candidate
_BLOCK = 256


class Pairs(NamedTuple):
    """Pairs of rows, each once, `first < second`, and how similar they are: (P,) arrays."""

    first: Ints
    second: Ints
    similarity: Floats


def join_pairs(pairs: Sequence[Pairs]) -> Pairs:
    """All of them, one after the other."""
    first, second, similarity = zip(*pairs, strict=True)
    return Pairs(np.concatenate(first), np.concatenate(second), np.concatenate(similarity))


def find_candidates(thumbnails: Thumbnails, films: Ints | None = None, rows: Ints | None = None) -> Pairs:
    """The pairs of images that are worth a closer look, the most similar first.

    Args:
        thumbnails: (N, 64, 64) uint8.
        films: (N,) number of the film that each image is known to show; images of one film are no pair.
        rows: Images whose neighbours are looked for, increasing; None for all.

    Returns:
        The NEIGHBOURS most similar images of each of the `rows`, as far as they are similar; for a handful of films,
        all pairs of one image of each.
    """
    count = len(thumbnails)
    films = np.arange(count) if films is None else films
    rows = np.arange(count) if rows is None else rows
    _, one_each = np.unique(films, return_index=True)  # many copies of one film would bend the whitening
    if len(one_each) < _FEWEST:
        return _all_pairs(one_each)
    whitening = _Whitening.fit(thumbnails[one_each])
    whole = np.concatenate([whitening.apply(block) for block in _blocks(thumbnails)])
    blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    return _each_once([_compare(block, thumbnails, whole, whitening, films) for block in blocks], count)


def _all_pairs(rows: Ints) -> Pairs:
    ordered = np.sort(rows)
    first, second = np.triu_indices(len(ordered), 1)
    return Pairs(ordered[first], ordered[second], np.ones(len(first), np.float32))


class _Whitening(NamedTuple):
    """Vectors to components of equal variance: (D,) mean and (D, K) projection."""

    mean: Floats
    projection: Floats

    @classmethod
    def fit(cls, thumbnails: Thumbnails) -> "_Whitening":
        total = np.zeros(_SIDE**2)
        products = np.zeros((_SIDE**2, _SIDE**2))
        for block in _blocks(thumbnails):
            vectors = _vectors(block, _BOXES[0]).astype(np.float64)
            total += vectors.sum(axis=0)
            products += vectors.T @ vectors
        mean = total / len(thumbnails)
        values, directions = np.linalg.eigh(products / len(thumbnails) - np.outer(mean, mean))
        kept = min(_COMPONENTS, len(thumbnails) // _IMAGES_PER_COMPONENT)
        scale = np.sqrt(values[-kept:].clip(min=_LEAST_VARIANCE))
        return cls(mean.astype(np.float32), (directions[:, -kept:] / scale).astype(np.float32))

    def apply(self, thumbnails: Thumbnails, box: tuple[int, ...] = _BOXES[0]) -> Floats:
        """(N, K) vectors of length 1."""
        return _to_unit(np.asarray((_vectors(thumbnails, box) - self.mean) @ self.projection, np.float32))


def _blocks(thumbnails: Thumbnails) -> Iterator[Thumbnails]:
    return (thumbnails[start : start + _BLOCK] for start in range(0, len(thumbnails), _BLOCK))


def _vectors(thumbnails: Thumbnails, box: tuple[int, ...]) -> Floats:
    """(N, D) vectors of length 1 of thumbnails whose (left, top, right, bottom) edges are cut off."""
    left, top, right, bottom = box
    inner = thumbnails[:, top : THUMBNAIL - bottom, left : THUMBNAIL - right]
    images = [cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for image in inner.astype(np.float32)]
    return _to_unit(np.stack([even_out(image, _WINDOW).ravel() for image in images]))


def even_out(image: Floats, window: float) -> Floats:
    """The image minus its local mean over its local contrast, both under a Gaussian of `window` pixels."""
    detail = image - cv2.GaussianBlur(image, (0, 0), window)
    contrast = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), window))
    return detail / (contrast + np.float32(_FLAT))


def _to_unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-9)
    return (vectors / lengths).astype(np.float32)


def _compare(rows: Ints, thumbnails: Thumbnails, whole: Floats, whitening: _Whitening, films: Ints) -> Pairs:
    """Pairs of each of the rows with its neighbours; a pair may come twice."""
    block = thumbnails[rows]
    similarity = np.full((len(block), len(whole)), -1, np.float32)
    product = np.empty_like(similarity)
    for box in _BOXES:
        np.matmul(whitening.apply(block, box), whole.T, out=product)
        np.maximum(similarity, product, out=similarity)
    similarity[films[rows][:, None] == films] = -1
    nearest = np.argpartition(similarity, -min(NEIGHBOURS, len(whole)), axis=1)[:, -NEIGHBOURS:]
    similarity = np.take_along_axis(similarity, nearest, axis=1)
    at, rank = np.nonzero(similarity >= LEAST_SIMILARITY)
    one, other = rows[at], nearest[at, rank]
    return Pairs(np.minimum(one, other), np.maximum(one, other), similarity[at, rank])


def _each_once(found: list[Pairs], count: int) -> Pairs:
    """All pairs of images below `count`, the most similar first."""
    first, second, similarity = join_pairs(found)
    order = np.lexsort((second, first, -similarity))
    _, at = np.unique((first * count + second)[order], return_index=True)
    kept = order[np.sort(at)]
    return Pairs(first[kept], second[kept], similarity[kept])
