"""Geometry: any image to a wanted size, antialiased. Knows nothing of brightness or files."""

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]
Size = tuple[int, int]

ASPECTS = ("pad", "crop", "stretch")


def fit_to_size(pixels: Pixels, size: Size, aspect: str) -> Pixels:
    """Bring an image to `size`.

    Args:
        pixels: (H, W) float32.
        size: Wanted (h, w) in pixels.
        aspect: ``"pad"`` keeps the whole image and its proportions, with 0 around it (the odd pixel goes to the
            bottom or right); ``"crop"`` keeps the proportions and cuts centrally what is too long; ``"stretch"``
            keeps the whole image and changes its proportions.

    Returns:
        (h, w) float32.
    """
    if aspect == "pad":
        return _pad(pixels, size)
    return resize(_crop_to_aspect(pixels, size) if aspect == "crop" else pixels, size)


def resize(pixels: Pixels, size: Size) -> Pixels:
    """Resample (H, W) to `size`: area average along a side that shrinks, then linear along one that grows.

    The two steps are apart because OpenCV's area average stops averaging both sides as soon as one of them grows.
    """
    height, width = min(size[0], pixels.shape[0]), min(size[1], pixels.shape[1])
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return small if small.shape == size else cv2.resize(small, size[::-1], interpolation=cv2.INTER_LINEAR)


def _pad(pixels: Pixels, size: Size) -> Pixels:
    scale = min(size[0] / pixels.shape[0], size[1] / pixels.shape[1])
    height, width = (max(1, round(side * scale)) for side in pixels.shape)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    padded = np.zeros(size, dtype=np.float32)
    padded[top : top + height, left : left + width] = resize(pixels, (height, width))
    return padded


def _crop_to_aspect(pixels: Pixels, size: Size) -> Pixels:
    rows, columns = pixels.shape
    height = min(rows, max(1, round(columns * size[0] / size[1])))
    width = min(columns, max(1, round(rows * size[1] / size[0])))
    top, left = (rows - height) // 2, (columns - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])
