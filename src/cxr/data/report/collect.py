"""A dataset -> the report as plain JSON types, and small pictures for its page. Knows nothing of HTML."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cxr.data.cohort import Cohort
from cxr.data.file_index import FileIndex
from cxr.data.image_store import ImageStore
from cxr.data.labelled import LabelledSamples
from cxr.data.report.files import WatchedImages, add_identity, describe_files, is_used, judge_fates
from cxr.data.report.findings import find_all
from cxr.data.report.pixels import look_at_pixels, make_thumbnail
from cxr.data.samples import PARTS
from cxr.data.views import find_views
from cxr.errors import CxrError
from cxr.imaging.dicom_header import name_uid

Report = dict[str, Any]
Thumbnails = dict[str, list[str]]

THUMBNAILS_PER_CLASS = 12
MOST_VALUES = 12
YEARS_PER_BIN, OLDEST = 5, 100
NOT_STATED = "not stated"
OTHERS = "all others"
ATTRIBUTES = {
    "file_type": "File type",
    "source": "Source",
    "sex": "Sex",
    "view": "View, from the header",
    "modality": "Modality",
    "body_part": "Body part",
    "manufacturer": "Manufacturer",
    "photometric_interpretation": "Photometric interpretation",
    "transfer_syntax": "Transfer syntax",
    "bits_stored": "Bits stored",
    "size": "Rows x columns",
}
EXPECTED_TAGS = {
    "patient_id": "PatientID",
    "study_id": "StudyInstanceUID",
    "series_id": "SeriesInstanceUID",
    "sop_instance_uid": "SOPInstanceUID",
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "view_position": "ViewPosition",
    "sex": "PatientSex",
    "age": "PatientAge or birth and study date",
    "acquired": "AcquisitionDate, ContentDate or StudyDate",
    "manufacturer": "Manufacturer",
    "photometric_interpretation": "PhotometricInterpretation",
    "bits_stored": "BitsStored",
    "rows": "Rows",
    "columns": "Columns",
    "transfer_syntax": "TransferSyntaxUID",
}


@dataclass(frozen=True)
class Inputs:
    """What a report is made of.

    Attributes:
        dataset: The labelled samples; the report is on all of them.
        images: Store of their images.
        index: Knows hash and header of each file.
        view_filter: The filter that the cohort applies, see `filter_views`.
        make_cohort: Makes the cohort of a training run with the given store.
    """

    dataset: LabelledSamples
    images: ImageStore
    index: FileIndex
    view_filter: str
    make_cohort: Callable[[ImageStore], Cohort]


def collect(inputs: Inputs) -> tuple[Report, Thumbnails]:
    """Look at every file of a dataset; data that cannot be trained on are reported all the same.

    Returns:
        The report, and class name -> a few images as ``data:`` addresses. The report holds paths, and is for the owner
        of the files.

    Raises:
        CxrError: The image cache or the file index cannot be used.
    """
    files = add_identity(describe_files(inputs.dataset, inputs.index))
    watched = WatchedImages(inputs.images)
    cohort, problem = _try_cohort(inputs, watched)
    if not watched.tried:
        readable = files[files["error"].isna()]
        watched.build(readable["image_path"].tolist(), readable["content_hash"].tolist())
    files["fate"] = judge_fates(files, cohort, watched.errors, inputs.view_filter)
    files["error"] = files["error"].where(files["error"].notna(), files["image_path"].map(watched.errors))
    names = inputs.dataset.class_names
    files["class"] = [names[label] for label in files["label"]]
    views = find_views(files)
    files["view"] = views.mask(views == "unknown", None)
    files["size"] = _name_sizes(files)
    files["transfer_syntax"] = files["transfer_syntax"].map(name_uid, na_action="ignore")
    shown = files[files["image_path"].isin(watched.tried) & files["error"].isna()]
    levels, thumbnails = _look(files, shown, watched, names)
    return _make_report(files, names, cohort, problem, levels), thumbnails


def _try_cohort(inputs: Inputs, watched: WatchedImages) -> tuple[Cohort | None, str | None]:
    try:
        return inputs.make_cohort(watched), None
    except CxrError as error:
        return None, str(error)


def _name_sizes(files: pd.DataFrame) -> pd.Series:
    known = files["rows"].notna() & files["columns"].notna()
    return (files["rows"].astype("str") + " x " + files["columns"].astype("str")).where(known, None)


def _look(
    files: pd.DataFrame, shown: pd.DataFrame, images: ImageStore, names: Sequence[str]
) -> tuple[list[list[int]], Thumbnails]:
    """Grey levels of each class and some of its images; what is seen of each image goes into `files`."""
    for column in ("low_contrast", "inverted", "text"):
        files[column] = False
    stored = images.open(shown["image_path"].tolist(), shown["content_hash"].tolist())
    labels = shown["label"].to_numpy()
    look = look_at_pixels(stored, labels, len(names))
    for column in ("low_contrast", "inverted", "text"):
        files.loc[shown.index, column] = getattr(look, column)
    thumbnails = {name: _choose_thumbnails(stored, np.flatnonzero(labels == label)) for label, name in enumerate(names)}
    files["input_rows"], files["input_columns"] = stored[np.arange(1)].shape[1:] if len(shown) else (0, 0)
    return look.levels.tolist(), thumbnails


def _choose_thumbnails(stored: Any, rows: Any) -> list[str]:
    """Images spread evenly over the rows."""
    spread = np.unique(np.linspace(0, len(rows) - 1, min(THUMBNAILS_PER_CLASS, len(rows))).round().astype(int))
    return [make_thumbnail(image) for image in stored[rows[spread]]] if len(rows) else []


def _make_report(
    files: pd.DataFrame, names: list[str], cohort: Cohort | None, problem: str | None, levels: list[list[int]]
) -> Report:
    dicom = files[(files["file_type"] == "DICOM") & (files["fate"] != "cannot be read")]
    stated = {column: title for column, title in ATTRIBUTES.items() if column in files and files[column].notna().any()}
    return {
        "classes": names,
        "files": len(files),
        "dicom_files": len(dicom),
        "split_problem": problem,
        "images": _count_classes(files, names),
        "patients": _count_ids(files, "patient_id"),
        "studies": _count_ids(files, "study_id"),
        "cohort": None if cohort is None else cohort.report,
        "attributes": [
            {"key": key, "title": title, "values": _count_values(files, key, names)} for key, title in stated.items()
        ],
        "ages": _count_ages(files, names),
        "grey_levels": dict(zip(names, levels, strict=True)),
        "missing_tags": _count_missing(dicom),
        "identity_removed_declared": int(dicom["declared_removed"].notna().sum()),
        "findings": find_all(files),
    }


def _count_classes(files: pd.DataFrame, names: list[str]) -> dict[str, dict[str, int]]:
    """Part or reason -> class -> number of files: together every file of the dataset once."""
    fates = [*PARTS, *sorted(set(files["fate"]) - set(PARTS))]
    table = pd.crosstab(files["fate"], files["class"]).reindex(index=fates, columns=names, fill_value=0)
    return {fate: table.loc[fate].to_dict() for fate in fates}


def _count_ids(files: pd.DataFrame, column: str) -> dict[str, int]:
    """Part -> number of different ids, and under 'files without' how many files have none."""
    used = files[is_used(files["fate"])]
    counts = {part: int(used.loc[used["fate"] == part, column].nunique()) for part in PARTS}
    return counts | {"all files": int(files[column].nunique()), "files without": int(files[column].isna().sum())}


def _count_values(files: pd.DataFrame, column: str, names: list[str]) -> list[dict[str, Any]]:
    """Each value with its files of each class, the commonest first, the rarest together."""
    values = files[column].astype(object).where(files[column].notna(), NOT_STATED).astype("str")
    common = values.value_counts().index[: MOST_VALUES if values.nunique() > MOST_VALUES + 1 else None]
    values = values.where(values.isin(common), OTHERS)
    table = pd.crosstab(values, files["class"]).reindex(columns=names, fill_value=0)
    order = [value for value in (*common, OTHERS) if value in table.index]
    return [{"value": value, "classes": table.loc[value].to_dict()} for value in order]


def _count_ages(files: pd.DataFrame, names: list[str]) -> Report | None:
    """Files per class in steps of years, the oldest together; None where no age is known."""
    if "age" not in files or files["age"].isna().all():
        return None
    ages = pd.to_numeric(files["age"], errors="coerce")
    edges = np.arange(0, OLDEST + YEARS_PER_BIN, YEARS_PER_BIN)
    return {
        "years_per_bin": YEARS_PER_BIN,
        "counts": {
            name: np.histogram(ages[files["class"] == name].dropna().clip(0, OLDEST - 1), edges)[0].tolist()
            for name in names
        },
        "median": {name: _median(ages[files["class"] == name]) for name in names},
        "files_without": int(ages.isna().sum()),
    }


def _median(values: pd.Series) -> float | None:
    return None if values.isna().all() else round(float(values.median()), 1)


def _count_missing(dicom: pd.DataFrame) -> list[dict[str, Any]]:
    """Expected elements that some DICOM files lack, and which files."""
    found = ((tag, dicom.loc[dicom[column].isna(), "image_path"]) for column, tag in EXPECTED_TAGS.items())
    return [{"tag": tag, "count": len(paths), "files": sorted(paths)} for tag, paths in found if len(paths)]
