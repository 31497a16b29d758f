"""A few hundred to a few thousand numbers that describe an image for models without convolutions.

Fixed functions of one image, nothing is fitted, so that training and prediction cannot differ. Knows nothing of models
or labels.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from cxr.errors import ConfigError, require_extra

Floats = npt.NDArray[np.float32]

THUMBNAIL_STEP = 5
CELL, ORIENTATIONS = 16, 8
RADII, NEIGHBOURS, GRID = (1, 2, 3), 8, (5, 6)
LEAST_SIDE = 2 * CELL


def brightness(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """A thumbnail of a fifth of each side, with equalised grey values: what lies where."""
    height, width = image.shape
    size = (max(1, width // THUMBNAIL_STEP), max(1, height // THUMBNAIL_STEP))
    small = cv2.resize(cv2.equalizeHist(image), size, interpolation=cv2.INTER_AREA)
    return np.asarray(small.ravel() / 255)


def gradients(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Histograms of oriented gradients (Dalal and Triggs 2005) in cells of 16 pixels, blocks of 2 x 2: edges."""
    from skimage.feature import hog

    return np.asarray(hog(image / 255, ORIENTATIONS, (CELL, CELL), (2, 2)))


def texture(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Histograms of uniform local binary patterns (Ojala et al. 2002) of three radii on a grid of 5 x 6 fields.

    Square roots of shares, so that distances are Hellinger's.
    """
    from skimage.feature import local_binary_pattern

    codes = [local_binary_pattern(image, NEIGHBOURS, radius, "uniform").astype(np.int64) for radius in RADII]
    fields = [field for code in codes for band in np.array_split(code, GRID[0]) for field in _split_band(band)]
    counts = np.stack([np.bincount(field.ravel(), minlength=NEIGHBOURS + 2) for field in fields])
    return np.sqrt(counts / counts.sum(axis=1, keepdims=True)).ravel()


def _split_band(band: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return np.array_split(band, GRID[1], axis=1)


DESCRIPTORS: dict[str, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float64]]] = {
    "brightness": brightness,
    "gradients": gradients,
    "texture": texture,
}


def describe(images: npt.NDArray[np.floating], names: Sequence[str]) -> Floats:
    """Describe images.

    Args:
        images: (N, h, w) in [0, 1], both sides at least 32.
        names: Of `DESCRIPTORS`, in the order of the columns.

    Returns:
        (N, D) float32 from 0 to 1.

    Raises:
        ConfigError: Another name, or smaller images.
        MissingExtraError: scikit-image is not installed.
    """
    require_extra("skimage", "automl")
    unknown = [name for name in names if name not in DESCRIPTORS]
    if unknown or not names:
        raise ConfigError(
            f"expected descriptors among {', '.join(DESCRIPTORS)}, got {list(names)}; choose one of these"
        )
    if min(images.shape[1:]) < LEAST_SIDE:
        raise ConfigError(
            f"expected images of at least {LEAST_SIDE} x {LEAST_SIDE} pixels to describe, got "
            f"{' x '.join(map(str, images.shape[1:]))}; choose a larger plan.size, or plan.featurize=false"
        )
    whole = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    rows = [np.concatenate([DESCRIPTORS[name](image) for name in names]) for image in whole]
    return np.stack(rows).astype(np.float32)
