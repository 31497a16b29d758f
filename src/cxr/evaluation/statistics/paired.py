"""Two models on the same rows: differences of their metrics. Knows nothing of tables, files or pages."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest
from scipy.stats import t as student

from cxr.errors import DataError
from cxr.evaluation.checks import BoolArray, FloatArray, check_probs
from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.statistics.bootstrap import patients_behind, resample_metrics, spread, why_no_interval
from cxr.evaluation.statistics.difference import Difference, untested
from cxr.evaluation.statistics.intervals import CONFIDENCE
from cxr.evaluation.statistics.resampling import number_groups

METHOD = "paired patient bootstrap"


@dataclass(frozen=True)
class McNemar:
    """Rows on which exactly one of two models is right.

    Attributes:
        only_first: Rows that only the first has right.
        only_second: Rows that only the second has right.
        p_value: Two-sided and exact, of both being as likely.
    """

    only_first: int
    only_second: int
    p_value: float


def paired_differences(
    target: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike,
    class_names: list[str],
    names: Collection[str],
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Difference]:
    """How much larger each metric of the first model is, from patients drawn again for both at once.

    Args:
        target: (N,) class indices in [0, K).
        first: (N, K) probabilities of the first model.
        second: (N, K) probabilities of the second, of the same rows.
        groups: (N,) ids of patients.
        class_names: The K names in order.
        names: Of metrics of `classification_metrics`.
        draws: Bootstrap samples, at least 1000.
        seed: Of the samples.

    Raises:
        DataError: Shapes or values do not fit, or too few draws.
    """
    indices, _ = check_probs(target, first, len(class_names))
    numbers = number_groups(groups, len(indices))
    values = [classification_metrics(indices, probs, class_names) for probs in (first, second)]
    found = [
        resample_metrics(indices, probs, numbers, class_names, names, draws=draws, seed=seed)
        for probs in (first, second)
    ]
    return {
        name: difference_of_draws(
            values[0][name] - values[1][name],
            found[0][name] - found[1][name],
            patients_behind(name, indices, numbers, class_names),
        )
        for name in names
    }


def difference_of_draws(value: float, drawn: FloatArray, groups: int) -> Difference:
    """A difference with interval and test, by its standard deviation over bootstrap samples and Student's t.

    Args:
        value: Measured on all rows.
        drawn: (draws,) the difference in each sample, nan where it cannot be measured.
        groups: Patients behind it.

    Returns:
        Where there is no interval, `method` says why.
    """
    known = drawn[~np.isnan(drawn)]
    reason = why_no_interval(value, known, len(drawn), groups)
    if reason is not None:
        return untested(value, reason)
    return difference_of_error(value, spread(known, groups), groups - 1, METHOD)


def difference_of_error(value: float, error: float, freedom: float, method: str) -> Difference:
    """A difference with interval and test, by Student's t.

    Args:
        value: Measured on all rows.
        error: Its standard error, above 0.
        freedom: Degrees of freedom of the error.
        method: What the difference says of how it was made.
    """
    half = float(student.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    p_value = float(2 * student.sf(abs(value) / error, freedom))
    return Difference(value, value - half, value + half, p_value, error, method)


def mcnemar(right_first: BoolArray, right_second: BoolArray) -> McNemar:
    """The exact test of two accuracies on the same independent rows (McNemar 1947, Psychometrika 12:153).

    Args:
        right_first: (N,) whether the first model has a row right.
        right_second: (N,) whether the second has.

    Raises:
        DataError: Lengths that differ.
    """
    if len(right_first) != len(right_second):
        lengths = f"{len(right_first)} and {len(right_second)}"
        raise DataError(f"expected two models on the same rows, got {lengths} rows; pass matching rows")
    only_first, only_second = int((right_first & ~right_second).sum()), int((right_second & ~right_first).sum())
    together = only_first + only_second
    p_value = float(binomtest(only_first, together).pvalue) if together else 1.0
    return McNemar(only_first, only_second, p_value)
