"""The worth of a model for parts of its rows: by age, sex, view or any other column. Knows nothing of files, pages."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr.errors import DataError
from cxr.evaluation.checks import BoolArray, FloatArray, IntArray
from cxr.evaluation.metrics import check_metric_names
from cxr.evaluation.statistics.bootstrap import Draws, metric_intervals, proportion_interval, resample_parts
from cxr.evaluation.statistics.difference import Difference
from cxr.evaluation.statistics.intervals import Interval, no_interval
from cxr.evaluation.statistics.paired import difference_of_draws
from cxr.evaluation.statistics.resampling import patient_groups

LEAST_PATIENTS = 20
NOT_STATED = "not stated"
UNDERDIAGNOSIS = "underdiagnosis"
BANDS = ((0, 17), (18, 39), (40, 59), (60, 79))
LAST_BAND = 80
FEW_VALUES = 10
"""A column with no more numbers than this, but `age`, holds codes: each is a group."""


@dataclass(frozen=True)
class _Table:
    target: IntArray
    probs: FloatArray
    preds: IntArray
    groups: IntArray
    class_names: list[str]

    def count_patients(self, part: BoolArray) -> int:
        return len(np.unique(self.groups[part]))


def measure_subgroups(
    predictions: pd.DataFrame,
    class_names: list[str],
    columns: Collection[str],
    metrics: Collection[str],
    *,
    least: int = LEAST_PATIENTS,
    threshold: float | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Metrics of the rows of each value of each column, and their gap to all other rows.

    Besides the metrics of `classification_metrics` there is, with two classes, `underdiagnosis`: the share of the
    group's rows of class 1 that are called class 0 (Seyyed-Kalantari et al. 2021, Nature Medicine 27:2176).

    Interval and gap come from the same samples of patients drawn from the whole table, so a patient with rows in the
    group and outside (two views, two years) is counted in both.

    Args:
        predictions: The predictions table.
        class_names: The K names in order.
        columns: Columns to divide by. `age`, and any of more than FEW_VALUES different numbers, is put into the
            bands 0-17, 18-39, 40-59, 60-79, 80+, what is empty into "not stated".
        metrics: Names of metrics.
        least: Fewest patients of a group whose numbers are shown; also of the other rows, from which they follow.
        threshold: Probability of class 1 from which `underdiagnosis` takes a row as called so; None takes the most
            probable class.
        draws: Bootstrap samples, at least 1000.
        seed: Of the samples.

    Returns:
        One row for each column, group and metric: column, group, images, patients, metric, value, low, high, k, n,
        method, gap, gap_low, gap_high, gap_method, hidden. `gap` is the group's value minus that of all other rows.
        `hidden` says why a group has no numbers, and is empty where it has.

    Raises:
        DataError: An unknown column or metric, `underdiagnosis` of more than two classes, or a table that does not fit.
    """
    _check_names(predictions, class_names, columns, metrics)
    table = _make_table(predictions, class_names, threshold)
    divided = [(column, *group) for column in columns for group in _divide(predictions[column])]
    shown = [inside for _, _, inside in divided if not _why_hidden(table, inside, least)]
    drawn = _resample(table, shown, metrics, draws, seed)
    rows = [
        {"column": column, "group": group} | cells
        for column, group, inside in divided
        for cells in _describe_group(table, inside, metrics, least, drawn)
    ]
    return pd.DataFrame(rows).astype({"k": "Int64", "n": "Int64"})


def name_groups(column: "pd.Series[str]") -> "pd.Series[str]":
    """The group of each row: its text, its band, or "not stated".

    Args:
        column: Text, numbers from 0, or anything that is null.
    """
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        are_ages = column.name == "age" or column.nunique() > FEW_VALUES
        name = _band if are_ages else "{:g}".format
        return column.map(name, na_action="ignore").astype("string").fillna(NOT_STATED)
    text = column.astype("string").str.strip()
    return text.mask(text == "").fillna(NOT_STATED)


def _band(number: float) -> str:
    for low, high in BANDS:
        if low <= number < high + 1:
            return f"{low}-{high}"
    return f"{LAST_BAND}+" if number >= LAST_BAND else NOT_STATED


def _divide(column: "pd.Series[str]") -> Iterator[tuple[str, BoolArray]]:
    """Groups in the order of bands or letters, what is not stated last."""
    names = name_groups(column)
    order = [f"{low}-{high}" for low, high in BANDS] + [f"{LAST_BAND}+"]
    place = {name: number for number, name in enumerate(order)}
    for name in sorted(names.unique(), key=lambda name: (name == NOT_STATED, place.get(name, -1), name)):
        yield str(name), (names == name).to_numpy(dtype=np.bool_)


def _make_table(predictions: pd.DataFrame, class_names: list[str], threshold: float | None) -> _Table:
    probs = predictions[[f"prob_{k}" for k in range(len(class_names))]].to_numpy(dtype=np.float64)
    preds = probs.argmax(axis=1) if threshold is None else (probs[:, 1] >= threshold).astype(np.int64)
    target = predictions["target"].to_numpy(dtype=np.int64)
    return _Table(target, probs, preds, patient_groups(predictions), class_names)


def _why_hidden(table: _Table, inside: BoolArray, least: int) -> str:
    if table.count_patients(inside) < least:
        return f"fewer than {least} patients"
    others = table.count_patients(~inside)
    return f"fewer than {least} patients in all other groups" if 0 < others < least else ""


def _resample(
    table: _Table, groups: Sequence[BoolArray], metrics: Collection[str], draws: int, seed: int
) -> dict[bytes, Draws]:
    """The draws of each group and of all other rows, by the bytes of its mask: two sexes are each other's rest."""
    parts = {part.tobytes(): part for inside in groups for part in (inside, ~inside) if part.any()}
    names = [name for name in metrics if name != UNDERDIAGNOSIS]
    rows = (table.groups, table.class_names)
    found = resample_parts(table.target, table.probs, *rows, names, list(parts.values()), draws=draws, seed=seed)
    if UNDERDIAGNOSIS in metrics:
        called = np.eye(2)[table.preds]
        caught = resample_parts(
            table.target, called, *rows, ["sensitivity"], list(parts.values()), draws=draws, seed=seed
        )
        found = [one | {UNDERDIAGNOSIS: 1 - own["sensitivity"]} for one, own in zip(found, caught, strict=True)]
    return dict(zip(parts, found, strict=True))


def _describe_group(
    table: _Table, inside: BoolArray, metrics: Collection[str], least: int, drawn: dict[bytes, Draws]
) -> list[dict[str, object]]:
    size = {"images": int(inside.sum()), "patients": table.count_patients(inside)}
    hidden = _why_hidden(table, inside, least)
    if hidden:
        nothing = no_interval(np.nan, hidden)
        return [size | _cells(name, nothing, None, hidden) for name in metrics]
    own = _find_intervals(table, inside, drawn[inside.tobytes()])
    gaps = {} if inside.all() else _compare_with_rest(table, inside, own, drawn)
    return [size | _cells(name, own[name], gaps.get(name), "") for name in metrics]


def _compare_with_rest(
    table: _Table, inside: BoolArray, own: dict[str, Interval], drawn: dict[bytes, Draws]
) -> dict[str, Difference]:
    here, there = drawn[inside.tobytes()], drawn[(~inside).tobytes()]
    rest = _find_intervals(table, ~inside, there)
    behind = min(table.count_patients(part) for part in (inside, ~inside))
    return {
        name: difference_of_draws(own[name].value - rest[name].value, here[name] - there[name], behind) for name in own
    }


def _find_intervals(table: _Table, part: BoolArray, drawn: Draws) -> dict[str, Interval]:
    others = {name: draws for name, draws in drawn.items() if name != UNDERDIAGNOSIS}
    intervals = metric_intervals(table.target[part], table.probs[part], table.groups[part], table.class_names, others)
    if UNDERDIAGNOSIS in drawn:
        diseased = part & (table.target == 1)
        missed = int((table.preds[diseased] == 0).sum())
        intervals[UNDERDIAGNOSIS] = proportion_interval(missed, table.groups[diseased], drawn[UNDERDIAGNOSIS])
    return intervals


def _cells(name: str, found: Interval, gap: Difference | None, hidden: str) -> dict[str, object]:
    cells = {
        "metric": name,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "k": found.k,
        "n": found.n,
        "method": found.method,
    }
    if gap is None:
        reason = hidden if hidden else "the only group"
        return cells | {"gap": np.nan, "gap_low": np.nan, "gap_high": np.nan, "gap_method": reason, "hidden": hidden}
    ends = {"gap": gap.value, "gap_low": gap.low, "gap_high": gap.high, "gap_method": gap.method}
    return cells | ends | {"hidden": hidden}


def _check_names(
    predictions: pd.DataFrame, class_names: list[str], columns: Collection[str], metrics: Collection[str]
) -> None:
    absent = [name for name in columns if name not in predictions]
    if absent:
        raise DataError(f"expected subgroup columns of the table, got {absent}, which it has not; name its columns")
    if UNDERDIAGNOSIS in metrics and len(class_names) != 2:
        raise DataError(f"expected two classes for {UNDERDIAGNOSIS}, got {len(class_names)}; leave it out")
    check_metric_names([name for name in metrics if name != UNDERDIAGNOSIS], class_names)
