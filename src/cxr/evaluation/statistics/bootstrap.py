"""Intervals of metrics from whole patients drawn again. Knows nothing of tables, files or pages.

The interval of a value is not the percentiles of its draws, which for an AUROC near 1 or a few dozen patients hold the
truth in 92% of samples instead of 95%. It is symmetric on the logit scale of the metric's range, as wide as the
standard deviation of the draws times Student's t for the patients behind it; so it never leaves the range. Behind a
proportion stand the patients of its denominator, behind another metric those of the smaller side of its class, or of
the smallest class: a hundred patients of whom ten are cases say no more of an AUROC than about ten do.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from scipy.stats import t as student

from cxr.evaluation.checks import BoolArray, FloatArray, IntArray, check_probs
from cxr.evaluation.metrics import (
    check_metric_names,
    classification_metrics,
    confusion_counts,
    mean_of_known,
    proportion_cells,
    study_map,
)
from cxr.evaluation.statistics.intervals import (
    CONFIDENCE,
    EXACT,
    SCORE,
    Interval,
    auroc_interval,
    exact_proportion,
    no_interval,
)
from cxr.evaluation.statistics.resampling import draw_weights, number_groups
from cxr.evaluation.statistics.weighted import WeightedMetrics, rank, weighted_envelope

DEFINED_SHARE = 0.9  # of the draws, below which there is no interval
METHOD = "patient bootstrap"
_RANGE = (0.0, 1.0)
_CORRELATIONS = ("mcc", "cohen_kappa")
_TINY = 1e-12

Draws = dict[str, FloatArray]
Range = tuple[float, float]


def bootstrap_metrics(
    target: ArrayLike, probs: ArrayLike, groups: ArrayLike, class_names: list[str], draws: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Every metric of `classification_metrics` with its interval.

    A proportion of 0 or 1, whose draws are all the same, has the exact interval instead, of as many trials as there are
    patients among its rows; an AUROC of 0 or 1 has Newcombe's score interval, of patients as well.

    Args:
        target: (N,) class indices in [0, K).
        probs: (N, K) probabilities.
        groups: (N,) ids of patients, whose rows stand or fall together.
        class_names: The K names in order.
        draws: Bootstrap samples, at least 1000.
        seed: Of the samples.

    Returns:
        Name -> value with interval, k and n where it is a share of rows. There is no interval, and a reason instead,
        where the value is nan, where fewer than 90% of the draws can measure it, and where none of them differs.

    Raises:
        DataError: Shapes or values do not fit, or too few draws.
    """
    names = classification_metrics(target, probs, class_names).keys()
    found = resample_metrics(target, probs, groups, class_names, names, draws=draws, seed=seed)
    return metric_intervals(target, probs, groups, class_names, found)


def resample_metrics(
    target: ArrayLike,
    probs: ArrayLike,
    groups: ArrayLike,
    class_names: list[str],
    names: Collection[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Draws:
    """Metrics of bootstrap samples of whole patients.

    The same groups and seed give the same samples: subtract the draws of two models, and the differences are paired.

    Args:
        target: (N,) class indices in [0, K).
        probs: (N, K) probabilities.
        groups: (N,) ids of patients.
        class_names: The K names in order.
        names: Of metrics of `classification_metrics`.
        draws: Samples, at least 1000.
        seed: Of the samples.

    Returns:
        Name -> (draws,), nan where a sample cannot measure it.

    Raises:
        DataError: Shapes or values do not fit, an unknown metric, or too few draws.
    """
    return resample_parts(target, probs, groups, class_names, names, [slice(None)], draws=draws, seed=seed)[0]


def resample_parts(
    target: ArrayLike,
    probs: ArrayLike,
    groups: ArrayLike,
    class_names: list[str],
    names: Collection[str],
    parts: Sequence[BoolArray | slice],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> list[Draws]:
    """Metrics of parts of the rows in the same bootstrap samples, whose patients are drawn from all rows.

    Args:
        target: (N,) class indices in [0, K).
        probs: (N, K) probabilities.
        groups: (N,) ids of patients.
        class_names: The K names in order.
        names: Of metrics of `classification_metrics`.
        parts: Which rows to measure, each (N,) with a row at least; parts may overlap.
        draws: Samples, at least 1000.
        seed: Of the samples.

    Returns:
        For each part what `resample_metrics` returns.

    Raises:
        DataError: As `resample_metrics`.
    """
    target, probs = check_probs(target, probs, len(class_names))
    check_metric_names(names, class_names)
    numbers = number_groups(groups, len(target))
    measures = [WeightedMetrics(target[part], probs[part], class_names, names) for part in parts]
    found = [
        [metrics.measure(weights[part]) for metrics, part in zip(measures, parts, strict=True)]
        for weights in draw_weights(numbers, draws, seed)
    ]
    return [
        {name: np.concatenate([one[name] for one in chunks]) for name in names} for chunks in zip(*found, strict=True)
    ]


def metric_intervals(
    target: ArrayLike, probs: ArrayLike, groups: ArrayLike, class_names: list[str], found: Draws
) -> dict[str, Interval]:
    """The metrics whose draws `resample_metrics` made, with their intervals.

    Args:
        target: (N,) class indices in [0, K): the rows that were measured.
        probs: (N, K) probabilities.
        groups: (N,) ids of patients.
        class_names: The K names in order.
        found: Name -> draws.

    Raises:
        DataError: Shapes or values do not fit.
    """
    values = classification_metrics(target, probs, class_names)
    target, probs = check_probs(target, probs, len(class_names))
    numbers = number_groups(groups, len(target))
    preds = probs.argmax(axis=1)
    cells = proportion_cells(class_names)
    counts = confusion_counts(target, preds, len(class_names))
    intervals = {}
    for name, drawn in found.items():
        if name in cells:
            part, whole = cells[name]
            among = numbers[whole[target, preds]]
            intervals[name] = proportion_interval(int(counts[part].sum()), among, drawn)
        elif values[name] in (0, 1) and (positive := auroc_class(name, class_names)) is not None:
            intervals[name] = _extreme_auroc(values[name], numbers, target == positive)
        else:
            behind = patients_behind(name, target, numbers, class_names)
            intervals[name] = interval_of_draws(values[name], drawn, behind, metric_range(name))
    return intervals


def bootstrap_study_map(
    target: ArrayLike, probs: ArrayLike, groups: ArrayLike, class_names: list[str], draws: int = 1000, seed: int = 0
) -> Interval:
    """`study_map` with its interval.

    Args:
        target: (N,) class indices in [0, K), one for each study.
        probs: (N, K) probabilities.
        groups: (N,) ids of patients.
        class_names: The K names in order.
        draws: Bootstrap samples, at least 1000.
        seed: Of the samples.

    Raises:
        DataError: Shapes or values do not fit, or too few draws.
    """
    value = study_map(target, probs, class_names)
    target, probs = check_probs(target, probs, len(class_names))
    numbers = number_groups(groups, len(target))
    rankings = [rank(target == k, probs[:, k]) for k in range(len(class_names))]
    drawn = [
        mean_of_known(np.stack([weighted_envelope(ranking, weights) for ranking in rankings], axis=-1))
        for weights in draw_weights(numbers, draws, seed)
    ]
    behind = patients_behind("study_map", target, numbers, class_names)
    return interval_of_draws(value, np.concatenate(drawn), behind, _RANGE)


def proportion_interval(k: int, among: IntArray, drawn: FloatArray) -> Interval:
    """A share of rows, from its draws; the exact interval where it is 0 or 1.

    Args:
        k: Rows that count.
        among: (n,) groups of the rows that could count.
        drawn: (draws,) the share in bootstrap samples.
    """
    n, patients = len(among), len(np.unique(among))
    if n and k in (0, n):
        exact = exact_proportion(patients * k // n, patients)
        return Interval(k / n, exact.low, exact.high, f"{EXACT}, patients: {patients}", k, n)
    found = interval_of_draws(k / n if n else np.nan, drawn, patients, _RANGE)
    return Interval(found.value, found.low, found.high, found.method, k, n)


def resample_share(part: BoolArray, whole: BoolArray, groups: IntArray, draws: int, seed: int) -> FloatArray:
    """A share of rows in bootstrap samples of whole patients.

    Args:
        part: (N,) rows that count, all of them among `whole`.
        whole: (N,) rows that could count.
        groups: (N,) patients, numbered from 0.
        draws: Samples, at least 1000.
        seed: Of the samples.

    Returns:
        (draws,) nan where a sample has no row that could count.
    """
    sums = [(weights[part].sum(axis=0), weights[whole].sum(axis=0)) for weights in draw_weights(groups, draws, seed)]
    above, below = (np.concatenate(side) for side in zip(*sums, strict=True))
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)


def interval_of_draws(value: float, drawn: FloatArray, groups: int, limits: Range | None = None) -> Interval:
    """The interval of a value, from the same number in bootstrap samples.

    Args:
        value: Measured on all rows.
        drawn: (draws,) nan where a sample cannot measure it.
        groups: Patients behind the value.
        limits: The least and the greatest value possible; the interval is then symmetric on the logit scale.
    """
    known = drawn[~np.isnan(drawn)]
    reason = why_no_interval(value, known, len(drawn), groups)
    if reason is not None:
        return no_interval(value, reason)
    return bounded_interval(value, half_width(known, groups), limits, METHOD)


def bounded_interval(value: float, half: float, limits: Range | None, method: str) -> Interval:
    """An interval that is symmetric, and within a range symmetric on its logit scale.

    Args:
        value: What was measured.
        half: Half its width, before the range is minded.
        limits: The least and the greatest value possible.
        method: What the interval says of how it was made.
    """
    if limits is None:
        return Interval(value, value - half, value + half, method)
    low, high = limits
    place = (value - low) / (high - low)
    if not 0 < place < 1:
        return no_interval(value, "the value is at the end of its range")
    reach = half / (high - low) / (place * (1 - place)) * np.array([-1, 1])  # the slope of the logit there
    ends = low + (high - low) * expit(logit(place) + reach)
    return Interval(value, float(ends[0]), float(ends[1]), method)


def bootstrap_statistic(
    statistic: Callable[[IntArray], Mapping[str, float]],
    groups: ArrayLike,
    limits: Mapping[str, Range],
    draws: int = 1000,
    seed: int = 0,
    behind: int | None = None,
) -> dict[str, Interval]:
    """Numbers that no weights can express (a calibration slope, quantile bins), with their intervals.

    Args:
        statistic: (M,) rows, a row as often as it was drawn -> named numbers, nan where they cannot be measured.
        groups: (N,) ids of patients.
        limits: Name -> the least and the greatest value possible; a number without an entry has neither.
        draws: Bootstrap samples, at least 1000. The same as those of `bootstrap_metrics` with this seed.
        seed: Of the samples.
        behind: Patients that the numbers rest on; None takes all.

    Returns:
        Name -> value on all rows with interval.

    Raises:
        DataError: Groups that are missing, or too few draws.
    """
    numbers = number_groups(groups, len(np.asarray(groups)))
    rows = np.arange(len(numbers))
    values = statistic(rows)
    found = [
        statistic(np.repeat(rows, column)) for weights in draw_weights(numbers, draws, seed) for column in weights.T
    ]
    size = len(np.unique(numbers)) if behind is None else behind
    return {
        name: interval_of_draws(value, np.array([one[name] for one in found]), size, limits.get(name))
        for name, value in values.items()
    }


def spread(drawn: FloatArray, groups: int) -> float:
    """The standard error that the draws show, without the bootstrap's own shrinkage by (groups - 1) / groups."""
    if groups < 2:
        return float("nan")
    return float(np.std(drawn, ddof=1) * np.sqrt(groups / (groups - 1)))


def why_no_interval(value: float, known: FloatArray, draws: int, groups: int) -> str | None:
    """The reason why draws give no interval; None where they do.

    Args:
        value: Measured on all rows.
        known: The draws that could measure it.
        draws: How many there were.
        groups: Patients behind the value.
    """
    if np.isnan(value):
        return "not measurable on these rows"
    if len(known) < DEFINED_SHARE * draws:
        return f"measurable in only {len(known)} of {draws} bootstrap samples"
    if groups < 2:
        return "fewer than two patients"
    return "every bootstrap sample gives the same value" if np.ptp(known) < _TINY else None


def half_width(drawn: FloatArray, groups: int) -> float:
    """Half of a 95% interval that is symmetric about the value; nan with fewer than two patients behind it."""
    return float(student.ppf((1 + CONFIDENCE) / 2, groups - 1)) * spread(drawn, groups)


def patients_behind(name: str, target: IntArray, groups: IntArray, class_names: list[str]) -> int:
    """How many patients a metric of `classification_metrics` rests on.

    Args:
        name: Of the metric.
        target: (N,) class indices in [0, K).
        groups: (N,) patients.
        class_names: The K names in order.

    Returns:
        All for an accuracy; for a metric of one class the patients of that class or of the others, if these are
        fewer; else the patients of the smallest class that has any.
    """
    if name in ("accuracy", "f1_micro"):
        return len(np.unique(groups))
    owners = [k for k, label in enumerate(class_names) if label == name.partition("/")[2]]
    sides = [target == k for k in owners] + [target != k for k in owners]
    sides = sides if sides else [target == k for k in range(len(class_names))]
    return min((len(np.unique(groups[side])) for side in sides if side.any()), default=0)


def auroc_class(name: str, class_names: list[str]) -> int | None:
    """Whose AUROC the metric is; None where it is something else, or a mean over classes."""
    if name == "auroc" and len(class_names) == 2:
        return 1
    owners = [k for k, label in enumerate(class_names) if name == f"auroc/{label}"]
    return owners[0] if owners else None


def metric_range(name: str) -> Range:
    """The least and the greatest value that a metric of `classification_metrics` can have."""
    return (-1.0, 1.0) if name in _CORRELATIONS else _RANGE


def _extreme_auroc(value: float, groups: IntArray, positive: BoolArray) -> Interval:
    cases, others = (len(np.unique(groups[part])) for part in (positive, ~positive))
    return Interval(value, *auroc_interval(value, cases, others), f"{SCORE}, patients: {cases} and {others}")
