"""The SIIM-FISABIO-RSNA COVID-19 competition: CSVs of studies and of boxes and a tree of DICOM files -> samples.

Knows nothing of classes, views or splits, and opens no image. Nothing of the dataset comes with this project.
"""

import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd

from cxr.data.samples import list_first, require_utf8
from cxr.errors import ConfigError, DataError

log = logging.getLogger(__name__)

Boxes = tuple[tuple[float, float, float, float], ...]

FINDINGS = ("Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance")
_CSV = "train_study_level.csv"
_SUFFIX = "_study"
_BOXES_CSV = "train_image_level.csv"
_IMAGE_SUFFIX = "_image"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_OPACITY = re.compile(rf"opacity {_NUMBER} ({_NUMBER}) ({_NUMBER}) ({_NUMBER}) ({_NUMBER})")
_NO_OPACITY = "none 1 0 0 1 1"
_REMEDY = (
    "accept the rules of the competition siim-covid19-detection at kaggle.com, download it with "
    "`python scripts/download_data.py`, and point data.root at the folder; or run the same recipe on phantoms, without "
    "any download: `python train.py experiment=template data=phantom net=custom_cnn`"
)


def make_siim_samples(root: str | Path, *, on_missing: Literal["error", "skip"] = "error") -> pd.DataFrame:
    """List the images of `train/<study>/<series>/<image>.dcm` with the finding of their study.

    Args:
        root: Folder with `train_study_level.csv` (`id` ending in `_study` and one 0/1 column for each of the four
            findings), the folder `train` and, where boxes are wanted, `train_image_level.csv` (`id` ending in `_image`,
            and `label`).
        on_missing: What to do about studies without DICOM files, folders that the CSV does not name, and rows with no
            or several findings: 'error' lists them, 'skip' leaves them out and counts them.

    Returns:
        One row per image with `sample_id` (study/series/image), `image_path`, `finding` and `study_id`; with a CSV of
        boxes also `boxes`: of each opacity (x, y, width, height) in pixels of the file, an empty tuple where there is
        none, and None for images that the CSV does not name. `attrs["report"]` holds the counts of what was left out.

    Raises:
        DataError: A CSV or the tree is absent or unreadable, or (with 'error') studies and files do not agree.
    """
    if on_missing not in ("error", "skip"):
        raise ConfigError(f"expected on_missing to be 'error' or 'skip', but got {on_missing!r}")
    root = Path(root).absolute()
    studies = _read_studies(root / _CSV)
    images = _list_images(root / "train")
    problems = {name: found for name, found in _find_problems(studies, images) if found}
    if problems and on_missing == "error":
        raise DataError(
            f"expected {root / _CSV} and the folder train to agree, but found {_list(problems)}; "
            "complete the download, or leave these out with data.on_missing=skip"
        )
    if problems:
        log.warning("SIIM studies left out: %s", {name: len(found) for name, found in problems.items()})
        log.debug("SIIM studies left out: %s", _list(problems))
    sound = studies[(studies["labels"] == 1) & ~studies["study_id"].duplicated(keep=False)]
    samples = images.merge(sound[["study_id", "finding"]], on="study_id")
    if (root / _BOXES_CSV).is_file():
        samples["boxes"] = (
            samples["sample_id"].str.rpartition("/")[2].map(_read_boxes(root / _BOXES_CSV)).astype(object)
        )
        samples["boxes"] = samples["boxes"].where(samples["boxes"].notna(), None)
    samples.attrs["report"] = {name: len(found) for name, found in problems.items()}
    return samples


def _read_studies(path: Path) -> pd.DataFrame:
    """Read the CSV into `id`, `study_id` (missing where the id names no study), `finding` and `labels` (how many)."""
    if not path.is_file():
        raise DataError(f"expected the SIIM dataset with {path}, but there is no such file; {_REMEDY}")
    try:
        table = pd.read_csv(path, dtype={"id": str})
    except (ValueError, OSError) as error:
        raise DataError(
            f"expected a table of studies in {path}, but it cannot be read: {error}; download it again"
        ) from error
    absent = [column for column in ("id", *FINDINGS) if column not in table]
    if absent:
        raise DataError(
            f"expected the columns id, {', '.join(FINDINGS)} in {path}, but {list_first(absent)} is missing; "
            "download it again"
        )
    marks = table[list(FINDINGS)].apply(pd.to_numeric, errors="coerce").fillna(0) != 0
    ids = table["id"].fillna("")
    return pd.DataFrame(
        {
            "id": ids,
            "study_id": ids.str.removesuffix(_SUFFIX).where(ids.str.endswith(_SUFFIX)),
            "finding": marks.idxmax(axis=1),
            "labels": marks.sum(axis=1),
        }
    )


def _read_boxes(path: Path) -> dict[str, Boxes]:
    """Name of each image of the CSV -> its boxes."""
    try:
        table = pd.read_csv(path, dtype=str, usecols=["id", "label"], keep_default_na=False)
    except (ValueError, OSError) as error:
        raise DataError(
            f"expected a table of boxes with the columns id and label in {path}, but it cannot be read: {error}; "
            "download it again, or remove it to do without boxes"
        ) from error
    boxes = {name.removesuffix(_IMAGE_SUFFIX): _parse_boxes(label) for name, label in table.itertuples(index=False)}
    wrong = [name for name, found in boxes.items() if found is None]
    if wrong:
        raise DataError(
            f"expected labels such as '{_NO_OPACITY}' or 'opacity 1 x1 y1 x2 y2' in {path}, but {len(wrong)} images "
            f"have others: {list_first(wrong)}; download it again, or remove it to do without boxes"
        )
    return {name: found for name, found in boxes.items() if found is not None}


def _parse_boxes(label: str) -> Boxes | None:
    """The boxes of a label, which gives their corners; None for a label of another form."""
    if label.strip() == _NO_OPACITY:
        return ()
    corners = [tuple(map(float, found)) for found in _OPACITY.findall(label)]
    sound = all(math.isfinite(sum(box)) and box[0] < box[2] and box[1] < box[3] for box in corners)
    if not corners or not sound or _OPACITY.sub("", label).strip():
        return None
    return tuple((left, top, right - left, bottom - top) for left, top, right, bottom in corners)


def _list_images(train: Path) -> pd.DataFrame:
    """List the DICOM files as `sample_id`, `image_path` and `study_id`, in the order of their paths."""
    paths = [path.relative_to(train) for path in train.glob("[!.]*/[!.]*/[!.]*") if path.suffix.lower() == ".dcm"]
    if not paths:
        raise DataError(f"expected DICOM files as {train}/<study>/<series>/<image>.dcm, but found none; {_REMEDY}")
    require_utf8(train / path for path in paths)
    paths.sort()
    return pd.DataFrame(
        {
            "sample_id": [path.with_suffix("").as_posix() for path in paths],
            "image_path": [str(train / path) for path in paths],
            "study_id": [path.parts[0] for path in paths],
        }
    )


def _find_problems(studies: pd.DataFrame, images: pd.DataFrame) -> Iterator[tuple[str, list[str]]]:
    listed = studies["study_id"].dropna()
    yield "ids that do not end in _study", studies.loc[studies["study_id"].isna(), "id"].tolist()
    yield "studies listed more than once", listed[listed.duplicated()].unique().tolist()
    yield "rows without a finding", studies.loc[studies["labels"] == 0, "id"].tolist()
    yield "rows with several findings", studies.loc[studies["labels"] > 1, "id"].tolist()
    yield "studies without DICOM files", sorted(set(listed) - set(images["study_id"]))
    yield "study folders not in the CSV", sorted(set(images["study_id"]) - set(listed))


def _list(problems: dict[str, list[str]]) -> str:
    return "; ".join(f"{len(found)} {name} ({list_first(found)})" for name, found in problems.items())
