"""Which of many images may show the same film: a search over thumbnails in blocks of matrix products.

Knows nothing of files or parts. It finds too much rather than too little: `alignment` looks at every candidate closely.

A thumbnail becomes a short vector in which what all chests share counts little: contrast is evened out locally, and
the principal components of this very collection are brought to equal weight (whitening). Every image is compared whole
with every other one whole and with its edges cut off, since a crop moves everything that a thumbnail shows.
Time grows with the square of the number of images, memory with the number.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cxr.data.leaks.thumbnails import THUMBNAIL, Thumbnails

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

LEAST_SIMILARITY = 0.5  # of whitened vectors: below, fewer than 2% of the re-encoded, marked or cropped films lie
_SIDE = 16
_WINDOW = 2.0  # standard deviation of the local mean and contrast, in pixels of the vector's image
_FLAT = 3.0  # grey levels of 255: contrast below this is noise
_CUT = 3  # pixels of the thumbnail that a cut takes from an edge: 5%
_BOXES = tuple(itertools.product((0, _CUT), repeat=4))
_COMPONENTS = 128
_IMAGES_PER_COMPONENT = 8  # with fewer, what tells two copies of one film apart is whitened as well
_FEWEST = 16  # below, every pair is a candidate
_BLOCK = 256


class Pairs(NamedTuple):
    """Pairs of rows, each once, `first < second`, and how similar they are: (P,) arrays."""

    first: Ints
    second: Ints
    similarity: Floats


def find_candidates(thumbnails: Thumbnails) -> Pairs:
    """The pairs of images that are worth a closer look, the most similar first.

    Args:
        thumbnails: (N, 64, 64) uint8.

    Returns:
        At most 500 + N / 2 pairs; all pairs for a handful of images.
    """
    count = len(thumbnails)
    if count < _FEWEST:
        first, second = np.triu_indices(count, 1)
        return Pairs(first.astype(np.int64), second.astype(np.int64), np.ones(len(first), np.float32))
    whitening = _Whitening.fit(thumbnails)
    whole = np.concatenate([whitening.apply(block) for block in _blocks(thumbnails)])
    best = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    for start, block in zip(range(0, count, _BLOCK), _blocks(thumbnails), strict=True):
        best = _best(best, _compare(start, block, whole, whitening), 500 + count // 2)
    return best


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
        scale = np.sqrt(values[-kept:].clip(min=1e-9))
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


def _compare(start: int, block: Thumbnails, whole: Floats, whitening: _Whitening) -> Pairs:
    """Pairs of the block, whose first row is `start`, with all rows; a pair may come twice."""
    similarity = np.full((len(block), len(whole)), -1, np.float32)
    product = np.empty_like(similarity)
    for box in _BOXES:
        np.matmul(whitening.apply(block, box), whole.T, out=product)
        np.maximum(similarity, product, out=similarity)
    similarity[np.arange(len(block)), start + np.arange(len(block))] = -1
    rows, columns = np.nonzero(similarity >= LEAST_SIMILARITY)
    one, other = rows + start, columns
    return Pairs(np.minimum(one, other), np.maximum(one, other), similarity[rows, columns])


def _best(known: Pairs, found: Pairs, limit: int) -> Pairs:
    """The `limit` most similar of both, each pair once."""
    first = np.concatenate([known.first, found.first])
    second = np.concatenate([known.second, found.second])
    similarity = np.concatenate([known.similarity, found.similarity])
    order = np.lexsort((second, first, -similarity))
    _, at = np.unique(np.stack([first, second])[:, order], axis=1, return_index=True)
    kept = order[np.sort(at)][:limit]
    return Pairs(first[kept], second[kept], similarity[kept])
