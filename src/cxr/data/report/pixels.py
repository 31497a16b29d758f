"""What decoded images look like: grey levels, and images that look constant, inverted or written on.

Knows nothing of files and headers. The two looks are heuristics, chosen and measured on frontal radiographs; their
figures are in docs/data.md.
"""

import base64
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.data.image_store import StoredImages
from cxr.progress import show_progress

Bytes = NDArray[np.uint8]
Labels = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEVELS = 64
THUMBNAIL_SIDE = 144
_BATCH = 256
_LEAST_CONTRAST = 16
_INVERTED_BELOW = -0.02
_SPINE, _LUNGS = (0.3, 0.7, 0.46, 0.54), ((0.25, 0.5, 0.2, 0.33), (0.25, 0.5, 0.67, 0.8))
_TEXT_SIDE, _LEAST_TEXT_SIDE = 224, 112
_STROKE_CONTRAST = 48
_STROKES = cv2.getStructuringElement(cv2.MORPH_RECT, (7, 7))
_GAPS = cv2.getStructuringElement(cv2.MORPH_RECT, (7, 3))


@dataclass(frozen=True)
class PixelLook:
    """What N images look like.

    Attributes:
        levels: (classes, LEVELS) pixels of each grey level, black first.
        low_contrast: (N,) whether 98% of the pixels lie within a sixteenth of the range.
        inverted: (N,) whether the spine is darker than the lungs.
        text: (N,) whether there is something like a line of text near the upper or lower border.
    """

    levels: NDArray[np.int64]
    low_contrast: Flags
    inverted: Flags
    text: Flags


def look_at_pixels(images: StoredImages, labels: Labels, classes: int) -> PixelLook:
    """Look at every image once, with a progress bar.

    Args:
        images: N stored images.
        labels: (N,) class of each.
        classes: Number of classes.
    """
    levels = np.zeros((classes, LEVELS), dtype=np.int64)
    flags = np.zeros((3, len(images)), dtype=np.bool_)
    for start in show_progress(range(0, len(images), _BATCH), "looking at images"):
        rows = np.arange(start, min(start + _BATCH, len(images)))
        batch = _to_bytes(images[rows])
        for label in np.unique(labels[rows]):
            shades = batch[labels[rows] == label] // (256 // LEVELS)
            levels[label] += np.bincount(shades.ravel(), minlength=LEVELS)
        flat = find_low_contrast(batch)
        flags[:, rows] = flat, find_inverted(batch) & ~flat, [has_text(image) for image in batch]
    return PixelLook(levels, *flags)


def find_low_contrast(batch: Bytes) -> Flags:
    """(N,) whether the 1st to the 99th percentile of each (h, w) image spans less than a sixteenth of the range."""
    low, high = np.percentile(batch, (1, 99), axis=(1, 2))
    return np.asarray(high - low < _LEAST_CONTRAST)


def find_inverted(batch: Bytes) -> Flags:
    """(N,) whether the spine of each (h, w) image is darker than the lungs beside it, as in a negative."""
    lungs = np.mean([_mean_of(batch, *lung) for lung in _LUNGS], axis=0)
    return np.asarray((_mean_of(batch, *_SPINE) - lungs) / 255 < _INVERTED_BELOW)


def has_text(image: Bytes) -> bool:
    """Whether near the upper or lower border of an (h, w) image bright thin strokes stand in a row like letters.

    Images too small to read anything in are not judged.
    """
    if min(image.shape) < _LEAST_TEXT_SIDE:
        return False
    small = cv2.resize(image, (_TEXT_SIDE, _TEXT_SIDE), interpolation=cv2.INTER_AREA)
    strokes = (cv2.morphologyEx(small, cv2.MORPH_TOPHAT, _STROKES) > _STROKE_CONTRAST).astype(np.uint8)
    strokes[_TEXT_SIDE // 5 : -_TEXT_SIDE // 5] = 0
    count, _, boxes, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, _GAPS))
    return any(_is_line(strokes[y : y + h, x : x + w]) for x, y, w, h, _ in boxes[1:count])


def make_thumbnail(image: NDArray[Any]) -> str:
    """An (h, w) stored image as a small JPEG in a ``data:`` address."""
    scale = THUMBNAIL_SIDE / max(image.shape)
    width, height = (max(round(side * scale), 1) for side in image.shape[::-1])
    small = cv2.resize(_to_bytes(image), (width, height), interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _to_bytes(stored: NDArray[Any]) -> Bytes:
    return stored if stored.dtype == np.uint8 else (stored >> 8).astype(np.uint8)


def _mean_of(batch: Bytes, top: float, bottom: float, left: float, right: float) -> NDArray[np.float64]:
    """(N,) mean of a rectangle given in shares of height and width."""
    height, width = batch.shape[1:]
    part = batch[:, int(top * height) : int(bottom * height) + 1, int(left * width) : int(right * width) + 1]
    return np.asarray(part.mean(axis=(1, 2)))


def _is_line(strokes: Bytes) -> bool:
    """Whether a box of strokes is long and low, and crossed by many of them, but not filled."""
    height, width = strokes.shape
    if not (3 <= height <= 12 and max(20, 3 * height) <= width <= 170):
        return False
    crossings = np.abs(np.diff(strokes.astype(np.int8), axis=1)).sum(axis=1).max()
    return bool(crossings >= 8 and 0.2 < strokes.mean() < 0.8)
