"""One exposure of one person: drawn from chance, then rendered. Knows nothing of studies, cohorts or files."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from cxr.data.phantoms.anatomy import Chest, Person, Pose
from cxr.data.phantoms.attenuation import LUNG, SOFT, Layers, frontal_layers
from cxr.data.phantoms.ceiling import GRID, detectability, draw_texture
from cxr.data.phantoms.drawing import Array, Frame, resize
from cxr.data.phantoms.film import LUNG_SIGNAL, Exposure, expose, film_curve
from cxr.data.phantoms.findings import Finding, finding_box, finding_field
from cxr.data.phantoms.lateral import lateral_layers

Box = tuple[float, float, float, float]
SOURCES = ("site-a", "site-b")
_DENSEST = 0.8  # share of the air that overlapping findings replace at most


@dataclass(frozen=True)
class Exam:
    """Everything that fixes one exposure.

    Attributes:
        texture: Standard deviation of the lung texture as a share of the air.
        seeds: Of the texture and of the quantum noise.
    """

    person: Person
    pose: Pose
    frame: Frame
    exposure: Exposure
    texture: float
    findings: tuple[Finding, ...]
    seeds: tuple[int, int]


@dataclass(frozen=True)
class Radiograph:
    """A rendered exposure.

    Attributes:
        signal: (H, W) float32 log signal of the detector, larger where denser.
        exposure: How it is to be developed.
        boxes: (x, y, width, height) in pixels of every opacity that a reader would box.
        d_prime: Detectability of all findings together, see `ceiling`.
    """

    signal: Array
    exposure: Exposure
    boxes: tuple[Box, ...]
    d_prime: float

    @cached_property
    def display(self) -> Array:
        """(H, W) float32 grey values in (0, 1), bright = dense."""
        return film_curve(self.signal, self.exposure)


def draw_exam(
    person: Person, view: str, source: str, size: int, findings: tuple[Finding, ...], rng: np.random.Generator
) -> Exam:
    """Draw the pose, the position and the exposure of one image.

    Args:
        person: Whom.
        view: 'PA', 'AP' or 'LATERAL'.
        source: One of SOURCES; it sets the marker.
        size: Pixels along each side.
        findings: What is drawn; it changes nothing else.
        rng: Source of chance, used for nothing else.
    """
    upright = view != "AP"
    pose = Pose(view, float(rng.normal(0, 0.45 if upright else 0.8)), float(rng.normal(0 if upright else -0.9, 0.5)))
    frame = Frame(
        size,
        field_cm=float(rng.uniform(37.0, 41.5)),
        rotation=float(rng.normal(0, 0.02 if upright else 0.04)),
        shift_cm=(float(rng.normal(0, 0.6)), 1.1 + float(rng.normal(0, 0.7))),
    )
    return Exam(
        person,
        pose,
        frame,
        _draw_exposure(person, view, source, rng),
        texture=float(rng.uniform(0.03, 0.05)),
        findings=findings,
        seeds=(int(rng.integers(2**31)), int(rng.integers(2**31))),
    )


def _draw_exposure(person: Person, view: str, source: str, rng: np.random.Generator) -> Exposure:
    """Automatic exposure with the scatter and the film habits of a site."""
    lung = SOFT * person.wall + 0.054 * person.depth - 0.35
    if view == "LATERAL":
        lung += 1.35
    bordered = rng.random() < 0.25
    border = rng.uniform(0.0, 0.035, 4) * bordered
    right = source == SOURCES[0]
    marker_x = rng.uniform(0.04, 0.09) if right else rng.uniform(0.86, 0.91)
    return Exposure(
        scatter=float(rng.uniform(0.22, 0.38) if view != "AP" else rng.uniform(0.35, 0.55)),
        noise=float(rng.uniform(0.006, 0.013)),
        centre=lung + float(rng.normal(1.3, 0.16)),
        latitude=float(rng.uniform(2.9, 3.9)),
        detail=float(rng.uniform(0.3, 0.8)),
        border=(float(border[0]), float(border[1]), float(border[2]), float(border[3])),
        marker="R" if right else "L",
        marker_at=(float(marker_x), float(rng.uniform(0.07, 0.14))),
        marker_scale=float(rng.uniform(0.035, 0.045) if right else rng.uniform(0.05, 0.06)),
    )


def render(exam: Exam) -> Radiograph:
    """Render an exam; the same exam gives the same pixels."""
    chest, frame = Chest(exam.person, exam.pose), exam.frame
    is_lateral = exam.pose.view == "LATERAL"
    layers = lateral_layers(exam.person, frame) if is_lateral else frontal_layers(chest, frame)
    fields = [] if is_lateral else [(finding, finding_field(finding, chest, frame)) for finding in exam.findings]
    added = sum((field for _, field in fields), np.zeros((GRID, GRID), np.float32))
    added = np.minimum(added, np.float32(_DENSEST))
    texture_rng, noise_rng = (np.random.default_rng(seed) for seed in exam.seeds)
    texture = np.float32(exam.texture) * draw_texture(frame.field_cm, texture_rng)
    tissue = layers.tissue + np.float32(SOFT - LUNG) * layers.air * resize(texture + added, frame.size)
    air = resize(layers.air, GRID)
    boxes = [finding_box(field, air) for finding, field in fields if finding.is_boxed]
    scale = frame.size / GRID
    noise = _least_noise(layers, exam)
    return Radiograph(
        signal=expose(tissue, exam.exposure, frame, noise_rng),
        exposure=exam.exposure,
        boxes=tuple((x * scale, y * scale, w * scale, h * scale) for x, y, w, h in filter(None, boxes)),
        d_prime=detectability(added * _near_air(air, frame), frame.field_cm, exam.texture, noise),
    )


def _near_air(air: Array, frame: Frame) -> Array:
    """1 in the lungs, falling to 0 outside, where nothing of a finding can be seen: (GRID, GRID)."""
    outside = (air < 0.05).astype(np.uint8)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_5) * np.float32(frame.field_cm / GRID)
    return np.exp(-((distance / np.float32(1.5)) ** 2))


def _least_noise(layers: Layers, exam: Exam) -> float:
    """Quantum noise of a texture pixel where it disturbs least, as a share of the air there."""
    signal_per_share = (SOFT - LUNG) * layers.air * np.exp((LUNG_SIGNAL - layers.tissue) / 2)
    millimetres = exam.frame.field_cm * 10 / GRID
    return float(exam.exposure.noise / millimetres / signal_per_share.max())
