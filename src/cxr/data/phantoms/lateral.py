"""The lateral view of a synthetic chest, for studies with a second image. Knows nothing of findings: none are drawn."""

import numpy as np

from cxr.data.phantoms.anatomy import Person
from cxr.data.phantoms.attenuation import BONE, LUNG, SOFT, Layers, rounded
from cxr.data.phantoms.drawing import Array, Frame, Points, band, disc, smooth

_TRUNK = [(-4.0, -26), (-4.8, -19), (-9.0, -14), (-11.6, -6), (-12.4, 2), (-12.2, 10), (-11.5, 26)]
_TRUNK += [(11.5, 26), (11.8, 12), (12.6, 2), (12.8, -6), (11.0, -14), (6.5, -19), (4.5, -26)]
_LUNG = [(1.5, -13.2), (-2.5, -12.2), (-6.6, -8.5), (-9.4, -2.0), (-10.4, 4.5), (-10.0, 7.6), (-5.0, 6.2), (0.5, 6.4)]
_LUNG += [(5.5, 8.6), (9.3, 12.8), (10.6, 9.0), (11.0, 0.0), (9.8, -7.0), (6.0, -12.0)]
_HEART = [(-9.6, 7.6), (-9.3, 4.0), (-7.6, 0.4), (-4.6, -2.6), (-1.6, -3.2), (1.4, -0.6), (3.0, 3.4), (2.4, 8.0)]


def lateral_layers(person: Person, frame: Frame) -> Layers:
    """Project a left lateral chest, the front of the body to the left; as `attenuation.frontal_layers`."""
    scale = np.array([person.depth / 16.0, person.height])
    width = 26.0 * person.width + 0.6 * person.wall
    y = frame.grid[1]
    along = 1.0 - 0.2 * np.clip((-y - 9.0) / 6.0, 0, 1) + 0.05 * np.clip(y / 10.0, 0, 1)
    body = rounded(frame.fill(smooth(np.array(_TRUNK) * scale), _arms(scale)), frame, 6.0) * np.float32(width) * along
    air = _lung_air(person, scale, frame)
    bones = _bones(person, scale, frame)
    tissue = SOFT * frame.blur(body, 0.3) - (SOFT - LUNG) * air + BONE * bones
    return Layers(np.maximum(tissue, 0.0), air)


def _arms(scale: Points) -> Points:
    """The raised upper arms."""
    path = smooth(np.array([(-1.0, -11.0), (-4.0, -17.0), (-9.0, -26.0)]) * scale, False)
    return band(path, 8.5)


def _lung_air(person: Person, scale: Points, frame: Frame) -> Array:
    """Air of both lungs along the ray in cm."""
    lungs = rounded(frame.fill(smooth(np.array(_LUNG) * scale)), frame, 6.5)
    heart = frame.blur(rounded(frame.fill(smooth(np.array(_HEART) * scale)), frame, 2.5), 0.3)
    hilum = frame.blur(frame.fill(disc(0.0, -1.5, 1.8, 2.4)), 0.9)
    return lungs * (1 - 0.55 * heart) * (1 - 0.22 * hilum) * np.float32(19.0 * person.width)


def _bones(person: Person, scale: Points, frame: Frame) -> Array:
    """Spine, breastbone and slanting ribs in cm of compact bone."""
    canvas = np.zeros((frame.size, frame.size), np.uint8)
    ribs = np.zeros_like(canvas)
    starts = np.array([(0.0, -12.5 + 2.2 * number + shift) for number in range(10) for shift in (0.0, 0.9)])
    path = smooth(np.array([(9.3, 0.0), (6.0, 1.2), (0.0, 4.4), (-6.5, 7.5)]), closed=False)
    frame.fill_levels(ribs, [(band((path + starts[:, None]) * scale, person.rib_width), 0.4)])
    y = np.arange(-20.0, 24.0, 2.3)
    centres = np.stack([8.4 + 1.1 * np.cos(y / 9.0), y], axis=1)[:, None]
    body = smooth(np.array([(-1.5, -0.95), (1.5, -0.95), (1.4, 0), (1.5, 0.95), (-1.5, 0.95), (-1.4, 0)]))
    shapes = [(body, 0.62), (body * 0.84, 0.5), (disc(2.6, 0.2, 1.0, 0.35, 0.5), 0.35)]
    frame.fill_levels(canvas, [((outline + centres) * scale, level) for outline, level in shapes])
    sternum = smooth(np.array([(-7.4, -9.4), (-10.0, -3.5), (-11.2, 2.4)]) * scale, False)
    frame.fill_levels(canvas, [(band(sternum, np.linspace(1.3, 0.5, len(sternum))), 0.45)])
    total = canvas * np.float32(2.2 / 255) + ribs * np.float32(0.7 / 255)
    return frame.blur(total, 0.08) * np.float32(person.bone)
