"""Centimetres to pixels: frames, smooth curves, filled shapes. Knows nothing of chests."""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]

_SHIFT = 4  # cv2 draws with 1/16 pixel


@dataclass(frozen=True)
class Frame:
    """Where a square detector lies over the body plane.

    The body plane is in cm: x grows to the right of the image, y downwards, the origin in the middle of the thorax.

    Attributes:
        size: Pixels along each side.
        field_cm: Side of the field of view in cm.
        rotation: Rotation of the body in radians, positive clockwise as seen.
        shift_cm: (x, y) of the body's origin relative to the detector's middle.
    """

    size: int
    field_cm: float
    rotation: float = 0.0
    shift_cm: tuple[float, float] = (0.0, 0.0)

    @property
    def pixels_per_cm(self) -> float:
        """Pixels per cm."""
        return self.size / self.field_cm

    def resized(self, size: int) -> "Frame":
        """The same field of view with another number of pixels."""
        return Frame(size, self.field_cm, self.rotation, self.shift_cm)

    def to_pixels(self, points: Points) -> Points:
        """Body points (..., 2) in cm to pixel coordinates (x, y); pixel centres are at whole numbers."""
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        turned = points @ np.array([[cos, sin], [-sin, cos]])
        return (turned + self.shift_cm) * self.pixels_per_cm + (self.size - 1) / 2

    @property
    def grid(self) -> tuple[Array, Array]:
        """Body coordinates (x, y) in cm of every pixel, each (size, size), not to be written to."""
        return _grid(self)

    def fill(self, *outlines: Points) -> Array:
        """Antialiased union of filled outlines (each (N, 2) in cm): (size, size) in [0, 1]."""
        canvas = np.zeros((self.size, self.size), np.uint8)
        self.fill_levels(canvas, [(outline, 1.0) for outline in outlines])
        return canvas * np.float32(1 / 255)

    def fill_levels(self, canvas: npt.NDArray[np.uint8], shapes: list[tuple[Points, float]]) -> None:
        """Draw outlines with their level (0 to 1) onto an 8-bit canvas; a later shape covers an earlier one.

        Args:
            canvas: (size, size), changed in place.
            shapes: Outlines (N, 2) or stacks of outlines (M, N, 2) in cm, each with its level.
        """
        for outlines, level in shapes:
            corners = np.rint(self.to_pixels(outlines) * (1 << _SHIFT)).astype(np.int32)
            for outline in corners.reshape(-1, *corners.shape[-2:]):
                cv2.fillPoly(canvas, [outline], round(255 * level), cv2.LINE_AA, _SHIFT)

    def lines(self, starts: Points, ends: Points, widths: Points) -> Array:
        """Straight strokes whose level is their own width: (size, size) in cm.

        Args:
            starts: (N, 2) in cm.
            ends: (N, 2) in cm.
            widths: (N,) in cm, at most 1; where strokes cross, the widest counts.
        """
        canvas = np.zeros((self.size, self.size), np.uint8)
        order = np.argsort(widths, kind="stable")
        first = np.rint(self.to_pixels(starts[order]) * (1 << _SHIFT)).astype(int).tolist()
        last = np.rint(self.to_pixels(ends[order]) * (1 << _SHIFT)).astype(int).tolist()
        for start, end, width in zip(first, last, widths[order].tolist(), strict=True):
            pixels = width * self.pixels_per_cm
            level = round(255 * width * min(1.0, pixels))
            cv2.line(canvas, start, end, level, max(1, round(pixels)), cv2.LINE_AA, _SHIFT)
        return canvas * np.float32(1 / 255)

    def blur(self, image: Array, sigma_cm: float) -> Array:
        """Gaussian blur with the standard deviation in cm; wide blurs are done on fewer pixels."""
        sigma = sigma_cm * self.pixels_per_cm
        factor = max(1, int(sigma // 3))
        if factor == 1:
            return gaussian(image, sigma)
        small = cv2.resize(image, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
        blurred = gaussian(small, sigma * small.shape[0] / self.size)
        return resize(blurred, self.size)


@lru_cache(maxsize=8)
def _grid(frame: Frame) -> tuple[Array, Array]:
    along = (np.arange(frame.size) - (frame.size - 1) / 2) / frame.pixels_per_cm
    dx, dy = along[None, :] - frame.shift_cm[0], along[:, None] - frame.shift_cm[1]
    cos, sin = math.cos(frame.rotation), math.sin(frame.rotation)
    return (cos * dx + sin * dy).astype(np.float32), (cos * dy - sin * dx).astype(np.float32)


def gaussian(image: Array, sigma: float) -> Array:
    """Gaussian blur with the standard deviation in pixels, mirrored at the borders."""
    if sigma < 0.15:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def resize(image: Array, size: int) -> Array:
    """Square image (n, n) to (size, size): area means downwards, linear upwards."""
    way = cv2.INTER_AREA if size < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=way), np.float32)


def smooth(points: npt.ArrayLike, closed: bool = True, steps: int = 8) -> Points:
    """Catmull-Rom curve through control points (N, 2), with `steps` points for each piece."""
    knots = np.asarray(points, np.float64)
    if closed:
        padded = np.vstack([knots[-1:], knots, knots[:2]])
    else:
        padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    before, start, end, after = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    curve = curve.reshape(-1, 2)
    return curve if closed else np.vstack([curve, knots[-1:]])


def band(paths: Points, widths: npt.ArrayLike) -> Points:
    """Outlines (..., 2 N, 2) of bands around paths (..., N, 2); full widths broadcast to (..., N), all in cm."""
    along = np.empty_like(paths)
    along[..., 1:-1, :] = paths[..., 2:, :] - paths[..., :-2, :]
    along[..., 0, :] = paths[..., 1, :] - paths[..., 0, :]
    along[..., -1, :] = paths[..., -1, :] - paths[..., -2, :]
    normal = along[..., ::-1] * np.array([-1.0, 1.0])
    normal /= np.maximum(np.hypot(along[..., 0], along[..., 1]), 1e-9)[..., None]
    side = normal * (np.asarray(widths, np.float64) / 2)[..., None]
    return np.concatenate([paths + side, (paths - side)[..., ::-1, :]], axis=-2)


def moved(outline: Points, x: float, y: float) -> Points:
    """The outline shifted by (x, y) cm."""
    return outline + np.array([x, y])


def disc(x: float, y: float, radius_x: float, radius_y: float | None = None, turn: float = 0.0) -> Points:
    """Outline of an ellipse around (x, y) in cm, turned by `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    a = radius_x * np.cos(angle)
    b = (radius_x if radius_y is None else radius_y) * np.sin(angle)
    return np.stack([x + a * np.cos(turn) - b * np.sin(turn), y + a * np.sin(turn) + b * np.cos(turn)], axis=1)
