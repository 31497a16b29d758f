"""The two layouts of a phantom cohort: files and tables in an empty folder. Knows nothing of what lay there before."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from cxr.data.phantoms.cohort import StudyPlan, plan_cohort
from cxr.data.phantoms.findings import CLASS_NAMES
from cxr.data.phantoms.radiograph import Box, render
from cxr.data.phantoms.spec import CohortSpec
from cxr.data.phantoms.study import exams, identify, truth_row

TRUTH = "phantom_truth.csv"
_STUDIES_PER_WORKER = 12  # fewer are drawn sooner than a process starts

Row = dict[str, Any]
Task = Callable[[StudyPlan], list[Row]]


def draw_siim(spec: CohortSpec, root: Path, workers: int | None) -> None:
    """Draw and write all files of the SIIM layout into `root`."""
    plans = plan_cohort(spec)
    rows = _draw_all(partial(_write_siim_study, spec=spec, root=root), plans, workers)
    truth = _truth_table(rows)
    truth.to_csv(root / TRUTH, index=False, lineterminator="\n")
    studies = truth.drop_duplicates("study_id").sort_values("study_id")
    levels = pd.DataFrame({"id": studies["study_id"] + "_study"})
    for name in CLASS_NAMES:
        levels[name] = (studies["class_name"] == name).astype(int)
    levels.to_csv(root / "train_study_level.csv", index=False, lineterminator="\n")
    images = pd.DataFrame([_image_level(row) for row in rows]).sort_values("id")
    images.to_csv(root / "train_image_level.csv", index=False, lineterminator="\n")


def _image_level(row: Row) -> dict[str, str]:
    """A row of the official table of boxes."""
    boxes: list[Box] = [tuple(round(value, 2) for value in box) for box in row["box_list"]]
    dicts = [{"x": x, "y": y, "width": width, "height": height} for x, y, width, height in boxes]
    label = " ".join(f"opacity 1 {x} {y} {round(x + width, 2)} {round(y + height, 2)}" for x, y, width, height in boxes)
    return {
        "id": f"{row['image_id']}_image",
        "boxes": str(dicts) if boxes else "",
        "label": label if boxes else "none 1 0 0 1 1",
        "StudyInstanceUID": row["study_id"],
    }


def draw_folders(spec: CohortSpec, root: Path, test_fraction: float, workers: int | None) -> None:
    """Draw and write all files of the image-folder layout into `root`."""
    plans = plan_cohort(spec)
    patients = sorted({plan.patient for plan in plans})
    tested = set(patients[: round(test_fraction * len(patients))])
    parts = {patient: "test" if patient in tested else "train" for patient in patients} if test_fraction > 0 else {}
    rows = _draw_all(partial(_write_folder_study, spec=spec, root=root, parts=parts), plans, workers)
    _truth_table(rows).to_csv(root / TRUTH, index=False, lineterminator="\n")


def _truth_table(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame([{name: value for name, value in row.items() if name != "box_list"} for row in rows])


def _draw_all(task: Task, plans: Sequence[StudyPlan], workers: int | None) -> list[Row]:
    """Run the task on every study; the order of the rows is that of the studies."""
    available = os.cpu_count() if workers is None else workers
    processes = min(1 if available is None else available, max(1, len(plans) // _STUDIES_PER_WORKER))
    if processes <= 1:
        return [row for rows in _shown(map(task, plans), len(plans)) for row in rows]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return [row for rows in _shown(pool.map(task, plans, chunksize=4), len(plans)) for row in rows]


def _shown(results: Iterator[list[Row]], total: int) -> Iterator[list[Row]]:
    """The same results under a progress bar that goes away at the end."""
    console = Console(stderr=True)
    yield from track(results, "Drawing phantoms", total, console=console, transient=True, disable=total < 50)


def _write_siim_study(plan: StudyPlan, spec: CohortSpec, root: Path) -> list[Row]:
    """Draw and write the images of one study."""
    from cxr.data.phantoms.dicom_writer import ImageHeader, encode_dicom

    own = identify(plan, spec)
    shown = own if plan.duplicate_kind != "exact" or plan.duplicate_of is None else identify(plan.duplicate_of, spec)
    rows = []
    for number, exam in enumerate(exams(plan, spec)):
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
        (root / path).parent.mkdir(parents=True)
        (root / path).write_bytes(encode_dicom(image, plan.images[number], header))
        ids = {"image_id": instance, "study_id": study, "patient_id": shown.patient_id, "path": path.as_posix()}
        rows.append({**ids, **truth_row(plan, spec, number, exam, image), "box_list": image.boxes})
    return rows


def _write_folder_study(plan: StudyPlan, spec: CohortSpec, root: Path, parts: dict[int, str]) -> list[Row]:
    """Draw and write the first image of one study."""
    own = identify(plan, spec)
    exam = exams(plan, spec)[0]
    image = render(exam)
    name = f"patient{plan.patient:05d}_study{plan.index:05d}"
    path = Path(parts.get(plan.patient, ""), plan.class_name, f"{name}.png")
    encoded = cv2.imencode(".png", np.rint(image.display * 255).astype(np.uint8))[1]
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(encoded.tobytes())
    ids = {"image_id": name, "study_id": own.uids[0][0], "patient_id": own.patient_id, "path": path.as_posix()}
    return [{**ids, **truth_row(plan, spec, 0, exam, image), "box_list": image.boxes}]
