"""Brightness normalisers: one image in, the same image with another grey scale out. Knows nothing of sizes or files.

Each takes and gives (H, W) float32 in [0, 1]. Histograms are taken over 65,536 levels, so 8-, 12- and 16-bit images
are treated alike. All but `unit` make a constant image black and need no knowledge of the image's bit depth.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]

LEVELS = 2**16
CLIPPED_PERCENTILES = (1.0, 99.0)
CLAHE_TILES = (8, 8)
CLAHE_CLIP = 2.0
CLAHE_BINS = 256


def unit(pixels: Pixels) -> Pixels:
    """The pixels as they are."""
    return pixels


def minmax(pixels: Pixels) -> Pixels:
    """Darkest pixel to 0, brightest to 1."""
    return _stretch(pixels, float(pixels.min()), float(pixels.max()))


def percentile(pixels: Pixels) -> Pixels:
    """1st percentile to 0, 99th to 1, clipped; min-max where the two coincide."""
    cumulative = np.cumsum(_histogram(_to_levels(pixels)))
    ranks = np.array(CLIPPED_PERCENTILES) / 100 * cumulative[-1]
    low, high = np.searchsorted(cumulative, ranks) / (LEVELS - 1)
    return _stretch(pixels, float(low), float(high)) if high > low else minmax(pixels)


def equalize(pixels: Pixels) -> Pixels:
    """Histogram equalisation: each pixel becomes the share of the pixels above the darkest level that it reaches."""
    levels = _to_levels(pixels)
    histogram = _histogram(levels)
    darkest = histogram[levels.min()]
    if darkest == pixels.size:
        return np.zeros_like(pixels)
    share = (np.cumsum(histogram) - darkest) / (pixels.size - darkest)
    return np.clip(share, 0, 1).astype(np.float32)[levels]


def clahe(pixels: Pixels) -> Pixels:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994) on 8 x 8 tiles, clip limit 2.

    The min-max image is put into 256 histogram bins, so that the clip limit means the same at every bit depth, while
    the result keeps 65,536 levels.
    """
    if pixels.min() == pixels.max():
        return np.zeros_like(pixels)
    spacing = (LEVELS - 1) // (CLAHE_BINS - 1)
    binned = np.rint(minmax(pixels) * (CLAHE_BINS - 1)).astype(np.uint16) * np.uint16(spacing)
    # OpenCV states the limit in multiples of the mean count of all 65,536 levels, of which 256 are used.
    equalizer = cv2.createCLAHE(clipLimit=CLAHE_CLIP * LEVELS / CLAHE_BINS, tileGridSize=CLAHE_TILES)
    return equalizer.apply(binned).astype(np.float32) / np.float32(LEVELS - 1)


NORMALIZERS: dict[str, Callable[[Pixels], Pixels]] = {
    "unit": unit,
    "minmax": minmax,
    "equalize": equalize,
    "clahe": clahe,
    "percentile": percentile,
}


def _to_levels(pixels: Pixels) -> npt.NDArray[np.uint16]:
    return np.rint(pixels * np.float32(LEVELS - 1)).astype(np.uint16)


def _histogram(levels: npt.NDArray[np.uint16]) -> npt.NDArray[np.intp]:
    return np.bincount(levels.ravel(), minlength=LEVELS)


def _stretch(pixels: Pixels, low: float, high: float) -> Pixels:
    if high <= low:
        return np.zeros_like(pixels)
    if (low, high) == (0, 1):
        return pixels
    stretched = pixels - np.float32(low)
    stretched /= np.float32(high - low)  # in place: a radiograph is too large to be copied without need
    return np.clip(stretched, 0, 1, out=stretched)
