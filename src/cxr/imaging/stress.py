"""Changes that another scanner, another export or another positioning makes to an image, and a finding survives.

For judging a model, not for training it. Knows nothing of nets, labels or files.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from cxr.imaging.resize import resize

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Stress:
    """One change at one strength.

    Attributes:
        kind: What is changed, such as ``brightness``.
        strength: How much, in words, such as ``x 0.7``.
        apply: (H, W) float32 in [0, 1] -> an image of the same size and range; the same one each time.
    """

    kind: str
    strength: str
    apply: Callable[[Pixels], Pixels]


def scale_brightness(factor: float, pixels: Pixels) -> Pixels:
    """Every value times a factor."""
    return np.clip(pixels * np.float32(factor), 0, 1)


def scale_contrast(factor: float, pixels: Pixels) -> Pixels:
    """Every value's distance from the mean times a factor."""
    mean = pixels.mean()
    return np.clip(mean + (pixels - mean) * np.float32(factor), 0, 1)


def bend(exponent: float, pixels: Pixels) -> Pixels:
    """Every value to a power (gamma)."""
    return pixels ** np.float32(exponent)


def zoom(factor: float, pixels: Pixels) -> Pixels:
    """Enlarged about the middle, cut at the border; a factor below 1 leaves a black margin."""
    height, width = pixels.shape
    matrix = np.array([[factor, 0, (1 - factor) * (width - 1) / 2], [0, factor, (1 - factor) * (height - 1) / 2]])
    return _warp(matrix, pixels)


def shift(fraction: float, pixels: Pixels) -> Pixels:
    """Moved down and to the right by a fraction of each side."""
    height, width = pixels.shape
    return _warp(np.array([[1, 0, fraction * width], [0, 1, fraction * height]]), pixels)


def turn(degrees: float, pixels: Pixels) -> Pixels:
    """Turned about the middle, anticlockwise on the screen."""
    height, width = pixels.shape
    return _warp(cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1), pixels)


def coarsen(side: int, pixels: Pixels) -> Pixels:
    """Resampled until the shorter side has so many pixels, and back."""
    share = min(1.0, side / min(pixels.shape))
    height, width = (max(1, round(length * share)) for length in pixels.shape)
    return resize(resize(pixels, (height, width)), pixels.shape)


def add_noise(deviation: float, pixels: Pixels) -> Pixels:
    """Normal noise of a standard deviation, drawn by what is in the image."""
    rng = np.random.default_rng(zlib.crc32(pixels.tobytes()))
    return np.clip(pixels + rng.normal(0, deviation, pixels.shape), 0, 1).astype(np.float32)


def compress(quality: int, pixels: Pixels) -> Pixels:
    """Through an 8-bit JPEG file of a quality from 1 to 100."""
    _, file = cv2.imencode(".jpg", np.round(pixels * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_GRAYSCALE), dtype=np.float32) / np.float32(255)


STRESSES = (
    Stress("brightness", "x 0.7", partial(scale_brightness, 0.7)),
    Stress("brightness", "x 1.3", partial(scale_brightness, 1.3)),
    Stress("contrast", "x 0.6", partial(scale_contrast, 0.6)),
    Stress("contrast", "x 1.4", partial(scale_contrast, 1.4)),
    Stress("gamma", "0.6", partial(bend, 0.6)),
    Stress("gamma", "1.6", partial(bend, 1.6)),
    Stress("scale", "x 0.85", partial(zoom, 0.85)),
    Stress("scale", "x 1.15", partial(zoom, 1.15)),
    Stress("shift", "by 8%", partial(shift, 0.08)),
    Stress("rotation", "by 8 degrees", partial(turn, 8.0)),
    Stress("resolution", "112 pixels", partial(coarsen, 112)),
    Stress("resolution", "64 pixels", partial(coarsen, 64)),
    Stress("noise", "SD 0.03", partial(add_noise, 0.03)),
    Stress("noise", "SD 0.08", partial(add_noise, 0.08)),
    Stress("JPEG", "quality 20", partial(compress, 20)),
)


def _warp(matrix: npt.NDArray[np.float64], pixels: Pixels) -> Pixels:
    height, width = pixels.shape
    moved = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=0)
    return np.asarray(moved, dtype=np.float32)
