"""Stored numbers to brightness: modality LUT, VOI LUT or window, polarity and range, as DICOM PS3.3 C.11 defines them.

Knows nothing of files, of pydicom or of geometry: arrays in, arrays out.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.float32]
Range = tuple[float, float]

WINDOW_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
TABLE_SIZE = 2**16
"""Integer images that span fewer levels than this are rendered through one table: a look-up per pixel."""
SAMPLE_SIDE = 256
"""Contrast is judged on about this many rows and columns."""
LEAST_CONTRAST = 1 / 16
LEAST_SHADED = 0.01
HALF_A_LEVEL = 1 / 512
"""Darker than this is black and brighter than 1 minus this is white, on a display of 256 levels."""


@dataclass(frozen=True)
class Rescale:
    """Modality rescale (PS3.3 C.11.1.1.2): ``stored * slope + intercept``."""

    slope: float
    intercept: float

    def __call__(self, values: Floats) -> Floats:
        """Modality units of `values` (any shape)."""
        return values * self.slope + self.intercept

    def nominal(self, low: float, high: float) -> Range:
        """The range that stored values from `low` to `high` are mapped to."""
        ends = (low * self.slope + self.intercept, high * self.slope + self.intercept)
        return min(ends), max(ends)


@dataclass(frozen=True)
class LookupTable:
    """Modality or VOI LUT (PS3.3 C.11.1.1, C.11.2.1.1).

    Attributes:
        first: The input mapped to ``entries[0]``; inputs beyond either end take the nearest entry.
        entries: (N,) float64, N at least 1.
        bits: Declared bits per entry: the nominal output range is 0 to ``2**bits - 1``.
    """

    first: float
    entries: Floats
    bits: int

    def __call__(self, values: Floats) -> Floats:
        """The entry of each of `values` (any shape), rounded to the nearest input."""
        index = np.clip(np.rint(values - self.first), 0, len(self.entries) - 1)
        return self.entries[index.astype(np.intp)]

    def nominal(self, low: float, high: float) -> Range:
        """The range that the table declares."""
        return 0.0, 2.0**self.bits - 1

    def unit(self, values: Floats) -> Floats:
        """The entry of each of `values`, scaled to [0, 1] by the range of the table's entries."""
        used = (float(self.entries.min()), float(self.entries.max()))
        return scale_to_unit(self(values), *choose_range(used, self.nominal(*used)))


@dataclass(frozen=True)
class Window:
    """VOI window (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Attributes:
        center: In modality units.
        width: In modality units: at least 1 for LINEAR, above 0 for the others.
        function: One of WINDOW_FUNCTIONS.
    """

    center: float
    width: float
    function: str = "LINEAR"

    @property
    def is_valid(self) -> bool:
        """Whether the standard defines an image for these values."""
        if self.function not in WINDOW_FUNCTIONS or not np.isfinite([self.center, self.width]).all():
            return False
        return self.width >= 1 if self.function == "LINEAR" else self.width > 0

    def unit(self, values: Floats) -> Floats:
        """Brightness in [0, 1] of `values` (any shape)."""
        if self.function == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (values - self.center) / self.width, -700, 700)))
        if self.function == "LINEAR_EXACT":
            return np.clip((values - self.center) / self.width + 0.5, 0, 1)
        if self.width == 1:
            return (values > self.center - 0.5).astype(np.float64)
        return np.clip((values - (self.center - 0.5)) / (self.width - 1) + 0.5, 0, 1)


@dataclass(frozen=True)
class Rendering:
    """How the stored values of one image become brightness.

    Without a VOI transform the image is scaled by the *no-window rule*: by the nominal range (what the stored bits
    can hold, in modality units) if the pixels lie within it and span at least half of it, else by the pixels' own
    range. So an 8-bit image keeps its levels, and 12-bit data in a 16-bit container is not nearly black.

    Attributes:
        nominal: Lowest and highest value the stored bits can hold.
        modality: Stored values to modality units; None leaves them.
        voi: Modality units to brightness; None applies the no-window rule.
        inverted: Whether the lowest value is the brightest (MONOCHROME1).
        padding: Lowest and highest stored value that stand for "no image here"; they are black and set no range.
    """

    nominal: Range
    modality: Rescale | LookupTable | None = None
    voi: Window | LookupTable | None = None
    inverted: bool = False
    padding: Range | None = None

    def render(self, stored: Array) -> Pixels:
        """Brightness of every pixel.

        Args:
            stored: (H, W) integers or floats, not empty.

        Returns:
            (H, W) float32 in [0, 1].

        Raises:
            ValueError: If a stored value is not finite.
        """
        low, high = stored.min(), stored.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("NaN or infinity among the pixel values")
        used = self._used(stored, (low, high))
        if stored.dtype.kind not in "iu" or int(high) - min(int(low), 0) >= TABLE_SIZE:
            return self._brightness(stored.astype(np.float64), used)
        first = min(int(low), 0)
        table = self._brightness(np.arange(first, int(high) + 1, dtype=np.float64), used)
        levels = stored if first == 0 else np.subtract(stored, first, dtype=np.int64)
        return cv2.LUT(levels.astype(np.uint16, copy=False), np.pad(table, (0, TABLE_SIZE - table.size)))

    def voi_is_unusable(self, stored: Array) -> bool:
        """Whether the VOI transform is undefined or wipes out an image that is there.

        It does if the stored values vary, yet the result is nearly constant (the 1st to the 99th percentile within
        LEAST_CONTRAST) or nearly all black and white (fewer than LEAST_SHADED of the pixels between the two):
        the sign of a window in other units than the data.

        Args:
            stored: (H, W) integers or floats.
        """
        if self.voi is None:
            return False
        if isinstance(self.voi, Window) and not self.voi.is_valid:
            return True
        steps = [max(side // SAMPLE_SIDE, 1) for side in stored.shape]
        sample = self._image_part(stored[:: steps[0], :: steps[1]]).astype(np.float64)
        if len(np.unique(sample)) <= 2:
            return False
        shown = self.voi.unit(self._to_modality(sample))
        low, high = np.percentile(shown, (1, 99))
        shaded = np.mean((shown > HALF_A_LEVEL) & (shown < 1 - HALF_A_LEVEL))
        return bool(high - low < LEAST_CONTRAST or shaded < LEAST_SHADED)

    def _brightness(self, stored: Floats, used: Range) -> Pixels:
        values = self._to_modality(stored)
        if self.voi is not None:
            unit = self.voi.unit(values)
        else:
            nominal = self.nominal if self.modality is None else self.modality.nominal(*self.nominal)
            unit = scale_to_unit(values, *choose_range(used, nominal))
        if self.inverted:
            unit = 1 - unit
        if self.padding is not None:
            unit = np.where((stored >= self.padding[0]) & (stored <= self.padding[1]), 0, unit)
        return unit.astype(np.float32)

    def _to_modality(self, stored: Floats) -> Floats:
        return stored if self.modality is None else self.modality(stored)

    def _image_part(self, stored: Array) -> Array:
        if self.padding is None:
            return stored
        part = stored[(stored < self.padding[0]) | (stored > self.padding[1])]
        return part if part.size else stored

    def _used(self, stored: Array, ends: Range) -> Range:
        """Range in modality units of the levels that occur; the entries of a table need not rise with the level.

        Args:
            stored: (H, W) integers or floats.
            ends: The lowest and the highest of them.
        """
        part = self._image_part(stored)
        if isinstance(self.modality, LookupTable):
            levels = np.unique(part)
        else:
            levels = np.array(ends if part is stored else (part.min(), part.max()))
        values = self._to_modality(levels.astype(np.float64))
        return float(values.min()), float(values.max())


def choose_range(used: Range, nominal: Range) -> Range:
    """The nominal range if `used` lies within it and is constant or spans at least half of it, else `used`."""
    inside = nominal[0] <= used[0] and used[1] <= nominal[1]
    span = used[1] - used[0]
    return nominal if inside and (span == 0 or span >= (nominal[1] - nominal[0]) / 2) else used


def scale_to_unit(values: Floats, low: float, high: float) -> Floats:
    """`values` from [`low`, `high`] to [0, 1], clipped; zeros where the range is empty."""
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
