"""What parts of stored images show, as features: the outer frame, the corners, a thumbnail; and images without lungs.

The regions are shares of the image, the same for all: no lung is looked for. Of frame and corners only the order of
their own cells counts, not their brightness: a normaliser that looks at the whole image (equalisation most of all)
carries what is in the lungs to the brightness of everything else. So two regions that are each of one grey look alike.
Knows nothing of labels.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
StoredArray = NDArray[np.uint8] | NDArray[np.uint16]

CELLS = 32
FRAME = 3
CORNER = 6
THUMBNAIL = 8
_BATCH = 128


class Images(Protocol):
    """Stored images by position: an array (N, h, w), or a handle that an image store opened."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, rows: IntArray) -> StoredArray:
        """(B, h, w) uint8 or uint16 for (B,) positions."""


@dataclass(frozen=True)
class RegionFeatures:
    """What regions show of N images.

    Attributes:
        border: (N, 348) ranks from 0 to 1 of the cells of the outer 3/32 on each side.
        corners: (N, 144) ranks of the cells of the four corners, each 6/32 of height and width.
        thumbnail: (N, 64) grey values from 0 to 1.
    """

    border: FloatArray
    corners: FloatArray
    thumbnail: FloatArray


def describe_regions(images: Images, rows: IntArray) -> RegionFeatures:
    """Describe images, reading a batch at a time.

    Args:
        images: Stored images.
        rows: (N,) positions, N >= 1.
    """
    cells, thumbnails = [], []
    for batch in _batches(rows):
        stored = images[batch]
        white = np.iinfo(stored.dtype).max
        cells += [_shrink(image, CELLS) / white for image in stored]
        thumbnails += [_shrink(image, THUMBNAIL).ravel() / white for image in stored]
    grid = np.stack(cells)
    return RegionFeatures(
        border=_ranks(grid[:, _frame_mask()]),
        corners=_ranks(grid[:, _corner_mask()]),
        thumbnail=np.stack(thumbnails),
    )


def shrink_images(images: Images, rows: IntArray, side: int) -> FloatArray:
    """The (N, side, side) small images at the positions `rows`, float32 in [0, 1], reading a batch at a time."""
    return np.concatenate([_shrink_batch(images[batch], side) for batch in _batches(rows)])


def average_image(images: Images, rows: IntArray) -> StoredArray:
    """The (h, w) mean of the images at the positions `rows`, of their type."""
    first = images[rows[:1]][0]
    total = np.zeros(first.shape, dtype=np.float64)
    for batch in _batches(rows):
        total += images[batch].sum(axis=0, dtype=np.float64)
    average: StoredArray = np.rint(total / len(rows)).astype(first.dtype)
    return average


def cover_lungs(stored: StoredArray, average: StoredArray) -> StoredArray:
    """Replace all but the outer frame by the average image: what is left has the frame of each image alone.

    Args:
        stored: (B, h, w) stored images.
        average: (h, w) of the same type, the same for all images that are compared, so that it tells nothing.
    """
    height, width = average.shape
    top, left = round(height * FRAME / CELLS), round(width * FRAME / CELLS)
    covered = stored.copy()
    middle = slice(top, height - top), slice(left, width - left)
    covered[:, *middle] = average[middle]
    return covered


def _batches(rows: IntArray) -> list[IntArray]:
    return np.split(rows, range(_BATCH, len(rows), _BATCH))


def _shrink_batch(stored: StoredArray, side: int) -> FloatArray:
    return np.stack([_shrink(image, side) for image in stored]) / np.float32(np.iinfo(stored.dtype).max)


def _shrink(image: StoredArray, side: int) -> FloatArray:
    return cv2.resize(image.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)


def _ranks(values: FloatArray) -> FloatArray:
    ranks: FloatArray = rankdata(np.round(values, 4), axis=1) / values.shape[1]
    return ranks.astype(np.float32)


def _frame_mask() -> NDArray[np.bool_]:
    mask = np.ones((CELLS, CELLS), dtype=bool)
    mask[FRAME:-FRAME, FRAME:-FRAME] = False
    return mask


def _corner_mask() -> NDArray[np.bool_]:
    edge = np.zeros(CELLS, dtype=bool)
    edge[:CORNER] = edge[-CORNER:] = True
    return np.outer(edge, edge)
