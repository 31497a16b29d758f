"""The bones of a chest as paths and outlines in cm. Knows nothing of pixels."""

import numpy as np
import numpy.typing as npt

from cxr.data.phantoms.anatomy import Chest
from cxr.data.phantoms.drawing import Points, band, disc, moved, smooth

_AT_SPINE = 1.5  # distance of the ribs' inner ends from the midline
_BODY = np.array([(-1, -0.92), (1, -0.92), (0.9, 0), (1, 0.92), (-1, 0.92), (-0.9, 0)])
_PROCESSES = np.array([(-2.7, -0.35), (0, -0.6), (2.7, -0.35), (2.6, 0.1), (0, 0.4), (-2.6, 0.1)])
RIBS = 10  # pairs; the lowest two hardly show above the liver


def rib_paths(chest: Chest, side: int) -> tuple[Points, Points]:
    """Ribs as tilted rings seen from the front, open paths in cm.

    Returns:
        Posterior parts (RIBS, 24, 2) from the spine to the side, anterior parts (RIBS, 18, 2) from there on.
    """
    person = chest.person
    number = np.arange(1, RIBS + 1)[:, None]
    start = (-14.2 + 2.18 * (number - 1)) * person.height + 0.4 * person.rib_start
    drop = (1.7 + 0.42 * np.minimum(number, 8)) * person.height
    reach = (chest.half_width(start + drop) + 0.35) * np.where(number == 1, 0.92, 1.0) - _AT_SPINE
    drop = drop * np.where(number == 1, 0.8, 1.0)
    back = np.linspace(0.0, np.pi / 2, 24)[None]
    posterior = _AT_SPINE + reach * np.sin(back), start + drop * (1 - np.cos(back)) - 0.55 * np.sin(2 * back)
    share = np.linspace(0, 1, 18)[None]
    front = np.pi / 2 + share * np.pi * (0.37 - 0.01 * number)
    anterior = _AT_SPINE + reach * np.sin(front), start + drop * (1 - 1.15 * np.cos(front))
    leaning = np.stack(anterior, axis=2) * (side, 1) + share[..., None] * np.array([chest.pose.yaw, 0.0])
    return np.stack(posterior, axis=2) * (side, 1), leaning


def clavicle(chest: Chest, side: int) -> tuple[Points, npt.NDArray[np.float64]]:
    """(path, widths) of a clavicle from the sternum to the shoulder."""
    rise = 1.4 if chest.is_ap else 0.0
    points = [(1.4, -10.2), (3.2, -10.7), (6.2, -12.4 - rise), (9.5, -14.0 - rise), (12.5, -14.5 - rise)]
    points += [(15.0, -14.2 - rise), (16.6, -13.6 - rise)]
    path = smooth(np.array(points) * (side * chest.person.width, chest.person.height), closed=False)
    lean = np.linspace(1, 0, len(path))[:, None] * np.array([0.9 * chest.pose.yaw, 0.0])
    return path + lean, np.interp(np.linspace(0, 1, len(path)), [0, 0.15, 0.5, 1], [1.9, 1.25, 1.0, 1.3])


def scapula(chest: Chest, side: int) -> Points:
    """Outline of a shoulder blade: beside the lungs in PA, over their edge in AP."""
    shift = -1.8 if chest.is_ap else 1.1
    points = [(13.8, -13.6), (11.4, -12.6), (11.8, -8.0), (13.2, -3.0), (14.3, -0.9), (15.2, -2.2), (16.2, -8.0)]
    points += [(17.4, -11.4), (17.6, -13.0)]
    return smooth(moved(np.array(points), shift, 0.0) * (side * chest.person.width, chest.person.height))


def spine(chest: Chest) -> list[tuple[Points, float]]:
    """Vertebrae from the neck to the waist: stacks of outlines (M, N, 2) and how dense each is (0 to 1)."""
    y = np.arange(-20.0, 24.0, 2.25) * chest.person.height
    x = chest.person.scoliosis * np.sin(y / 7.0) - 0.35 * chest.pose.yaw
    centres = np.stack([x, y], axis=1)[:, None]
    half = np.stack([1.45 + 0.02 * (y + 14), np.ones_like(y)], axis=1)[:, None]
    return [
        (smooth(_PROCESSES) + centres, 0.3),
        (smooth(_BODY) * half + centres, 0.55),
        (smooth(_BODY) * half * 0.85 + centres, 0.47),
        (disc(-0.95, -0.2, 0.33, 0.45) + centres, 0.62),
        (disc(0.95, -0.2, 0.33, 0.45) + centres, 0.62),
        (disc(0.0, 0.55, 0.2, 0.6) + centres, 0.68),
    ]


def humerus(chest: Chest, side: int) -> list[Points]:
    """Head and shaft of the bone of an upper arm."""
    axis = moved(chest.upper_arm(side), side * 0.9, 0.9)
    head = disc(axis[0, 0], axis[0, 1], 2.3, 2.5)
    return [head, band(axis, np.linspace(2.7, 2.0, len(axis)))]
