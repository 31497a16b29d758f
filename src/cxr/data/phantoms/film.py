"""From attenuation to grey values: scatter, quantum noise, film curve, marker. Knows nothing of chests."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from cxr.data.phantoms.drawing import Array, Frame


@dataclass(frozen=True)
class Exposure:
    """How one exposure was made and developed.

    Attributes:
        scatter: Scattered light at the detector relative to the primary beam, after the grid.
        noise: Standard deviation of the quantum noise of the log signal for one pixel of 1 mm2 behind lung.
        centre: Log signal that is shown as middle grey.
        latitude: Range of log signal that the film curve spreads over its steep part.
        detail: Strength of the edge enhancement of the reader station.
        border: Collimator blades as a share of the field, (left, top, right, bottom).
        marker: Text of the lead marker.
        marker_at: (x, y) of the marker as a share of the field.
        marker_scale: Height of the marker as a share of the field.
    """

    scatter: float
    noise: float
    centre: float
    latitude: float
    detail: float
    border: tuple[float, float, float, float]
    marker: str
    marker_at: tuple[float, float]
    marker_scale: float


LUNG_SIGNAL = 1.7  # attenuation behind lung for which the noise is stated


def expose(tissue: Array, exposure: Exposure, frame: Frame, rng: np.random.Generator) -> Array:
    """Log signal at the detector: (H, W), larger where the body is denser."""
    primary = np.exp(-tissue)
    scattering = primary * (1 - primary)  # light that met no tissue is not scattered
    total = primary + exposure.scatter * frame.blur(scattering, 3.0)
    signal = -np.log(total)
    pixel_noise = exposure.noise * (frame.pixels_per_cm / 10)
    noise = rng.standard_normal(signal.shape, np.float32)
    signal += noise * np.float32(pixel_noise * math.exp(-LUNG_SIGNAL / 2)) / np.sqrt(primary)
    signal += exposure.detail * (signal - frame.blur(signal, 1.2))
    return _mark(_collimate(signal, exposure), exposure)


def film_curve(signal: Array, exposure: Exposure) -> Array:
    """Log signal to grey values in (0, 1), bright = dense (the sigmoid of DICOM PS3.3 C.11.2.1.3.1)."""
    return 1 / (1 + np.exp(-4 * (signal - np.float32(exposure.centre)) / np.float32(exposure.latitude)))


def _collimate(signal: Array, exposure: Exposure) -> Array:
    """Outside the collimator no light falls: shown white by the log, masked black by the reader station."""
    size = signal.shape[0]
    left, top, right, bottom = (round(share * size) for share in exposure.border)
    dark = exposure.centre - 1.6 * exposure.latitude
    if max(left, top, right, bottom) == 0:
        return signal
    kept = np.full_like(signal, dark)
    rows, columns = slice(top, size - bottom), slice(left, size - right)
    kept[rows, columns] = signal[rows, columns]
    return kept


def _mark(signal: Array, exposure: Exposure) -> Array:
    """Lead letters let no light through; changes `signal` and gives it back."""
    size = signal.shape[0]
    canvas = np.zeros((size, size), np.uint8)
    scale = exposure.marker_scale * size / 22
    thickness = max(1, round(scale * 2))
    place = (round(exposure.marker_at[0] * size), round(exposure.marker_at[1] * size))
    cv2.putText(canvas, exposure.marker, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    x, y, width, height = cv2.boundingRect(canvas)
    area = slice(y, y + height), slice(x, x + width)
    lead = canvas[area] * np.float32(1 / 255)
    signal[area] = signal[area] * (1 - lead) + np.float32(exposure.centre + 0.75 * exposure.latitude) * lead
    return signal
