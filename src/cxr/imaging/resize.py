"""Geometry: any image to a wanted size, antialiased. Knows nothing of brightness or files."""

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.float64]
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


def undo_fit(fitted: Pixels, shape: Size, aspect: str) -> Pixels:
    """Bring back onto an image what belongs to the result of `fit_to_size`, such as a map of it.

    Args:
        fitted: (h, w) float32.
        shape: (H, W) of the image.
        aspect: As in `fit_to_size`.

    Returns:
        (H, W) float32, 0 where `fit_to_size` cut the image.
    """
    size = (fitted.shape[0], fitted.shape[1])
    (top, left, rows, columns), (y, x, height, width) = _window(shape, size, aspect)
    whole = np.zeros(shape, dtype=np.float32)
    seen = np.ascontiguousarray(fitted[y : y + height, x : x + width])
    whole[top : top + rows, left : left + columns] = resize(seen, (rows, columns))
    return whole


def boxes_to_size(boxes: npt.ArrayLike, shape: Size, size: Size, aspect: str) -> Boxes:
    """Where boxes on an image lie after `fit_to_size`.

    Args:
        boxes: (M, 4) x, y, width and height in pixels of the image; pixel (0, 0) covers [0, 1) x [0, 1).
        shape: (H, W) of the image.
        size: As in `fit_to_size`.
        aspect: As in `fit_to_size`.

    Returns:
        (M', 4) in pixels of the result, cut at its border; boxes that lie outside altogether are left out.
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).copy()
    corners[:, 2:] += corners[:, :2]
    (top, left, rows, columns), (y, x, height, width) = _window(shape, size, aspect)
    low, scale = np.array([left, top]), np.array([width / columns, height / rows])
    starts, ends = (np.clip(ends - low, 0, [columns, rows]) * scale + [x, y] for ends in np.split(corners, 2, axis=1))
    kept = (ends > starts).all(axis=1)
    return np.hstack([starts, ends - starts])[kept]


def _window(shape: Size, size: Size, aspect: str) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Which part of an image is shown where: (top, left, height, width) in the image and in the result."""
    if aspect == "pad":
        return (0, 0, *shape), _place_inside(shape, size)
    return (_central_part(shape, size) if aspect == "crop" else (0, 0, *shape)), (0, 0, *size)


def _pad(pixels: Pixels, size: Size) -> Pixels:
    top, left, height, width = _place_inside(pixels.shape, size)
    padded = np.zeros(size, dtype=np.float32)
    padded[top : top + height, left : left + width] = resize(pixels, (height, width))
    return padded


def _place_inside(shape: tuple[int, ...], size: Size) -> tuple[int, int, int, int]:
    """Top, left, height and width of a whole image in the middle of `size`."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (max(1, round(side * scale)) for side in shape)
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def _crop_to_aspect(pixels: Pixels, size: Size) -> Pixels:
    top, left, height, width = _central_part(pixels.shape, size)
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def _central_part(shape: tuple[int, ...], size: Size) -> tuple[int, int, int, int]:
    """Top, left, height and width of the largest central part of an image with the proportions of `size`."""
    rows, columns = shape
    height = min(rows, max(1, round(columns * size[0] / size[1])))
    width = min(columns, max(1, round(rows * size[1] / size[0])))
    return (rows - height) // 2, (columns - width) // 2, height, width
