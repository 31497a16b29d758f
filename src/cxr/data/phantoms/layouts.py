"""The two layouts of a phantom cohort: files and tables in an empty folder. Knows nothing of what lay there before."""

import pandas as pd

from cxr.data.phantoms.findings import CLASS_NAMES
from cxr.data.phantoms.job import Job, Row
from cxr.data.phantoms.radiograph import Box
from cxr.data.phantoms.worker import write_studies

TRUTH = "phantom_truth.csv"


def write_layout(job: Job, workers: int | None) -> None:
    """Draw a cohort and write all files of its layout.

    Args:
        job: What and where.
        workers: Processes, as in `worker.write_studies`.
    """
    rows = write_studies(job, workers)
    truth = pd.DataFrame([{name: value for name, value in row.items() if name != "box_list"} for row in rows])
    truth.to_csv(job.root / TRUTH, index=False, lineterminator="\n")
    if job.layout == "siim":
        _study_levels(truth).to_csv(job.root / "train_study_level.csv", index=False, lineterminator="\n")
        images = pd.DataFrame([_image_level(row) for row in rows]).sort_values("id")
        images.to_csv(job.root / "train_image_level.csv", index=False, lineterminator="\n")


def _study_levels(truth: pd.DataFrame) -> pd.DataFrame:
    """The official table of study classes."""
    studies = truth.drop_duplicates("study_id").sort_values("study_id")
    levels = pd.DataFrame({"id": studies["study_id"] + "_study"})
    for name in CLASS_NAMES:
        levels[name] = (studies["class_name"] == name).astype(int)
    return levels


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
