"""From a dataset's reader to the samples that a run uses, each with label, content hash, group and part, and a report.

Knows nothing of training, of runs or of where stored images lie. Report, warnings and log hold counts only, never an id
or a path, so that they may go wherever a run goes; errors name files.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.data.cache import ImageStore
from cxr.data.file_index import FileIndex
from cxr.data.samples import PARTS, list_first, make_samples, require_every_class
from cxr.data.sampling import balance, take_limit
from cxr.data.splits import make_groups, make_split, read_split, require_no_leak, warn_if_few
from cxr.data.views import filter_views
from cxr.errors import ConfigError, DataError

log = logging.getLogger(__name__)

Report = dict[str, Any]
_ALWAYS = ("content_hash", "patient_id", "study_id")


@dataclass(frozen=True)
class LabelledSamples:
    """A dataset as it was read, no file looked into.

    Attributes:
        samples: The table of the gate.
        class_names: Names of the labels.
        report: What the reader found, as counts under plain JSON types.
    """

    samples: pd.DataFrame
    class_names: list[str]
    report: Report


@dataclass(frozen=True)
class Cohort:
    """The samples of a run.

    Attributes:
        samples: The table of the gate with `content_hash`, `group`, `split` and what DICOM headers add; the columns
            `patient_id` and `study_id` are always there, maybe without values.
        class_names: Names of the labels.
        report: What was kept, dropped and found, as counts under plain JSON types.
    """

    samples: pd.DataFrame
    class_names: list[str]
    report: Report


def read_dataset(reader: Callable[[], pd.DataFrame], classes: Mapping[str, str | None] | None) -> LabelledSamples:
    """Read the table of a dataset and give every row its label.

    Args:
        reader: Makes the raw table of a dataset.
        classes: finding -> class name, see `make_samples`.

    Raises:
        DataError: The dataset is not there, or its table is not sound.
    """
    raw = reader()
    samples, class_names = make_samples(raw, classes)
    findings = raw["finding"].astype("str").str.strip().value_counts().sort_index()
    report = {
        "classes": class_names,
        "reader": dict(raw.attrs.get("report", {})),
        "findings": {str(finding): int(count) for finding, count in findings.items()},
        "findings_left_out": len(raw) - len(samples),
    }
    return LabelledSamples(samples, class_names, report)


def make_cohort(
    dataset: LabelledSamples,
    *,
    view_filter: str,
    limit: int | None,
    balance_all: bool,
    fractions: Sequence[float],
    split_file: Path | None,
    seed: int,
    images: ImageStore,
    index: FileIndex,
    on_bad_file: str,
    salt: str | None,
) -> Cohort:
    """Check, filter, decode and split a dataset.

    Args:
        dataset: What `read_dataset` read.
        view_filter: See `filter_views`.
        limit: Use so many samples, see `take_limit`; None for all.
        balance_all: Reference behaviour for old numbers: equal classes before the split, so in validation and test too.
        fractions: Shares of (train, val, test), see `make_split`.
        split_file: Takes samples and parts from this file; `limit`, `balance_all` and `fractions` then play no part.
        seed: The one seed.
        images: Makes the images ready and tells which files give none.
        index: Knows hash and header of each file.
        on_bad_file: 'error' lists the files that give no image, 'skip' leaves them out and counts them.
        salt: With which the ids in `split_file` may be hashed.

    Returns:
        The cohort, sorted by `sample_id`, with every class in every part.

    Raises:
        CxrError: The data or the settings cannot be used.
    """
    if on_bad_file not in ("error", "skip"):
        raise ConfigError(f"expected data.on_bad_file to be 'error' or 'skip', but got {on_bad_file!r}")
    report = dataset.report | {"limit": limit, "balance_all": balance_all, "from_split_file": split_file is not None}
    class_names = dataset.class_names
    samples = _describe_files(dataset.samples.copy(), index, on_bad_file, report)
    samples, report["views"] = filter_views(samples, view_filter)
    require_every_class(samples, class_names, f"the images that data.view_filter={view_filter} keeps")
    if split_file is None:
        samples = _decode(_choose(samples, limit, balance_all, seed), images, on_bad_file, report)
        samples = _split(samples, fractions, seed, report)
    else:
        samples = samples.assign(split=read_split(samples, split_file, salt=salt)).dropna(subset="split")
        samples = _decode(samples, images, on_bad_file, report)
    samples = samples.reset_index(drop=True)
    _check_parts(samples, class_names)
    report |= _count(samples, class_names)
    warn_if_few(report["patients"]["test"])
    return Cohort(samples, class_names, report)


def _describe_files(samples: pd.DataFrame, index: FileIndex, on_bad_file: str, report: Report) -> pd.DataFrame:
    """Add hash, header and group; what the reader knows goes before what the header says."""
    described = index.describe(samples["image_path"].tolist()).set_index(samples.index)
    report["unreadable_files"] = _report_bad_files(samples, described["error"], on_bad_file, "cannot be read")
    for column in described.columns.drop(["image_path", "error"]):
        if column in samples:
            samples[column] = samples[column].where(samples[column].notna(), described[column])
        elif column in _ALWAYS or described[column].notna().any():
            samples[column] = described[column]
    samples = samples[described["error"].isna()].reset_index(drop=True)
    samples["group"] = make_groups(samples)
    report["missing_patient_ids"] = int(samples["patient_id"].isna().sum())
    if report["missing_patient_ids"]:
        log.warning(
            "%d of %d files have no patient id: each counts as a patient of its own",
            report["missing_patient_ids"],
            len(samples),
        )
    report["exact_duplicates"] = _count_duplicates(samples)
    return samples


def _count_duplicates(samples: pd.DataFrame) -> dict[str, int]:
    classes = samples.groupby("content_hash")["label"].nunique()
    contradictory = int((classes > 1).sum())
    if contradictory:
        log.warning("%d images lie in several files with different classes", contradictory)
    return {"extra_files": int(samples["content_hash"].duplicated().sum()), "with_several_classes": contradictory}


def _choose(samples: pd.DataFrame, limit: int | None, balance_all: bool, seed: int) -> pd.DataFrame:
    if balance_all:
        log.warning(
            "balance_all: classes are made equal before the split, as the reference system did; validation and test "
            "lose their real prevalence, so accuracy, PPV and NPV do not carry over to patients"
        )
        samples = balance(samples, seed)
    return samples if limit is None else take_limit(samples, limit, seed)


def _split(samples: pd.DataFrame, fractions: Sequence[float], seed: int, report: Report) -> pd.DataFrame:
    split = make_split(samples, fractions, seed)
    dropped = len(samples) - len(split)
    report["linked_to_official_parts"] = dropped
    if dropped:
        log.warning("left out %d samples whose patient is also in an official validation or test part", dropped)
    return samples.loc[split.index].assign(split=split)


def _decode(samples: pd.DataFrame, images: ImageStore, on_bad_file: str, report: Report) -> pd.DataFrame:
    """Make the images ready and leave out files that give none."""
    found = images.build(samples["image_path"].tolist(), samples["content_hash"].tolist())
    errors = samples["image_path"].map(found)
    report["undecodable_files"] = _report_bad_files(samples, errors, on_bad_file, "give no image")
    return samples[errors.isna()]


def _report_bad_files(samples: pd.DataFrame, errors: pd.Series, on_bad_file: str, problem: str) -> dict[str, Any]:
    """Raise or count; the counts name no file, since paths may hold ids."""
    bad = errors.dropna()
    if len(bad) and (on_bad_file == "error" or len(bad) == len(samples)):
        remedy = (
            "mend the files" if len(bad) == len(samples) else "mend them, or leave them out with data.on_bad_file=skip"
        )
        raise DataError(
            f"expected {len(samples)} image files, but {len(bad)} of them {problem}; {remedy}: {list_first(bad)}"
        )
    if len(bad):
        log.warning(
            "left out %d of %d files that %s; data.on_bad_file=error lists them", len(bad), len(samples), problem
        )
    return {"count": len(bad)}


def _check_parts(samples: pd.DataFrame, class_names: list[str]) -> None:
    for part in PARTS:
        rows = samples[samples["split"] == part]
        if rows.empty:
            raise DataError(f"expected samples in train, val and test, but {part} is empty; check the split")
        require_every_class(rows, class_names, f"the part {part}")
    require_no_leak(samples, samples["split"])


def _count(samples: pd.DataFrame, class_names: list[str]) -> Report:
    parts = {part: samples[samples["split"] == part] for part in PARTS}
    return {
        "images": {
            part: {name: int((rows["label"] == label).sum()) for label, name in enumerate(class_names)}
            for part, rows in parts.items()
        },
        "patients": {part: int(rows["group"].nunique()) for part, rows in parts.items()},
        "fingerprint": _fingerprint(samples),
    }


def _fingerprint(samples: pd.DataFrame) -> str:
    """SHA-256 over id, bytes and label of every sample: it changes with any file."""
    lines = samples["sample_id"] + "\n" + samples["content_hash"] + "\n" + samples["label"].astype("str")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
