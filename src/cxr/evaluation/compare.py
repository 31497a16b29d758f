"""Several models on the same test rows: which is better, and how sure is that? Knows nothing of files or pages.

What is compared are recipes: one run, or several that differ in their seed only. The paired bootstrap of patients is
always made. DeLong's test (an AUROC) and McNemar's (accuracy) take rows for independent, so they are added only where
each patient has one row and each recipe one run.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import t as student

from cxr.errors import DataError
from cxr.evaluation.checks import FloatArray, IntArray
from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.predictions import check_predictions
from cxr.evaluation.statistics.bootstrap import (
    METHOD,
    Draws,
    auroc_class,
    bounded_interval,
    metric_intervals,
    metric_range,
    patients_behind,
    resample_metrics,
    spread,
    why_no_interval,
)
from cxr.evaluation.statistics.corrections import holm
from cxr.evaluation.statistics.delong import delong_difference
from cxr.evaluation.statistics.difference import Difference, untested
from cxr.evaluation.statistics.intervals import CONFIDENCE, Interval, no_interval
from cxr.evaluation.statistics.paired import METHOD as PAIRED
from cxr.evaluation.statistics.paired import difference_of_error, mcnemar
from cxr.evaluation.statistics.resampling import patient_groups

Table = tuple[pd.DataFrame, list[str]]
DELONG = "DeLong"
MCNEMAR = "McNemar"
_SEEDS = ", seeds"


@dataclass(frozen=True)
class SecondTest:
    """A test that takes rows for independent, beside the bootstrap.

    Attributes:
        name: ``DeLong`` or ``McNemar``; empty where none belongs to the metric.
        p_value: Two-sided; nan where the test was not made.
        low: Lower end of the 95% interval of the difference; nan where the test gives none.
        high: Upper end.
        note: Why it was not made, or what it counted.
        p_holm: The p-value corrected for all tests of this name.
    """

    name: str
    p_value: float
    low: float
    high: float
    note: str
    p_holm: float = np.nan


NO_TEST = SecondTest("", np.nan, np.nan, np.nan, "")


@dataclass(frozen=True)
class Result:
    """One metric of one recipe.

    Attributes:
        recipe: Its name.
        metric: Name of the metric.
        runs: How many runs were pooled.
        value: The metric, or its mean over the runs, with interval; of several runs it minds their spread too.
        sd: Standard deviation over the runs; nan of one.
        difference: To the same metric of the reference; None for the reference itself.
        p_holm: The difference's p-value corrected for all differences.
        test: The second test; None for the reference itself.
    """

    recipe: str
    metric: str
    runs: int
    value: Interval
    sd: float
    difference: Difference | None = None
    p_holm: float = np.nan
    test: SecondTest | None = None


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        reference: The recipe that the others are held against.
        rows: Test rows.
        patients: Patients they are of.
        results: Recipe by recipe in the order given, in each metric by metric.
    """

    reference: str
    rows: int
    patients: int
    results: tuple[Result, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row for each recipe and metric.

        Columns: recipe, metric, runs, value, low, high, method, k, n, sd, difference, difference_low, difference_high,
        p, p_holm, smallest (the smallest difference these rows could have shown), difference_method, test, test_p,
        test_p_holm, test_low, test_high, test_note.
        """
        return pd.DataFrame([_cells(result) for result in self.results]).astype({"k": "Int64", "n": "Int64"})


@dataclass(frozen=True)
class _Rows:
    """The test rows that all runs share, and each run's answers to them."""

    target: IntArray
    groups: IntArray
    class_names: list[str]
    probs: dict[str, FloatArray]

    @property
    def independent(self) -> bool:
        return len(np.unique(self.groups)) == len(self.groups)


@dataclass(frozen=True)
class _Recipe:
    """A recipe's runs, their metrics, and the mean over them of every bootstrap sample."""

    name: str
    runs: Sequence[str]
    values: dict[str, FloatArray]
    draws: Draws

    def seed_variance(self, metric: str) -> float:
        """Of the mean over runs, as far as several runs show it."""
        runs = len(self.runs)
        return float(np.var(self.values[metric], ddof=1)) / runs if runs > 1 else 0.0


def compare(
    tables: Mapping[str, Table],
    metrics: Collection[str],
    *,
    recipes: Mapping[str, Sequence[str]] | None = None,
    reference: str | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Hold several runs against one of them, on the same test rows.

    Args:
        tables: Name of a run -> (predictions table, class names). Rows may stand in any order.
        metrics: Names of metrics of `classification_metrics`.
        recipes: Name of a recipe -> its runs, which differ in their seed; every run belongs to one. None takes each run
            for a recipe.
        reference: The recipe that the others are held against; None takes the first.
        draws: Bootstrap samples, at least 1000.
        seed: Of the samples.

    Returns:
        Values with intervals, differences "recipe minus reference" with paired intervals, p-values also corrected by
        Holm for all differences, and the smallest difference that could have been shown.

    Raises:
        DataError: Runs whose rows, targets, patients or classes differ, unknown names, or a table that is refused.
    """
    rows = _align(tables)
    groups = {name: [name] for name in tables} if recipes is None else recipes
    _check_recipes(groups, tables)
    first = next(iter(groups)) if reference is None else reference
    if first not in groups:
        raise DataError(f"expected a reference among {list(groups)}, got {first!r}; name one of them")
    measured = {name: _measure(name, runs, rows, metrics, draws, seed) for name, runs in groups.items()}
    results = [one for recipe in measured.values() for one in _results(recipe, measured[first], rows)]
    return Comparison(first, len(rows.target), len(np.unique(rows.groups)), tuple(_correct(results)))


def _align(tables: Mapping[str, Table]) -> _Rows:
    """Every run's rows in the order of the first run."""
    if len(tables) < 2:
        raise DataError(f"expected two or more runs to compare, got {list(tables)}; name another")
    (name, (table, class_names)), *others = tables.items()
    first = _by_sample(name, table, class_names)
    probs = {name: _probs(first, class_names)}
    for other, (table, names) in others:
        _check_same_classes(name, class_names, other, names)
        second = _by_sample(other, table, names)
        _check_same_rows(name, first, other, second)
        probs[other] = _probs(second.loc[first.index], class_names)
    return _Rows(first["target"].to_numpy(dtype=np.int64), patient_groups(first), class_names, probs)


def _check_same_classes(first_name: str, first: list[str], name: str, names: list[str]) -> None:
    if names == first:
        return
    reordered = sorted(names) == sorted(first)
    remedy = "give tables that name their columns one order by --classes" if reordered else "compare runs alike"
    raise DataError(f"expected the classes {first} of {first_name}, got {names} in {name}; {remedy}")


def _by_sample(name: str, table: pd.DataFrame, class_names: list[str]) -> pd.DataFrame:
    check_predictions(table, class_names)
    repeated = table["sample_id"][table["sample_id"].duplicated()].unique()[:5].tolist()
    if repeated:
        raise DataError(f"expected each sample once in {name}, got {repeated} again; give one table for each run")
    return table.set_index("sample_id")


def _check_same_rows(first_name: str, first: pd.DataFrame, name: str, table: pd.DataFrame) -> None:
    for lacking, absent in (
        (name, first.index.difference(table.index)),
        (first_name, table.index.difference(first.index)),
    ):
        if len(absent):
            got = f"{len(absent)} missing in {lacking}, first {absent[:5].tolist()}"
            raise DataError(
                f"expected the same test rows in {first_name} and {name}, got {got}; compare runs of one test"
            )
    table = table.loc[first.index]
    for column in ("target", "patient_id", "study_id"):
        same = (first[column] == table[column]).fillna(False) | (first[column].isna() & table[column].isna())
        if not same.all():
            rows = first.index[~same.to_numpy(dtype=np.bool_)][:5].tolist()
            raise DataError(f"expected the same {column} in {first_name} and {name}, got others for {rows}; mend one")


def _probs(table: pd.DataFrame, class_names: list[str]) -> FloatArray:
    return table[[f"prob_{k}" for k in range(len(class_names))]].to_numpy(dtype=np.float64)


def _check_recipes(recipes: Mapping[str, Sequence[str]], tables: Mapping[str, Table]) -> None:
    runs = [run for group in recipes.values() for run in group]
    if sorted(runs) != sorted(tables) or not all(recipes.values()):
        raise DataError(f"expected every run of {sorted(tables)} in one recipe, got {dict(recipes)}; list each once")


def _measure(name: str, runs: Sequence[str], rows: _Rows, metrics: Collection[str], draws: int, seed: int) -> _Recipe:
    each = [rows.probs[run] for run in runs]
    values = [classification_metrics(rows.target, probs, rows.class_names) for probs in each]
    found = [
        resample_metrics(rows.target, probs, rows.groups, rows.class_names, metrics, draws=draws, seed=seed)
        for probs in each
    ]
    return _Recipe(
        name,
        runs,
        {metric: np.array([value[metric] for value in values]) for metric in metrics},
        {metric: np.mean([drawn[metric] for drawn in found], axis=0) for metric in metrics},
    )


def _results(recipe: _Recipe, reference: _Recipe, rows: _Rows) -> Iterator[Result]:
    for metric, value in _intervals(recipe, rows).items():
        values = recipe.values[metric]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
        alone = Result(recipe.name, metric, len(values), value, sd)
        yield alone if recipe is reference else _against(alone, recipe, reference, rows)


def _against(alone: Result, recipe: _Recipe, reference: _Recipe, rows: _Rows) -> Result:
    difference = _difference(recipe, reference, alone.metric, rows)
    return replace(alone, difference=difference, test=_second_test(recipe, reference, alone.metric, rows))


def _intervals(recipe: _Recipe, rows: _Rows) -> dict[str, Interval]:
    if len(recipe.runs) > 1:
        return {metric: _pooled(recipe, metric, rows) for metric in recipe.draws}
    return metric_intervals(rows.target, rows.probs[recipe.runs[0]], rows.groups, rows.class_names, recipe.draws)


def _pooled(recipe: _Recipe, metric: str, rows: _Rows) -> Interval:
    value = float(recipe.values[metric].mean())
    known, patients, reason = _behind(value, recipe.draws[metric], metric, rows)
    if reason is not None:
        return no_interval(value, reason)
    error, freedom = _total_error(spread(known, patients), patients, [recipe], metric)
    half = float(student.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return bounded_interval(value, half, metric_range(metric), METHOD + _SEEDS)


def _difference(recipe: _Recipe, reference: _Recipe, metric: str, rows: _Rows) -> Difference:
    value = float(recipe.values[metric].mean() - reference.values[metric].mean())
    drawn = recipe.draws[metric] - reference.draws[metric]
    known, patients, reason = _behind(value, drawn, metric, rows)
    if reason is not None:
        return untested(value, reason)
    error, freedom = _total_error(spread(known, patients), patients, [recipe, reference], metric)
    method = PAIRED + _SEEDS if max(len(recipe.runs), len(reference.runs)) > 1 else PAIRED
    return difference_of_error(value, error, freedom, method)


def _behind(value: float, drawn: FloatArray, metric: str, rows: _Rows) -> tuple[FloatArray, int, str | None]:
    """Draws that could be measured, patients behind the metric, and why there is no interval."""
    known = drawn[~np.isnan(drawn)]
    patients = patients_behind(metric, rows.target, rows.groups, rows.class_names)
    return known, patients, why_no_interval(value, known, len(drawn), patients)


def _total_error(error: float, patients: int, recipes: Sequence[_Recipe], metric: str) -> tuple[float, float]:
    """Standard error over patients and seeds, and its degrees of freedom (Satterthwaite 1946, Biometrics 2:110)."""
    parts = [(error**2, patients - 1)]
    parts += [(recipe.seed_variance(metric), len(recipe.runs) - 1) for recipe in recipes if len(recipe.runs) > 1]
    total = sum(variance for variance, _ in parts)
    return total**0.5, total**2 / sum(variance**2 / freedom for variance, freedom in parts)


def _second_test(recipe: _Recipe, reference: _Recipe, metric: str, rows: _Rows) -> SecondTest:
    positive = auroc_class(metric, rows.class_names)
    if metric != "accuracy" and positive is None:
        return NO_TEST
    name = MCNEMAR if positive is None else DELONG
    note = _why_not(recipe, reference, rows, positive)
    if note:
        return SecondTest(name, np.nan, np.nan, np.nan, note)
    first, second = (rows.probs[one.runs[0]] for one in (recipe, reference))
    if positive is None:
        right = [probs.argmax(axis=1) == rows.target for probs in (first, second)]
        found = mcnemar(*right)
        note = f"only {recipe.name} right: {found.only_first}, only {reference.name} right: {found.only_second}"
        return SecondTest(name, found.p_value, np.nan, np.nan, note)
    gap = delong_difference(rows.target == positive, first[:, positive], second[:, positive])
    return SecondTest(name, gap.p_value, gap.low, gap.high, "" if np.isfinite(gap.low) else gap.method)


def _why_not(recipe: _Recipe, reference: _Recipe, rows: _Rows, positive: int | None) -> str:
    if not rows.independent:
        return "not made: patients have several rows, which it takes for independent"
    if max(len(recipe.runs), len(reference.runs)) > 1:
        return "not made: a recipe has several runs"
    if positive is not None and min(np.sum(rows.target == positive), np.sum(rows.target != positive)) < 2:
        return "not made: it needs two cases and two others"
    return ""


def _correct(results: Sequence[Result]) -> list[Result]:
    """Fill in the corrected p-values: one family of all differences, and one of each second test."""
    adjusted = _holm_known([np.nan if one.difference is None else one.difference.p_value for one in results])
    families = [
        _holm_known([one.test.p_value if one.test is not None and one.test.name == name else np.nan for one in results])
        for name in (DELONG, MCNEMAR)
    ]
    return [
        replace(one, p_holm=p_value, test=None if one.test is None else replace(one.test, p_holm=second))
        for one, p_value, second in zip(results, adjusted, np.fmax(*families), strict=True)
    ]


def _holm_known(p_values: Sequence[float]) -> FloatArray:
    adjusted = np.array(p_values, dtype=np.float64)
    known = ~np.isnan(adjusted)
    adjusted[known] = holm(adjusted[known].tolist())
    return adjusted


def _cells(result: Result) -> dict[str, object]:
    value, test = result.value, result.test
    gap = untested(np.nan, "the reference") if result.difference is None else result.difference
    cells: dict[str, object] = {"recipe": result.recipe, "metric": result.metric, "runs": result.runs}
    cells |= {"value": value.value, "low": value.low, "high": value.high, "method": value.method}
    cells |= {"k": value.k, "n": value.n, "sd": result.sd}
    cells |= {"difference": gap.value, "difference_low": gap.low, "difference_high": gap.high}
    cells |= {"p": gap.p_value, "p_holm": result.p_holm, "smallest": gap.smallest, "difference_method": gap.method}
    return cells | _test_cells(NO_TEST if test is None else test)


def _test_cells(test: SecondTest) -> dict[str, object]:
    return {
        "test": test.name,
        "test_p": test.p_value,
        "test_p_holm": test.p_holm,
        "test_low": test.low,
        "test_high": test.high,
        "test_note": test.note,
    }
