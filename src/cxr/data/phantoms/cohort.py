"""The studies of a phantom cohort, laid out before a pixel is drawn. Knows nothing of rendering or files."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from cxr.data.phantoms.chance import stream
from cxr.data.phantoms.findings import CLASS_NAMES, FAINT, NEGATIVE
from cxr.data.phantoms.radiograph import SOURCES
from cxr.data.phantoms.spec import CohortSpec

_T = TypeVar("_T")


@dataclass(frozen=True)
class ImagePlan:
    """One image of a study and how its file is written.

    Attributes:
        view: 'PA', 'AP' or 'LATERAL'.
        view_known: 'position' (in ViewPosition), 'description' (only in SeriesDescription), 'orientation' (only in
            PatientOrientation) or 'nowhere'.
        encoding, bits_stored, photometric, voi: As in CohortSpec.
        rescale: Whether slope and intercept change the values, unless a lookup table does.
    """

    view: str
    view_known: str
    encoding: str
    bits_stored: int
    photometric: str
    voi: str
    rescale: bool


@dataclass(frozen=True)
class StudyPlan:
    """One study.

    Attributes:
        index: Its place in the cohort; the key of its random streams.
        patient: Number of the patient, whose anatomy it shows.
        duplicate_kind: '', 'exact' or 'near'.
        duplicate_of: The study that it shows again, complete; None for an original.
    """

    index: int
    class_name: str
    patient: int
    visibility: float
    source: str
    images: tuple[ImagePlan, ...]
    duplicate_kind: str = ""
    duplicate_of: "StudyPlan | None" = None


def plan_cohort(spec: CohortSpec) -> tuple[StudyPlan, ...]:
    """Lay out all studies of a cohort; every trait has a random stream of its own."""
    class_names = _spread(CLASS_NAMES, spec.prevalence, spec.studies, stream(spec.seed, "classes"))
    patients = _patients(spec)
    visibilities = _visibilities(spec, class_names)
    sources = [str(name) for name in stream(spec.seed, "sources").choice(SOURCES, spec.studies)]
    if spec.confounded_source:
        sources = [SOURCES[name != NEGATIVE] for name in class_names]
    images = _images(spec)
    rows = zip(range(spec.studies), class_names, patients, visibilities, sources, images, strict=True)
    return _with_duplicates(spec, [StudyPlan(*row) for row in rows])


def _spread(names: Sequence[str], shares: Sequence[float], count: int, rng: np.random.Generator) -> list[str]:
    """`count` names in random order, each as often as its share says (largest remainder)."""
    exact = np.asarray(shares) / sum(shares) * count
    counts = np.floor(exact).astype(int)
    rest = np.argsort(counts - exact, kind="stable")[: count - counts.sum()]
    counts[rest] += 1
    return [str(name) for name in rng.permutation(np.repeat(names, counts))]


def _some(candidates: Sequence[int], share: float, rng: np.random.Generator) -> list[int]:
    """That share of the candidates, rounded up, in random order."""
    count = math.ceil(round(share * len(candidates), 9))
    return [int(i) for i in rng.permutation(np.asarray(candidates, int))[:count]]


def _patients(spec: CohortSpec) -> list[int]:
    """Number of the patient of each study, counted from 1 in order of appearance."""
    rng = stream(spec.seed, "patients")
    later = set(_some(range(1, spec.studies), spec.repeat_patients, rng))
    patients: list[int] = []
    for index in range(spec.studies):
        patients.append(int(rng.choice(patients)) if index in later else max(patients, default=0) + 1)
    return patients


def _visibilities(spec: CohortSpec, class_names: Sequence[str]) -> list[float]:
    """Visibility of each study; 0 for negative ones."""
    rng = stream(spec.seed, "visibilities")
    positive = [index for index, name in enumerate(class_names) if name != NEGATIVE]
    undrawn = _some(positive, spec.invisible, rng)
    faint = _some([index for index in positive if index not in undrawn], spec.faint, rng)
    values = np.zeros(len(class_names))
    values[positive] = rng.uniform(spec.plain, 1.0, len(positive))
    values[faint] = rng.uniform(0.0, FAINT, len(faint))
    values[undrawn] = 0.0
    return [float(value) for value in values]


def _images(spec: CohortSpec) -> list[tuple[ImagePlan, ...]]:
    """The images of each study: one frontal, and in some studies a second one."""
    files = _files(spec)
    rng = stream(spec.seed, "views")
    ap, unknown, double = (
        _some(range(spec.studies), share, rng) for share in (spec.ap, spec.missing_views, spec.second_images)
    )
    hiding = dict(zip(unknown, _turns(("nowhere", "description", "orientation"), rng), strict=False))
    images: list[tuple[ImagePlan, ...]] = []
    for index in range(spec.studies):
        known = hiding.get(index, "position")
        first = replace(next(files), view="AP" if index in ap else "PA", view_known=known)
        if index not in double:
            images.append((first,))
            continue
        frontal = "PA" if first.view == "AP" else "AP"
        view = frontal if double.index(index) % 2 else "LATERAL"
        images.append((first, replace(next(files), view=view, view_known=known)))
    return images


def _files(spec: CohortSpec) -> Iterator[ImagePlan]:
    """Endless images whose file traits each take their values in turn, in an order of their own."""
    rng = stream(spec.seed, "files")
    encodings, bits, photometrics, vois = (
        _turns(spec.encodings, rng),
        _turns(spec.bits_stored, rng),
        _turns(spec.photometrics, rng),
        _turns(spec.vois, rng),
    )
    rescales = _turns((False, True) if spec.rescale else (False,), rng)
    while True:
        yield ImagePlan("PA", "position", next(encodings), next(bits), next(photometrics), next(vois), next(rescales))


def _turns(values: Sequence[_T], rng: np.random.Generator) -> Iterator[_T]:
    """All values in random order, again and again."""
    while True:
        yield from (values[int(i)] for i in rng.permutation(len(values)))


def _with_duplicates(spec: CohortSpec, plans: list[StudyPlan]) -> tuple[StudyPlan, ...]:
    """Let some studies show another study of their class again, as an exact copy or as a near one."""
    rng = stream(spec.seed, "duplicates")
    patients = [plan.patient for plan in plans]
    singles = [plan.index for plan in plans if len(plan.images) == 1 and patients.count(plan.patient) == 1]
    exact = _some(singles, spec.exact_duplicates, rng)
    rest = [index for index in singles if index not in exact]
    near = _some(rest, spec.near_duplicates, rng)
    copies = {**dict.fromkeys(exact, "exact"), **dict.fromkeys(near, "near")}
    done = list(plans)
    for index, kind in copies.items():
        plan = plans[index]
        same_class = [other for other in plans if other.class_name == plan.class_name and other.index not in copies]
        if same_class:
            done[index] = _duplicate(plan, same_class[int(rng.integers(len(same_class)))], kind)
    return tuple(done)


def _duplicate(plan: StudyPlan, original: StudyPlan, kind: str) -> StudyPlan:
    """The plan of a study that shows the first image of `original` again."""
    first = original.images[0] if kind == "exact" else replace(plan.images[0], view=original.images[0].view)
    return replace(
        original,
        index=plan.index,
        patient=original.patient if kind == "exact" else plan.patient,
        images=(first,),
        duplicate_kind=kind,
        duplicate_of=original,
    )
