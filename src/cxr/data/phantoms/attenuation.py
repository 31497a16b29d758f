"""The line integral of attenuation behind every detector pixel. Knows nothing of findings, films or files.

Materials are those of a chest at a mean photon energy of about 70 keV (NIST XCOM, rounded): soft tissue 0.19 per cm,
inflated lung 0.045 per cm, and for bone the excess over soft tissue, 0.32 per cm of compact bone.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from cxr.data.phantoms.anatomy import SIDES, Chest
from cxr.data.phantoms.drawing import Array, Frame, band, disc, gaussian, resize
from cxr.data.phantoms.skeleton import clavicle, humerus, rib_paths, scapula, spine
from cxr.data.phantoms.vessels import grow_vessels

SOFT = 0.19
LUNG = 0.045
BONE = 0.32
_COARSE = 192  # pixels per side for what has no sharp edge
_FINE = 320  # and for edges that breathing blurs by a millimetre


@dataclass(frozen=True)
class Layers:
    """What a ray meets, each (H, W) float32.

    Attributes:
        tissue: Line integral of attenuation of the whole body, the lungs evenly inflated.
        air: Inflated lung along the ray, in cm.
    """

    tissue: Array
    air: Array


def frontal_layers(chest: Chest, frame: Frame) -> Layers:
    """Project one frontal chest onto the detector."""
    body = _body(chest, frame)
    air = _air(chest, frame)
    vessels = _vessels(chest, frame) * _rise(air, 2.0)
    tissue = SOFT * body - (SOFT - LUNG) * air + (SOFT - LUNG) * vessels + BONE * _bones(chest, frame)
    tissue -= SOFT * _gas(chest, frame)
    return Layers(np.maximum(tissue, 0.0), air)


def rounded(mask: Array, frame: Frame, reach_cm: float) -> Array:
    """Thickness (0 to 1) of a body whose silhouette is `mask` and whose rim is a quarter circle `reach_cm` wide."""
    inside = (mask > 0.5).astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5) / np.float32(frame.pixels_per_cm * reach_cm)
    return np.asarray(np.sqrt(1 - (1 - np.minimum(distance, 1)) ** 2), np.float32)


def _rise(values: Array, full: float) -> Array:
    """0 where `values` is 0, 1 from `full` on, straight between."""
    return np.clip(values * np.float32(1 / full), 0, 1)


def _body(chest: Chest, frame: Frame) -> Array:
    """Thickness of the trunk in cm, with breasts and shoulders."""
    coarse = frame.resized(min(frame.size, _COARSE))
    person = chest.person
    x, y = coarse.grid
    depth = person.wall + person.depth
    up = np.clip((-y - 10.0) / 7.0, 0, 1)
    along = 1.0 - 0.38 * up + 0.16 * np.clip((y - 4.0) / 10.0, 0, 1)
    across = 1.0 - 0.3 * np.clip((np.abs(x) - 12.0) / 7.0, 0, 1) * np.clip((2.0 - y) / 6.0, 0, 1)
    trunk = rounded(coarse.fill(*chest.body()), coarse, 4.5) * depth * along * across
    for breast in chest.breasts():
        hanging = np.clip((y - breast[:, 1].min()) / np.ptp(breast[:, 1]) * 1.4, 0, 1)
        trunk += person.breast * rounded(coarse.fill(breast), coarse, 4.0) * hanging
    smooth_trunk = resize(coarse.blur(trunk, 0.25), frame.size)
    return smooth_trunk * gaussian(frame.fill(*chest.body()), 0.8)


def _air(chest: Chest, frame: Frame) -> Array:
    """Inflated lung along each ray, in cm."""
    fine = frame.resized(min(frame.size, _FINE))
    total = np.zeros((fine.size, fine.size), np.float32)
    heart = fine.blur(fine.fill(chest.heart(), *chest.great_vessels()), 0.09)
    middle = fine.blur(fine.fill(chest.mediastinum()), 0.14)
    soft_middle = fine.blur(middle, 0.6)
    for side in SIDES:
        front = rounded(fine.fill(chest.lung(side)), fine, 4.0)
        back = fine.blur(rounded(fine.fill(chest.lung_back(side)), fine, 5.0), 0.7)
        total += 0.68 * front * (1 - heart) * (1 - middle) + 0.26 * back * (1 - 0.8 * soft_middle) * (1 - 0.5 * heart)
    return resize(fine.blur(total * np.float32(chest.person.depth), 0.05), frame.size)


def _vessels(chest: Chest, frame: Frame) -> Array:
    """Pulmonary vessels and hila in cm of blood."""
    starts, ends, widths = grow_vessels(chest)
    tree = frame.blur(frame.lines(starts, ends, widths), 0.05)
    for side in SIDES:
        x, y = chest.hilum(side)
        tree += 0.9 * frame.blur(frame.fill(disc(x - side * 0.5, y, 1.0, 1.9, side * 0.35)), 0.5)
    return tree * np.float32(3.4)


def _bones(chest: Chest, frame: Frame) -> Array:
    """Bone along each ray, in cm of compact bone."""
    total = _ribs(chest, frame) + _shoulder_girdle(chest, frame) + _spine(chest, frame)
    return frame.blur(total, 0.035) * np.float32(chest.person.bone)


def _ribs(chest: Chest, frame: Frame) -> Array:
    """Ten pairs of ribs as hollow tubes; seen edge-on at the side of the chest they look denser."""
    back = np.zeros((frame.size, frame.size), np.uint8)
    front = np.zeros_like(back)
    for side in SIDES:
        posterior, anterior = rib_paths(chest, side)
        thick = chest.person.rib_width * np.linspace(0.8, 1.05, posterior.shape[1])
        wide = chest.person.rib_width * np.linspace(1.05, 1.35, anterior.shape[1])
        frame.fill_levels(back, [(band(posterior, thick), 0.85), (band(posterior, thick * 0.62), 0.58)])
        frame.fill_levels(front, [(band(anterior, wide), 0.62), (band(anterior, wide * 0.66), 0.4)])
    edge_on = frame.blur(np.maximum(back, front) * np.float32(0.9 / 255), 0.1)
    coarse = frame.resized(min(frame.size, _COARSE))
    x, y = coarse.grid
    low = np.clip((13.5 - y) / 4.0, 0.1, 1)
    front_fade = np.clip((np.abs(x) - 5.0) / 3.5, 0.25, 1) * low * np.float32(0.72 / 255)
    wall_at = chest.half_width(y).astype(np.float32)
    near_wall = np.clip(1 - np.abs(np.abs(x) - wall_at) / 1.1, 0, 1) * low
    fade, wall = (resize(np.asarray(part, np.float32), frame.size) for part in (front_fade, near_wall))
    return back * np.float32(0.8 / 255) + front * fade + edge_on * wall


def _shoulder_girdle(chest: Chest, frame: Frame) -> Array:
    """Clavicles, shoulder blades and upper arms."""
    canvas = np.zeros((frame.size, frame.size), np.uint8)
    blades = np.zeros_like(canvas)
    for side in SIDES:
        path, widths = clavicle(chest, side)
        frame.fill_levels(canvas, [(band(path, widths), 0.9), (band(path, widths * 0.6), 0.66)])
        for part in humerus(chest, side):
            frame.fill_levels(canvas, [(part, 1.0)])
        outline = scapula(chest, side)
        frame.fill_levels(blades, [(outline, 0.42), (band(outline, 0.45), 0.7)])
    return canvas * np.float32(1.25 / 255) + frame.blur(blades * np.float32(0.8 / 255), 0.08)


def _spine(chest: Chest, frame: Frame) -> Array:
    """Vertebral bodies with end plates, pedicles and spinous processes."""
    canvas = np.zeros((frame.size, frame.size), np.uint8)
    frame.fill_levels(canvas, spine(chest))
    return frame.blur(canvas * np.float32(1.5 / 255), 0.09)


def _gas(chest: Chest, frame: Frame) -> Array:
    """Air outside the lungs in cm: windpipe and stomach bubble."""
    canvas = np.zeros((frame.size, frame.size), np.uint8)
    for path, widths in chest.trachea():
        frame.fill_levels(canvas, [(band(path, widths), 1.0)])
    gas = frame.blur(canvas * np.float32(1.25 / 255), 0.14)
    if chest.person.stomach_gas > 0:
        gas += 3.0 * frame.blur(frame.fill(chest.stomach()), 0.12) * chest.person.stomach_gas
    return gas
