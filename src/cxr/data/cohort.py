"""From a dataset's samples to those that a run uses, each with label, content hash, group and part, and a report.

Knows nothing of training, of runs or of where stored images lie. Report, warnings and log hold counts only, never an id
or a path, so that they may go wherever a run goes; errors name files.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr.data.bad_files import report_bad_files
from cxr.data.file_index import FileIndex
from cxr.data.image_store import ImageStore
from cxr.data.labelled import LabelledSamples, Report
from cxr.data.leaks.gate import (
    POLICIES,
    add_paths,
    add_pixel_hashes,
    apply_gate,
    count_leaks,
    find_external_leaks,
    find_leaks,
    link_similar,
)
from cxr.data.leaks.similar import Similar, SimilarImages
from cxr.data.owner_lists import write_list
from cxr.data.samples import (
    PARTS,
    count_classes,
    label_columns,
    require_every_class,
    target_names,
)
from cxr.data.sampling import balance, take_limit
from cxr.data.splits import make_groups, make_split, read_split, warn_if_few
from cxr.data.views import filter_views
from cxr.errors import ConfigError, DataError

log = logging.getLogger(__name__)

_ALWAYS = ("content_hash", "patient_id", "study_id")


@dataclass(frozen=True)
class CohortSettings:
    """What a run takes of a dataset, and how it divides it.

    Attributes:
        view_filter: See `filter_views`.
        limit: Use so many samples, see `take_limit`; None for all.
        balance_all: Reference behaviour for old numbers: equal classes before the split, so in validation and test too.
        fractions: Shares of (train, val, test), see `make_split`.
        split_file: Takes samples and parts from this file; `limit`, `balance_all` and `fractions` then play no part.
        seed: The one seed.
        on_bad_file: 'error' lists the files that give no image, 'skip' leaves them out and counts them.
        leak_gate: What to do about samples that several parts hold, see `apply_gate`; 'off' does not look. In a split
            made here linked samples stay together, so only given parts can share some.
        avoid: Table of other samples, with `image_path`; what shows one of their films, or shares an id with them, is
            left out with its whole patient, before `limit` counts, whatever `leak_gate` says.

    Raises:
        ConfigError: `on_bad_file` or `leak_gate` is another word.
    """

    view_filter: str = "none"
    limit: int | None = None
    balance_all: bool = False
    fractions: Sequence[float] = (0.8, 0.1, 0.1)
    split_file: Path | None = None
    seed: int = 0
    on_bad_file: str = "error"
    leak_gate: str = "stop"
    avoid: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        if self.on_bad_file not in ("error", "skip"):
            raise ConfigError(f"expected data.on_bad_file to be 'error' or 'skip', but got {self.on_bad_file!r}")
        if self.leak_gate not in POLICIES:
            raise ConfigError(f"expected data.leak_gate to be one of {', '.join(POLICIES)}, but got {self.leak_gate!r}")


@dataclass(frozen=True)
class Cohort:
    """The samples of a run.

    Attributes:
        samples: The table of the gate with `content_hash`, `group`, `split` and what DICOM headers add; the columns
            `patient_id` and `study_id` are always there, maybe without values. Rows that show one film, or are linked
            otherwise, have one `group`.
        class_names: Names of the labels.
        report: What was kept, dropped and found, as counts under plain JSON types.
    """

    samples: pd.DataFrame
    class_names: list[str]
    report: Report


def make_cohort(
    dataset: LabelledSamples,
    settings: CohortSettings,
    images: ImageStore,
    index: FileIndex,
    leak_folder: Path,
    salt: str | None = None,
) -> Cohort:
    """Check, filter, decode and split a dataset, and see that its parts share nothing.

    Args:
        dataset: What `read_dataset` read.
        settings: What to take of it, and how to divide it.
        images: Makes the images ready and tells which files give none.
        index: Knows hash and header of each file.
        leak_folder: Keeps what the gate knows of images, and the lists of leaks and of bad files, which name files.
        salt: With which the ids in `settings.split_file` may be hashed.

    Returns:
        The cohort, sorted by `sample_id`, with every class in every part.

    Raises:
        CxrError: The data or the settings cannot be used.
    """
    report = _begin_report(dataset, settings)
    samples, own_group, similar = _gather(dataset, settings, images, index, leak_folder, salt, report)
    if settings.split_file is None:
        report["official_parts"] = sorted({"val", "test"} & set(samples.get("split", [])))
        samples = samples.assign(split=make_split(samples, settings.fractions, settings.seed))
    if similar is not None:
        samples = _guard(samples, own_group, similar, settings.leak_gate, leak_folder, report)
    samples = samples.reset_index(drop=True)
    _check_parts(samples, dataset.class_names)
    report |= _count(samples, dataset.class_names)
    warn_if_few(report["patients"]["test"])
    return Cohort(samples, dataset.class_names, report)


def gather_samples(
    dataset: LabelledSamples,
    settings: CohortSettings,
    images: ImageStore,
    index: FileIndex,
    leak_folder: Path,
    salt: str | None = None,
) -> pd.DataFrame:
    """The samples of `make_cohort` with their groups, not yet divided: what folds are made of.

    Args:
        dataset: What `read_dataset` read.
        settings: What to take of it; `fractions` play no part. A `split_file` gives the column `split`.
        images: Makes the images ready and tells which files give none.
        index: Knows hash and header of each file.
        leak_folder: Keeps what the gate knows of images.
        salt: With which the ids in `settings.split_file` may be hashed.

    Raises:
        CxrError: The data or the settings cannot be used.
    """
    samples, _, _ = _gather(dataset, settings, images, index, leak_folder, salt, {})
    return samples.reset_index(drop=True)


def _gather(
    dataset: LabelledSamples,
    settings: CohortSettings,
    images: ImageStore,
    index: FileIndex,
    leak_folder: Path,
    salt: str | None,
    report: Report,
) -> tuple[pd.DataFrame, pd.Series, Similar | None]:
    """Samples with an image, one group for what shows one film; their groups before; what is similar."""
    samples = _describe_files(dataset.samples, index, settings.on_bad_file, leak_folder, report)
    samples = _filter(samples, dataset.class_names, settings.view_filter, report)
    if settings.avoid is None:
        samples = _choose(samples, settings, salt)
        samples = _decode(samples, images, settings.on_bad_file, leak_folder, report)
    else:  # what is limited, or named by a split, is what was left
        samples = _decode(samples, images, settings.on_bad_file, leak_folder, report)
        samples = _leave_out(samples, settings.avoid, images, index, leak_folder, report)
        require_every_class(samples, dataset.class_names, "what data.avoid leaves")
        samples = _choose(samples, settings, salt)
    similar = _find_similar(samples, images, leak_folder) if settings.leak_gate != "off" else None
    return *_link(samples, similar), similar


def decode_dataset(
    dataset: LabelledSamples, images: ImageStore, index: FileIndex, on_bad_file: str, list_folder: Path
) -> pd.DataFrame:
    """Every sample of a dataset that gives an image, described but not divided; one class is enough.

    Args:
        dataset: What `read_dataset` read.
        images: Makes the images ready and tells which files give none.
        index: Knows hash and header of each file.
        on_bad_file: See `CohortSettings`.
        list_folder: Takes the list of bad files.

    Returns:
        The table of the gate with `content_hash`, `group` and what DICOM headers add.

    Raises:
        CxrError: As `make_cohort`.
    """
    report: Report = {}
    samples = _describe_files(dataset.samples, index, on_bad_file, list_folder, report)
    return _decode(samples, images, on_bad_file, list_folder, report)


def _begin_report(dataset: LabelledSamples, settings: CohortSettings) -> Report:
    chosen = {"limit": settings.limit, "balance_all": settings.balance_all}
    return dataset.report | chosen | {"from_split_file": settings.split_file is not None}


def _describe_files(
    samples: pd.DataFrame, index: FileIndex, on_bad_file: str, list_folder: Path, report: Report
) -> pd.DataFrame:
    """Add hash, header and group, and leave out files that cannot be read."""
    described = index.describe(samples["image_path"].tolist()).set_index(samples.index)
    report["unreadable_files"] = report_bad_files(
        samples, described["error"], on_bad_file, list_folder, "cannot be read"
    )
    samples = add_headers(samples, described)
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


def add_headers(samples: pd.DataFrame, described: pd.DataFrame) -> pd.DataFrame:
    """Samples with what `FileIndex.describe` found, as far as any file has it; what the reader knows goes first."""
    samples = samples.copy()
    for column in described.columns.drop(["image_path", "error"]):
        if column in samples:
            samples[column] = samples[column].where(samples[column].notna(), described[column])
        elif column in _ALWAYS or described[column].notna().any():
            samples[column] = described[column]
    return samples


def _count_duplicates(samples: pd.DataFrame) -> dict[str, int]:
    classes = samples.groupby("content_hash")[label_columns(samples)].nunique()
    contradictory = int((classes > 1).any(axis=1).sum())
    if contradictory:
        log.warning("%d images lie in several files with different classes", contradictory)
    return {"extra_files": int(samples["content_hash"].duplicated().sum()), "with_several_classes": contradictory}


def _filter(samples: pd.DataFrame, class_names: list[str], view_filter: str, report: Report) -> pd.DataFrame:
    """The samples with a wanted view."""
    samples, report["views"] = filter_views(samples, view_filter)
    require_every_class(samples, class_names, f"the images that data.view_filter={view_filter} keeps")
    return samples


def _choose(samples: pd.DataFrame, settings: CohortSettings, salt: str | None) -> pd.DataFrame:
    """The samples to use: those of the split file, or as many as wanted."""
    if settings.split_file is not None:
        return samples.assign(split=read_split(samples, settings.split_file, salt=salt)).dropna(subset="split")
    if settings.balance_all:
        log.warning(
            "balance_all: classes are made equal before the split, as the reference system did; validation and test "
            "lose their real prevalence, so accuracy, PPV and NPV do not carry over to patients"
        )
        samples = balance(samples, settings.seed)
    return samples if settings.limit is None else take_limit(samples, settings.limit, settings.seed)


def _leave_out(
    samples: pd.DataFrame,
    avoid: pd.DataFrame,
    images: ImageStore,
    index: FileIndex,
    leak_folder: Path,
    report: Report,
) -> pd.DataFrame:
    """The samples whose patient shares nothing with those to avoid, which must all give an image to be looked for."""
    described = index.describe(avoid["image_path"].tolist()).set_index(avoid.index)
    report_bad_files(avoid, described["error"], "error", leak_folder, "of data.avoid cannot be read")
    avoid = _decode(add_headers(avoid, described), images, "error", leak_folder, {})
    both = pd.concat([samples, avoid], ignore_index=True).drop_duplicates("content_hash")
    shared = find_external_leaks(samples.assign(split="train"), avoid, _find_similar(both, images, leak_folder))
    shared_groups = samples.loc[samples["sample_id"].isin(shared["sample_a"]), "group"]
    kept = samples[~samples["group"].isin(shared_groups)]
    kinds = {str(kind): int(count) for kind, count in shared["kind"].value_counts().sort_index().items()}
    report["avoided"] = {"images": len(avoid), "left_out": len(samples) - len(kept), "pairs": kinds}
    if shared.empty:
        log.info("none of %d images is among the %d of data.avoid", len(samples), len(avoid))
    else:
        path = write_list(add_paths(shared, samples, avoid), leak_folder, "avoided")
        left_out, told = len(samples) - len(kept), ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
        log.info("left out %d of %d images for what data.avoid holds (%s); see %s", left_out, len(samples), told, path)
    return kept


def _find_similar(samples: pd.DataFrame, images: ImageStore, folder: Path) -> Similar:
    return SimilarImages(folder, images).find(samples["image_path"].tolist(), samples["content_hash"].tolist())


def _link(samples: pd.DataFrame, similar: Similar | None) -> tuple[pd.DataFrame, pd.Series]:
    """Make one group of the images that show one film; return the samples and their groups before."""
    if similar is None:
        return samples, samples["group"]
    samples = add_pixel_hashes(samples, similar)
    return samples.assign(group=link_similar(samples, similar)), samples["group"]


def _guard(
    samples: pd.DataFrame, own_group: pd.Series, similar: Similar, policy: str, folder: Path, report: Report
) -> pd.DataFrame:
    leaks = find_leaks(samples.assign(group=own_group), similar)
    kept = apply_gate(samples, leaks, policy, folder)
    report["leaks"] = {
        "gate": policy,
        "pairs": count_leaks(leaks),
        "dropped": len(samples) - len(kept),
        "groups_joined_by_similar_images": int(own_group.nunique() - samples["group"].nunique()),
    }
    return kept


def _decode(
    samples: pd.DataFrame, images: ImageStore, on_bad_file: str, list_folder: Path, report: Report
) -> pd.DataFrame:
    """Make the images ready and leave out files that give none."""
    found = images.build(samples["image_path"].tolist(), samples["content_hash"].tolist())
    errors = samples["image_path"].map(found)
    report["undecodable_files"] = report_bad_files(samples, errors, on_bad_file, list_folder, "give no image")
    return samples[errors.isna()]


def _check_parts(samples: pd.DataFrame, class_names: list[str]) -> None:
    for part in PARTS:
        rows = samples[samples["split"] == part]
        if rows.empty:
            raise DataError(f"expected samples in train, val and test, but {part} is empty; check the split")
        if part == "train" or not target_names(samples):
            require_every_class(rows, class_names, f"the part {part}")


def _count(samples: pd.DataFrame, class_names: list[str]) -> Report:
    parts = {part: samples[samples["split"] == part] for part in PARTS}
    return {
        "images": {part: count_classes(rows, class_names) for part, rows in parts.items()},
        "patients": {part: int(rows["group"].nunique()) for part, rows in parts.items()},
        "fingerprint": fingerprint(samples),
        "test_fingerprint": fingerprint(parts["test"]),
    }


def fingerprint(samples: pd.DataFrame) -> str:
    """SHA-256 over id, bytes and label of every sample: it changes with any file."""
    lines = samples["sample_id"] + "\n" + samples["content_hash"]
    for column in label_columns(samples):
        lines += "\n" + samples[column].map(str)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
