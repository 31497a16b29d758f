"""A number with its 95% interval, and intervals that need no resampling. Knows nothing of metrics or tables."""

import math
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from cxr.errors import DataError

CONFIDENCE = 0.95
EXACT = "Clopper-Pearson"
SCORE = "Newcombe score"
_TINY = 1e-9


@dataclass(frozen=True)
class Interval:
    """A measured value and its 95% interval.

    Attributes:
        value: What was measured; nan where it could not be.
        low: Lower end; nan where there is no interval.
        high: Upper end; nan where there is none.
        method: How the interval was made, or why there is none.
        k: Numerator of a proportion.
        n: Denominator of a proportion.
    """

    value: float
    low: float
    high: float
    method: str
    k: int | None = None
    n: int | None = None


def no_interval(value: float, reason: str, k: int | None = None, n: int | None = None) -> Interval:
    """A value of which no honest interval can be given.

    Args:
        value: What was measured.
        reason: Why it has none.
        k: Numerator of a proportion.
        n: Denominator of a proportion.
    """
    return Interval(value, math.nan, math.nan, reason, k, n)


def exact_proportion(k: int, n: int) -> Interval:
    """k of n independent rows, with the interval of Clopper and Pearson (1934, Biometrika 26:404).

    It covers at least 95%, and has a width also at 0 and 1.

    Args:
        k: Rows that count, from 0 to n.
        n: Rows; of 0 rows there is neither value nor interval.

    Raises:
        DataError: k is not from 0 to n.
    """
    if not 0 <= k <= n:
        raise DataError(f"expected k from 0 to n, got k = {k} and n = {n}; count the part among the whole")
    if n == 0:
        return no_interval(math.nan, "no rows", k, n)
    found = binomtest(k, n).proportion_ci(CONFIDENCE, method="exact")
    return Interval(k / n, float(found.low), float(found.high), EXACT, k, n)


def auroc_interval(auroc: float, positives: int, negatives: int) -> tuple[float, float]:
    """The score interval of an AUROC: Newcombe 2006, Statistics in Medicine 25:559, method 5.

    It needs no resampling and does not shrink to a point where every pair is ordered rightly.

    Args:
        auroc: From 0 to 1.
        positives: Rows of the class.
        negatives: Other rows.
    """
    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    half = (positives + negatives) / 2 - 1

    def excess(value: float) -> float:
        spread = 1 + half * ((1 - value) / (2 - value) + value / (1 + value))
        return (auroc - value) ** 2 - z**2 * value * (1 - value) * spread / (positives * negatives)

    inner = min(max(auroc, _TINY), 1 - _TINY)  # 0 and 1 solve the equation, whatever was found
    low = 0.0 if auroc <= 0 else brentq(excess, 0.0, inner)
    high = 1.0 if auroc >= 1 else brentq(excess, inner, 1.0)
    return float(low), float(high)
