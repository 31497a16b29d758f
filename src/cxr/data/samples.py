"""The samples table and its gate: every dataset, whatever its files, passes here before anything else looks at it.

Knows nothing of where a table comes from, of splits or of pixels, and does not look whether files exist.

Columns after the gate: `sample_id` (unique, the table is sorted by it), `image_path`, `finding` (the dataset's own
label), `label` (index into the class names) and, where the dataset has them, `patient_id`, `study_id`, `view_position`,
`split` ('train' | 'val' | 'test', the dataset's official parts) and any further column.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping

import pandas as pd

from cxr.errors import DataError

PARTS = ("train", "val", "test")
_REQUIRED = ("sample_id", "image_path", "finding")
_TEXT = (*_REQUIRED, "patient_id", "study_id", "split")


def make_samples(raw: pd.DataFrame, classes: Mapping[str, str | None] | None) -> tuple[pd.DataFrame, list[str]]:
    """Check a reader's table, sort it and give every row its label.

    Args:
        raw: What a reader made: `sample_id`, absolute `image_path`, `finding` and optional further columns. Blank ids
            count as missing.
        classes: finding -> class name; the classes are numbered by first appearance here. None as a class name leaves
            the finding out. None instead of a mapping makes every finding a class, in alphabetical order.

    Returns:
        The table sorted by `sample_id` with the int64 column `label`, and the class names.

    Raises:
        DataError: One report of every problem found, with the first examples of each; or a class without samples.
    """
    _require_columns(raw)
    samples = _clean_text(raw)
    mapping = _complete_mapping(samples, classes)
    problems = list(_find_problems(samples, mapping))
    if problems:
        raise DataError(f"expected a sound table of samples, but found: {'; '.join(problems)}")
    class_names = list(dict.fromkeys(name for name in mapping.values() if name is not None))
    samples = samples[samples["finding"].map(mapping).notna()].sort_values("sample_id", ignore_index=True)
    samples["label"] = samples["finding"].map(mapping).map(class_names.index).astype("int64")
    require_every_class(samples, class_names, "the dataset")
    return samples, class_names


def require_every_class(samples: pd.DataFrame, class_names: list[str], where: str) -> None:
    """Raise DataError unless there are two classes or more and each has a sample.

    Args:
        samples: Table with `label` and `finding`.
        class_names: Declared classes.
        where: What the table is at this stage, for the message, for example 'the view filter'.
    """
    if len(class_names) < 2:
        raise DataError(
            f"expected at least 2 classes in {where}, but got {list_first(class_names)}; "
            "check data.classes and the folder or table the data come from"
        )
    present = set(samples["label"].unique())
    empty = [name for index, name in enumerate(class_names) if index not in present]
    if empty:
        raise DataError(
            f"expected samples of every class in {where}, but class {list_first(empty)} has none; "
            f"the findings left are {list_first(sorted(samples['finding'].unique()))}: "
            "change data.classes, data.view_filter, data.limit or data.fractions, or add data"
        )


def list_first(values: Collection[object], limit: int = 10) -> str:
    """Return the first `limit` values in a row, and how many more there are."""
    if len(values) == 0:
        return "none"
    shown = ", ".join(str(value) for _, value in zip(range(limit), values, strict=False))
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"


def _require_columns(raw: pd.DataFrame) -> None:
    absent = [column for column in _REQUIRED if column not in raw]
    if absent:
        raise DataError(
            f"expected the columns {list_first(_REQUIRED)} in a table of samples, but {list_first(absent)} "
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


def _find_problems(samples: pd.DataFrame, mapping: Mapping[str, str | None]) -> Iterator[str]:
    ids = samples["sample_id"]
    for column in _REQUIRED:
        rows = ids[samples[column].isna()]
        yield from _describe(f"no {column} (sample_id)", rows.fillna("blank"))
    yield from _describe("sample_id more than once", ids[ids.duplicated()].dropna().unique())
    paths = samples["image_path"].dropna()
    yield from _describe("image_path that is not absolute", paths[~paths.map(os.path.isabs).astype(bool)])
    findings = samples["finding"].dropna().unique()
    yield from _describe(
        "finding that data.classes does not map (map it to a class, or to null to leave it out)",
        sorted(set(findings) - set(mapping)),
    )
    if "split" in samples:
        splits = samples["split"].dropna().unique()
        yield from _describe(f"split other than {', '.join(PARTS)}", sorted(set(splits) - set(PARTS)))


def _describe(problem: str, values: Iterable[object]) -> Iterator[str]:
    found = list(values)
    if found:
        yield f"{len(found)} x {problem}: {list_first(found)}"
