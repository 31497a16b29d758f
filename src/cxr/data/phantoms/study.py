"""One planned study to rendered images, identifiers and their truth. Knows nothing of file formats or folders."""

import datetime
from dataclasses import dataclass, replace

from cxr.data.phantoms.anatomy import draw_person
from cxr.data.phantoms.chance import make_uid, stream
from cxr.data.phantoms.cohort import StudyPlan
from cxr.data.phantoms.findings import draw_findings
from cxr.data.phantoms.radiograph import SOURCES, Exam, Radiograph, draw_exam
from cxr.data.phantoms.spec import CohortSpec

_EQUIPMENT = {  # (modality, manufacturer): names that real files have, so that readers meet them
    SOURCES[0]: [("CR", "FUJIFILM Corporation"), ("DX", "Canon Inc."), ("CR", "Agfa")],
    SOURCES[1]: [("DX", "Philips Medical Systems"), ("DX", "SIEMENS"), ("CR", "Carestream Health")],
}
_FIRST_DAY = datetime.date(2020, 3, 1)


@dataclass(frozen=True)
class Identity:
    """Who and when: the identifiers of a study.

    Attributes:
        uids: For each image the study, series and SOP instance UID.
        times: For each image HHMMSS, in the order of acquisition.
    """

    patient_id: str
    patient_number: int
    uids: tuple[tuple[str, str, str], ...]
    date: str
    times: tuple[str, ...]
    equipment: tuple[str, str]


def identify(plan: StudyPlan, spec: CohortSpec) -> Identity:
    """The identifiers of a planned study as if it were an original."""
    rng = stream(spec.seed, "identity", plan.index)
    start = datetime.datetime(2020, 1, 1, 7) + datetime.timedelta(seconds=int(rng.integers(12 * 3600)))
    study = make_uid(spec.seed, "study", plan.index)
    uids = [
        (study, make_uid(spec.seed, "series", plan.index, k), make_uid(spec.seed, "image", plan.index, k))
        for k in range(len(plan.images))
    ]
    machines = _EQUIPMENT[plan.source]
    return Identity(
        patient_id=f"PHANTOM-{stream(spec.seed, 'patient', plan.patient).integers(16**10):010X}",
        patient_number=plan.patient,
        uids=tuple(uids),
        date=f"{_FIRST_DAY + datetime.timedelta(days=plan.index // 3):%Y%m%d}",
        times=tuple(f"{start + datetime.timedelta(minutes=4 * k):%H%M%S}" for k in range(len(plan.images))),
        equipment=machines[int(rng.integers(len(machines)))],
    )


def exams(plan: StudyPlan, spec: CohortSpec) -> tuple[Exam, ...]:
    """The exposures of a study; those of a duplicate are its original's, a near one developed anew."""
    shown = plan if plan.duplicate_of is None else plan.duplicate_of
    person = draw_person(stream(spec.seed, "person", shown.patient))
    findings = draw_findings(shown.class_name, shown.visibility, stream(spec.seed, "findings", shown.index))
    drawn = [
        draw_exam(person, image.view, shown.source, spec.size, findings, stream(spec.seed, "exam", shown.index, k))
        for k, image in enumerate(shown.images[: len(plan.images)])
    ]
    return tuple(_redeveloped(exam) for exam in drawn) if plan.duplicate_kind == "near" else tuple(drawn)


def _redeveloped(exam: Exam) -> Exam:
    """The same exposure with another film curve and less edge enhancement."""
    film = exam.exposure
    return replace(
        exam,
        exposure=replace(film, centre=film.centre + 0.06, latitude=1.06 * film.latitude, detail=0.85 * film.detail),
    )


def truth_row(plan: StudyPlan, spec: CohortSpec, number: int, exam: Exam, image: Radiograph) -> dict[str, object]:
    """What was drawn in image `number` of a study: the columns of `phantom_truth.csv` without ids and path."""
    findings = () if exam.pose.view == "LATERAL" else exam.findings
    original = "" if plan.duplicate_of is None else make_uid(spec.seed, "study", plan.duplicate_of.index)
    return {
        "class_name": plan.class_name,
        "view": exam.pose.view,
        "image_number": number + 1,
        "sex": exam.person.sex,
        "age": exam.person.age,
        "source": plan.source,
        "gives_class_away": spec.confounded_source,
        "findings": ";".join(finding.kind for finding in findings),
        "visibility": ";".join(f"{finding.visibility:.4f}" for finding in findings),
        "d_prime": round(image.d_prime, 4),
        "boxes": len(image.boxes),
        "duplicate_kind": plan.duplicate_kind,
        "duplicate_of": original,
    }
