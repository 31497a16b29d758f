"""The samples table and its gate: every dataset, whatever its files, passes here before anything else looks at it.

Knows nothing of where a table comes from, of splits or of pixels, and does not look whether files exist.

Columns after the gate: `sample_id` (unique, the table is sorted by it), `image_path`, `finding` (the dataset's own
label), `label` (index into the class names) and, where the dataset has them, `patient_id`, `study_id`, `view_position`,
`split` ('train' | 'val' | 'test', the dataset's official parts) and any further column.

A multi-label table has, instead of `label`, a column `target_<name>` for each class: 1, 0, or NaN where the dataset
does not state it.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import DataError

PARTS = ("train", "val", "test")
TARGET_PREFIX = "target_"
NO_TARGET = "no positive target"
_REQUIRED = ("sample_id", "image_path", "finding")
_TEXT = (*_REQUIRED, "patient_id", "study_id", "split")


def make_samples(raw: pd.DataFrame, classes: Mapping[str, str | None] | None) -> tuple[pd.DataFrame, list[str]]:
    """Check a reader's table, sort it and give every row its label.

    Args:
        raw: What a reader made: `sample_id`, absolute `image_path`, `finding` and optional further columns. Blank ids
            count as missing. A table with columns `target_<name>` is a multi-label one and needs no `finding`.
        classes: finding -> class name; the classes are numbered by first appearance here. None as a class name leaves
            the finding out. None instead of a mapping makes every finding a class, in alphabetical order. Must be None
            for a multi-label table, whose classes are its targets, in the order of the columns.

    Returns:
        The table sorted by `sample_id` with the int64 column `label`, and the class names. A multi-label table has no
        `label` but float64 targets; rows without any stated target are left out, and `finding` is the rarest target
        that is positive, so that whatever divides a table by finding keeps rare targets in proportion.

    Raises:
        DataError: One report of every problem found, with the first examples of each.
    """
    targets = target_names(raw)
    _require_columns(raw, _REQUIRED[:2] if targets else _REQUIRED)
    return _label_targets(_clean_text(raw), targets, classes) if targets else _label_classes(_clean_text(raw), classes)


def target_names(samples: pd.DataFrame) -> list[str]:
    """The names of the targets of a multi-label table, in the order of its columns; none for any other."""
    columns = (column for column in samples.columns if isinstance(column, str))
    return [column.removeprefix(TARGET_PREFIX) for column in columns if column.startswith(TARGET_PREFIX)]


def label_columns(samples: pd.DataFrame) -> list[str]:
    """The columns that say what a sample shows: `label`, or the targets."""
    return [TARGET_PREFIX + name for name in target_names(samples)] or ["label"]


def label_array(samples: pd.DataFrame) -> NDArray[Any]:
    """Labels (N,) int64, or the K targets (N, K) float32, NaN where nothing is stated."""
    if target_names(samples):
        return samples[label_columns(samples)].to_numpy(dtype=np.float32, copy=True)
    return samples["label"].to_numpy(dtype=np.int64, copy=True)


def count_classes(samples: pd.DataFrame, class_names: Sequence[str]) -> dict[str, int]:
    """Return how many samples each class has, in a multi-label table those whose target is positive."""
    if target_names(samples):
        return {name: int((samples[TARGET_PREFIX + name] == 1).sum()) for name in class_names}
    counts = samples["label"].value_counts()
    return {name: int(counts.get(label, 0)) for label, name in enumerate(class_names)}


def require_every_class(samples: pd.DataFrame, class_names: list[str], where: str) -> None:
    """Raise DataError unless there are two classes or more (or a target) and each has a sample.

    Args:
        samples: Table with `label` or targets, and `finding`.
        class_names: Declared classes.
        where: What the table is at this stage, for the message, for example 'the view filter'.
    """
    if len(class_names) < 2 and not target_names(samples):
        raise DataError(
            f"expected at least 2 classes in {where}, but got {list_first(class_names)}; "
            "check data.classes and the folder or table the data come from"
        )
    empty = [name for name, count in count_classes(samples, class_names).items() if count == 0]
    if empty:
        raise DataError(
            f"expected samples of every class in {where}, but class {list_first(empty)} has none; "
            f"the findings left are {list_first(sorted(samples['finding'].unique()))}: "
            "change data.classes (or data.scheme), data.view_filter, data.limit or data.fractions, or add data"
        )


def list_first(values: Collection[object], limit: int = 10) -> str:
    """Return the first `limit` values in a row, and how many more there are."""
    if len(values) == 0:
        return "none"
    shown = ", ".join(str(value) for _, value in zip(range(limit), values, strict=False))
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"


def require_utf8(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Raise DataError for file names that are no UTF-8, as older systems wrote them: a table could not hold them."""
    shown = {os.fspath(path): os.fsencode(path).decode(errors="replace") for path in paths}
    others = [text for path, text in shown.items() if text != path]
    if others:
        raise DataError(
            f"expected file names in UTF-8, but {len(others)} are not: {list_first(others)}; rename these files or the "
            "folder they are in"
        )


def _label_classes(samples: pd.DataFrame, classes: Mapping[str, str | None] | None) -> tuple[pd.DataFrame, list[str]]:
    mapping = _complete_mapping(samples, classes)
    _raise_problems([*_find_problems(samples), *_find_unmapped(samples, mapping)])
    class_names = list(dict.fromkeys(name for name in mapping.values() if name is not None))
    numbers = {finding: class_names.index(name) for finding, name in mapping.items() if name is not None}
    labels = samples["finding"].map(numbers)
    samples = samples.assign(label=labels)[labels.notna()].sort_values("sample_id", ignore_index=True)
    samples["label"] = samples["label"].astype("int64")
    return samples, class_names


def _label_targets(
    samples: pd.DataFrame, targets: list[str], classes: Mapping[str, str | None] | None
) -> tuple[pd.DataFrame, list[str]]:
    if classes is not None:
        raise DataError(
            f"expected data.classes=null for a table with the targets {list_first(targets)}, but got a mapping of "
            "findings; leave out data.classes or the targets"
        )
    columns = label_columns(samples)
    values = samples[columns].apply(pd.to_numeric, errors="coerce").astype("float64")
    samples = samples.drop(columns="finding", errors="ignore")
    _raise_problems([*_find_problems(samples), *_find_wrong_targets(samples, values)])
    samples[columns] = values
    samples["finding"] = _rarest_positive(values)
    samples = samples[values.notna().any(axis=1)].sort_values("sample_id", ignore_index=True)
    return samples, targets


def _rarest_positive(values: pd.DataFrame) -> pd.Series:
    """Name of the rarest target that each row has."""
    findings = pd.Series(NO_TARGET, index=values.index)
    for column in values.eq(1).sum().sort_values(ascending=False, kind="stable").index:
        findings[values[column] == 1] = column.removeprefix(TARGET_PREFIX)
    return findings


def _raise_problems(problems: list[str]) -> None:
    if problems:
        raise DataError(f"expected a sound table of samples, but found: {'; '.join(problems)}")


def _require_columns(raw: pd.DataFrame, required: Sequence[str]) -> None:
    absent = [column for column in required if column not in raw]
    if absent:
        raise DataError(
            f"expected the columns {list_first(required)} in a table of samples, but {list_first(absent)} "
            f"is missing; the table has {list_first(list(raw.columns))}"
        )
    if raw.empty:
        raise DataError("expected a table with samples, but it has no rows; check the folder the data come from")


def _clean_text(raw: pd.DataFrame) -> pd.DataFrame:
    """Make ids and names text without outer spaces; blank ones are missing."""
    samples = raw.copy()
    for column in samples.columns.intersection(list(_TEXT)):
        values = samples[column]
        text = values.astype("str").str.strip()
        samples[column] = text.where(values.notna() & (text != ""), None)
    return samples


def _complete_mapping(samples: pd.DataFrame, classes: Mapping[str, str | None] | None) -> dict[str, str | None]:
    if classes is None:
        return {finding: finding for finding in sorted(samples["finding"].dropna().unique())}
    return {str(finding): None if name is None else str(name) for finding, name in classes.items()}


def _find_problems(samples: pd.DataFrame) -> Iterator[str]:
    ids = samples["sample_id"]
    for column in samples.columns.intersection(list(_REQUIRED)):
        rows = ids[samples[column].isna()]
        yield from _describe(f"no {column} (sample_id)", rows.fillna("blank"))
    yield from _describe("sample_id more than once", ids[ids.duplicated()].dropna().unique())
    paths = samples["image_path"].dropna()
    yield from _describe("image_path that is not absolute", paths[~paths.map(os.path.isabs).astype(bool)])
    if "split" in samples:
        splits = samples["split"].dropna().unique()
        yield from _describe(f"split other than {', '.join(PARTS)}", sorted(set(splits) - set(PARTS)))


def _find_unmapped(samples: pd.DataFrame, mapping: Mapping[str, str | None]) -> Iterator[str]:
    yield from _describe(
        "finding that data.classes does not map (map it to a class, or to null to leave it out)",
        sorted(set(samples["finding"].dropna().unique()) - set(mapping)),
    )


def _find_wrong_targets(samples: pd.DataFrame, values: pd.DataFrame) -> Iterator[str]:
    """Values other than 0, 1 and nothing, and targets that are never positive or never negative."""
    wrong = samples[values.columns].notna() & ~values.isin([0, 1])
    yield from _describe(
        "target other than 1, 0 or nothing (sample_id); write nothing where a target is not stated",
        samples.loc[wrong.any(axis=1), "sample_id"],
    )
    for value, word in ((1, "positive (1)"), (0, "negative (0)")):
        never = values.columns[~values.eq(value).any()]
        yield from _describe(f"target that is never {word}", never.str.removeprefix(TARGET_PREFIX))


def _describe(problem: str, values: Iterable[object]) -> Iterator[str]:
    found = list(values)
    if found:
        yield f"{len(found)} x {problem}: {list_first(found)}"
