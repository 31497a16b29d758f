"""The files of one study, and what a process must know to write any of them. Knows nothing of tables."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cxr.data.phantoms.chance import stream
from cxr.data.phantoms.cohort import StudyPlan, plan_cohort
from cxr.data.phantoms.radiograph import render
from cxr.data.phantoms.spec import CohortSpec
from cxr.data.phantoms.study import exams, identify, truth_row

LAYOUTS = ("siim", "folder")

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A cohort to be written in one layout.

    Attributes:
        spec: The cohort.
        root: Empty folder that takes the files.
        layout: One of LAYOUTS.
        test_fraction: Folder layout: share of the patients whose images go to `test/`, the others to `train/`; at 0
            there are no such parts.
    """

    spec: CohortSpec
    root: Path
    layout: str
    test_fraction: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "spec": self.spec.to_dict(),
            "root": str(self.root),
            "layout": self.layout,
            "test_fraction": self.test_fraction,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Job":
        """The inverse of `to_dict`."""
        spec, root = CohortSpec.from_dict(values["spec"]), Path(values["root"])
        return cls(spec, root, values["layout"], values["test_fraction"])


def write_study(plan: StudyPlan, job: Job) -> list[Row]:
    """Draw and write the images of one study.

    Returns:
        For each image a row of `phantom_truth.csv` and the `box_list` of its boxes, all plain values.
    """
    return _write_siim_study(plan, job) if job.layout == "siim" else _write_folder_study(plan, job)


def _write_siim_study(plan: StudyPlan, job: Job) -> list[Row]:
    """All images as `train/<study>/<series>/<image>.dcm`."""
    from cxr.data.phantoms.dicom_writer import ImageHeader, encode_dicom

    own = identify(plan, job.spec)
    copied = plan.duplicate_of if plan.duplicate_kind == "exact" else None
    shown = own if copied is None else identify(copied, job.spec)
    rows = []
    for number, exam in enumerate(exams(plan, job.spec)):
        image = render(exam)
        study, series, instance = own.uids[number]
        path = Path("train", study, series, f"{instance}.dcm")
        header = ImageHeader(
            uids=shown.uids[number],
            patient_id=shown.patient_id,
            patient_number=shown.patient_number,
            sex=exam.person.sex,
            age=exam.person.age,
            modality=shown.equipment[0],
            manufacturer=shown.equipment[1],
            institution=f"Synthetic {plan.source}",
            date=shown.date,
            time=shown.times[number],
            series_number=number + 1,
            pixel_mm=10 * exam.frame.field_cm / exam.frame.size,
        )
        (job.root / path).parent.mkdir(parents=True)
        (job.root / path).write_bytes(encode_dicom(image, plan.images[number], header))
        ids = {"image_id": instance, "study_id": study, "patient_id": shown.patient_id, "path": path.as_posix()}
        rows.append({**ids, **truth_row(plan, job.spec, number, exam, image), "box_list": image.boxes})
    return rows


def _write_folder_study(plan: StudyPlan, job: Job) -> list[Row]:
    """The first image as `<class name>/<patient and study>.png`."""
    own = identify(plan, job.spec)
    exam = exams(plan, job.spec)[0]
    image = render(exam)
    name = f"patient{plan.patient:05d}_study{plan.index:05d}"
    path = Path(_part(plan.patient, job), plan.class_name, f"{name}.png")
    encoded = cv2.imencode(".png", np.rint(image.display * 255).astype(np.uint8))[1]
    (job.root / path).parent.mkdir(parents=True, exist_ok=True)
    (job.root / path).write_bytes(encoded.tobytes())
    ids = {"image_id": name, "study_id": own.uids[0][0], "patient_id": own.patient_id, "path": path.as_posix()}
    return [{**ids, **truth_row(plan, job.spec, 0, exam, image), "box_list": image.boxes}]


def _part(patient: int, job: Job) -> str:
    """The folder of a patient's part; empty if there are no parts."""
    if job.test_fraction == 0:
        return ""
    return "test" if patient in _test_patients(job.spec, job.test_fraction) else "train"


@lru_cache(maxsize=1)
def _test_patients(spec: CohortSpec, fraction: float) -> frozenset[int]:
    """That share of the patients, at random."""
    patients = sorted({plan.patient for plan in plan_cohort(spec)})
    order = stream(spec.seed, "parts").permutation(patients)
    return frozenset(order[: round(fraction * len(patients))].tolist())
