"""Findings of the four study classes: what is drawn where. Knows nothing of films or files.

The classes and their words are those of the SIIM-FISABIO-RSNA COVID-19 data, which follow the RSNA expert consensus
(Simpson et al., Radiology: Cardiothoracic Imaging 2020, doi 10.1148/ryct.2020200152), there for CT, and its use for
radiographs (Litmanovich et al., J Thorac Imaging 2020):

- negative: no opacity;
- typical: several opacities in both lungs, peripheral, rounded, mostly in the lower zones;
- indeterminate: no typical pattern, but central, unilateral or diffuse opacity that is not rounded;
- atypical: lobar consolidation, nodules, cavity, pleural effusion or pneumothorax.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cxr.data.phantoms.anatomy import SIDES, Chest
from cxr.data.phantoms.ceiling import GRID
from cxr.data.phantoms.drawing import Array, Frame, gaussian

CLASS_NAMES = ("Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance")
NEGATIVE, TYPICAL, INDETERMINATE, ATYPICAL = CLASS_NAMES
FAINT = 0.1  # up to this visibility no reader would see a finding
_PLEURAL = ("effusion", "pneumothorax")


@dataclass(frozen=True)
class Finding:
    """One finding in the coordinates of a lung, so that it stays in place when breath or pose change.

    Attributes:
        kind: 'rounded', 'hazy', 'diffuse', 'lobar', 'nodule', 'cavity', 'effusion' or 'pneumothorax'.
        side: -1 for the patient's right lung, +1 for the left.
        depth: 0 at the chest wall, 1 at the midline.
        height: 0 at the apex, 1 at the top of the dome.
        size_cm: Half width and half height in cm; an effusion's and a pneumothorax's second value is its extent.
        strength: Share of the air that it replaces where it is densest, at visibility 1.
        visibility: Factor on the strength: 0 is not drawn at all, 1 is the plainest.
        seed: Of its irregular shape.
    """

    kind: str
    side: int
    depth: float
    height: float
    size_cm: tuple[float, float]
    strength: float
    visibility: float
    seed: int

    @property
    def is_boxed(self) -> bool:
        """Whether a reader would box it: opacities that can be seen, but not what lies in the pleura."""
        return self.visibility > FAINT and self.kind not in _PLEURAL


def draw_findings(class_name: str, visibility: float, rng: np.random.Generator) -> tuple[Finding, ...]:
    """Draw the findings of one study.

    Args:
        class_name: One of CLASS_NAMES.
        visibility: 0 to 1, of the whole study; each finding has 80 to 100% of it.
        rng: Source of chance, used for nothing else.
    """
    if class_name == TYPICAL:
        return _typical(visibility, rng)
    if class_name == INDETERMINATE:
        return _indeterminate(visibility, rng)
    return _atypical(visibility, rng) if class_name == ATYPICAL else ()


def _finding(
    kind: str,
    side: int,
    place: tuple[float, float],
    size: tuple[float, float],
    strength: float,
    visibility: float,
    rng: np.random.Generator,
) -> Finding:
    """A finding with its own share of the study's visibility."""
    seen = visibility * float(rng.uniform(0.8, 1.0))
    return Finding(kind, side, place[0], place[1], size, strength, seen, int(rng.integers(2**31)))


def _typical(visibility: float, rng: np.random.Generator) -> tuple[Finding, ...]:
    """One to three rounded peripheral opacities in each lung, most of them low."""
    drawn = []
    for side in SIDES:
        count = int(rng.integers(1, 4))
        for height in 0.5 + 0.5 * (np.arange(count) + rng.uniform(0.2, 0.8, count)) / count:
            radius = float(rng.uniform(1.8, 3.2))
            size = radius, radius * float(rng.uniform(0.8, 1.2))
            place = float(rng.uniform(0.1, 0.3)), float(height)
            drawn.append(_finding("rounded", side, place, size, float(rng.uniform(0.4, 0.6)), visibility, rng))
    return tuple(drawn)


def _indeterminate(visibility: float, rng: np.random.Generator) -> tuple[Finding, ...]:
    """Central haze around both hila, one irregular patch, or a diffuse haze of both lungs."""
    pattern = rng.choice(["central", "unilateral", "diffuse"])
    strength = float(rng.uniform(0.42, 0.58))
    if pattern == "central":
        sizes = [(float(rng.uniform(2.2, 3.2)), float(rng.uniform(3.5, 5.5))) for _ in SIDES]
        return tuple(
            _finding("hazy", side, (0.62, float(rng.uniform(0.5, 0.65))), size, strength, visibility, rng)
            for side, size in zip(SIDES, sizes, strict=True)
        )
    if pattern == "unilateral":
        size = float(rng.uniform(2.8, 4.2)), float(rng.uniform(3.0, 5.5))
        place = float(rng.uniform(0.4, 0.6)), float(rng.uniform(0.3, 0.8))
        return (_finding("hazy", int(rng.choice(SIDES)), place, size, strength * 1.15, visibility, rng),)
    return tuple(_finding("diffuse", side, (0.5, 0.55), (6.5, 11.0), strength, visibility, rng) for side in SIDES)


def _atypical(visibility: float, rng: np.random.Generator) -> tuple[Finding, ...]:
    """Lobar consolidation, one to four nodules, a cavity, an effusion or a pneumothorax."""
    kind = rng.choice(["lobar", "nodule", "cavity", "effusion", "pneumothorax"])
    side = int(rng.choice(SIDES))
    if kind == "nodule":
        places = rng.uniform((0.2, 0.15), (0.7, 0.9), (int(rng.integers(1, 5)), 2))
        radii = rng.uniform(1.0, 1.9, len(places))
        return tuple(
            _finding("nodule", int(rng.choice(SIDES)), (depth, height), (radius, radius), 0.75, visibility, rng)
            for (depth, height), radius in zip(places.tolist(), radii.tolist(), strict=True)
        )
    if kind == "lobar":
        upper = rng.random() < 0.5
        return (_finding("lobar", side, (0.5, 0.22 if upper else 0.85), (7.0, 4.5), 0.75, visibility, rng),)
    if kind == "cavity":
        radius = float(rng.uniform(1.8, 3.0))
        place = float(rng.uniform(0.35, 0.6)), float(rng.uniform(0.15, 0.5))
        return (_finding("cavity", side, place, (radius, radius), 0.75, visibility, rng),)
    extent = float(rng.uniform(4.0, 9.0)) if kind == "effusion" else float(rng.uniform(1.4, 3.6))
    return (_finding(str(kind), side, (0.0, 0.5), (7.0, extent), 0.9 if kind == "effusion" else 0.31, visibility, rng),)


def finding_field(finding: Finding, chest: Chest, frame: Frame) -> Array:
    """The finding on the texture grid: (GRID, GRID), share of the air replaced, visibility included.

    Values are 0 to 1; negative where a pneumothorax leaves more air than lung had.
    """
    if finding.visibility == 0:
        return np.zeros((GRID, GRID), np.float32)
    coarse = frame.resized(GRID)
    shape = _SHAPES[finding.kind](finding, chest, coarse)
    own = _own_lung(finding.side, coarse)
    return np.asarray(shape * own * np.float32(finding.strength * finding.visibility), np.float32)


def finding_box(field: Array, air: Array) -> tuple[int, int, int, int] | None:
    """Box (x, y, width, height) of a finding in pixels of its grid, or None if nothing of it lies in air.

    Args:
        field: (N, N) from `finding_field`.
        air: (N, N) lung along the ray in cm, on the same grid.
    """
    seen = field * (air > 1.0)
    if seen.max() <= 0:
        return None
    rows, columns = np.nonzero(seen > 0.35 * seen.max())
    x, y = int(columns.min()), int(rows.min())
    return x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y


def finding_centre(finding: Finding, chest: Chest) -> tuple[float, float]:
    """(x, y) of a finding in cm of the body plane."""
    top = -13.0 * chest.person.height
    y = top + finding.height * (chest.dome(finding.side) - top)
    return finding.side * (1 - finding.depth) * float(chest.half_width(y)), y


def _own_lung(side: int, coarse: Frame) -> Array:
    """1 on the finding's own side of the midline."""
    return np.clip(side * coarse.grid[0] / 0.6, 0, 1)


def _half_width(chest: Chest, y: Array) -> Array:
    """Half width of the rib cage at the heights `y`, as `Chest.half_width`."""
    return chest.half_width(y).astype(np.float32)


def _step(distance: npt.NDArray[np.floating[Any]], blur_cm: float) -> Array:
    """1 where `distance` (cm) is negative, 0 where positive, smooth over about `blur_cm`."""
    return np.asarray(1 / (1 + np.exp(np.clip(distance * (4 / blur_cm), -30, 30))), np.float32)


def _mottle(finding: Finding, cells: int) -> Array:
    """Smooth irregular field of about unit amplitude: (GRID, GRID)."""
    knots = np.random.default_rng(finding.seed).standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(knots, (GRID, GRID), interpolation=cv2.INTER_CUBIC), np.float32)


def _radius(finding: Finding, chest: Chest, coarse: Frame) -> Array:
    """Distance from the centre in units of the half width and half height."""
    x, y = coarse.grid
    centre_x, centre_y = finding_centre(finding, chest)
    return np.hypot((x - centre_x) / finding.size_cm[0], (y - centre_y) / finding.size_cm[1])


def _rounded(finding: Finding, chest: Chest, coarse: Frame) -> Array:
    """Roundish with an ill-defined rim and a mottled inside."""
    radius = _radius(finding, chest, coarse) * (1 + 0.07 * _mottle(finding, 16))
    return _step((radius - 0.85) * 2.0, 1.1) * np.clip(1 + 0.15 * _mottle(finding, 36), 0, 2)


def _hazy(finding: Finding, chest: Chest, coarse: Frame) -> Array:
    """No clear rim, no round shape."""
    radius = _radius(finding, chest, coarse) * (1 + 0.3 * _mottle(finding, 9))
    return np.exp(-1.1 * radius**2) * np.clip(1 + 0.3 * _mottle(finding, 32), 0, 2)


def _diffuse(finding: Finding, chest: Chest, coarse: Frame) -> Array:
    """Most of a lung, patchy."""
    radius = _radius(finding, chest, coarse)
    return np.exp(-0.6 * radius**4) * np.clip(0.8 + 0.4 * _mottle(finding, 14), 0, 2)


def _lobar(finding: Finding, chest: Chest, coarse: Frame) -> Array:
    """One lobe, sharp at its fissure, fading at its other end."""
    x, y = coarse.grid
    upper = finding.height < 0.5
    _, centre = finding_centre(finding, chest)
    fissure = centre + (2.4 if upper else -2.6) + 0.09 * (np.abs(x) - 6.0)
    beyond = (y - fissure) if upper else (fissure - y)
    fading = _step(-beyond - 7.5 + 1.2 * _mottle(finding, 10), 3.0)
    return _step(beyond, 0.25) * fading * np.clip(0.95 + 0.2 * _mottle(finding, 32), 0, 2)


def _nodule(finding: Finding, chest: Chest, coarse: Frame) -> Array:
    """A solid ball with a sharp rim."""
    radius = _radius(finding, chest, coarse) * (1 + 0.03 * _mottle(finding, 24))
    return gaussian(np.sqrt(np.clip(1 - radius**2, 0, 1)), 0.4)


def _cavity(finding: Finding, chest: Chest, coarse: Frame) -> Array:
    """A thick ring around air, with a little fluid at the bottom."""
    radius = _radius(finding, chest, coarse) * (1 + 0.06 * _mottle(finding, 16))
    ring = _step((np.abs(radius - 0.8) - 0.17) * 2.0, 0.4)
    fluid = _step((radius - 0.75) * 2.0, 0.3) * (coarse.grid[1] > finding_centre(finding, chest)[1] + 0.6)
    return np.maximum(ring, 0.8 * fluid)


def _effusion(finding: Finding, chest: Chest, coarse: Frame) -> Array:
    """Fluid in the base that climbs the chest wall as a meniscus."""
    x, y = coarse.grid
    toward_wall = np.clip(np.abs(x) / _half_width(chest, y), 0, 1)
    base = chest.dome(finding.side) + 2.2 - 0.45 * finding.size_cm[1]
    level = base - finding.size_cm[1] * (0.15 + 0.85 * toward_wall**5)
    return _step(level - y, 0.7)


def _pneumothorax(finding: Finding, chest: Chest, coarse: Frame) -> Array:
    """Air between the chest wall and a thin bright pleural line, widest at the apex."""
    x, y = coarse.grid
    top = -13.4 * chest.person.height
    width = finding.size_cm[1] * np.clip(1.15 - (y - top) / 18.0, 0.05, 1.2)
    wall = np.minimum(_half_width(chest, y), 4.5 + (y - top) * 1.6)
    inside = wall - np.abs(x) - width
    line = np.exp(-((inside / 0.16) ** 2))
    return -0.9 * _step(inside, 0.2) + 0.8 * line * (y > top + 0.5)


_SHAPES = {
    "rounded": _rounded,
    "hazy": _hazy,
    "diffuse": _diffuse,
    "lobar": _lobar,
    "nodule": _nodule,
    "cavity": _cavity,
    "effusion": _effusion,
    "pneumothorax": _pneumothorax,
}
