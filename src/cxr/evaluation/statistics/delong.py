"""AUROCs of several scores on the same independent rows, with their covariance. Knows nothing of patients or tables.

DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837, by the ranks of Sun and Xu 2014, IEEE Signal Processing
Letters 21:1389.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from cxr.errors import DataError
from cxr.evaluation.checks import BoolArray, FloatArray
from cxr.evaluation.statistics.difference import Difference, untested
from cxr.evaluation.statistics.intervals import CONFIDENCE, SCORE, Interval, auroc_interval

METHOD = "DeLong"
_TINY = 1e-9


@dataclass(frozen=True)
class Aurocs:
    """AUROCs of M scores.

    Attributes:
        values: (M,).
        covariance: (M, M) of the values.
    """

    values: FloatArray
    covariance: FloatArray


def delong(positive: BoolArray, scores: FloatArray) -> Aurocs:
    """AUROCs and their covariance.

    Args:
        positive: (N,) whether a row is a case; the rows are independent, one for each patient.
        scores: (N, M) larger for what is taken for a case.

    Raises:
        DataError: Fewer than two cases or two other rows, without which there is no variance.
    """
    cases, others = int(positive.sum()), int((~positive).sum())
    if min(cases, others) < 2:
        raise DataError(f"expected two cases and two others for DeLong, got {cases} and {others}; take more rows")
    overall = rankdata(scores, axis=0)
    beaten = (overall[positive] - rankdata(scores[positive], axis=0)) / others
    lost = 1 - (overall[~positive] - rankdata(scores[~positive], axis=0)) / cases
    covariance = np.cov(beaten, rowvar=False) / cases + np.cov(lost, rowvar=False) / others
    return Aurocs(beaten.mean(axis=0), covariance.reshape(scores.shape[1], -1))


def delong_interval(positive: BoolArray, score: FloatArray) -> Interval:
    """The AUROC of one score with its 95% interval; Newcombe's score interval where DeLong's would have no width.

    Args:
        positive: (N,) whether a row is a case; the rows are independent.
        score: (N,) larger for what is taken for a case.

    Raises:
        DataError: Fewer than two cases or two other rows.
    """
    found = delong(positive, score[:, None])
    value, variance = float(found.values[0]), float(found.covariance[0, 0])
    if variance < _TINY**2:
        return Interval(value, *auroc_interval(value, int(positive.sum()), int((~positive).sum())), SCORE)
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * variance**0.5
    return Interval(value, max(value - half, 0.0), min(value + half, 1.0), METHOD)


def delong_difference(positive: BoolArray, first: FloatArray, second: FloatArray) -> Difference:
    """How much larger the AUROC of the first score is, with DeLong's interval and test.

    Args:
        positive: (N,) whether a row is a case; the rows are independent.
        first: (N,) larger for what is taken for a case.
        second: (N,) the other score of the same rows.

    Raises:
        DataError: Fewer than two cases or two other rows.
    """
    found = delong(positive, np.stack([first, second], axis=1))
    contrast = np.array([1, -1])
    error = float(np.sqrt(max(contrast @ found.covariance @ contrast, 0.0)))
    value = float(contrast @ found.values)
    if error < _TINY:
        return untested(value, "no variance: no pair of a case and another row tells the scores apart")
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * error
    p_value = float(2 * norm.sf(abs(value) / error))
    return Difference(value, value - half, value + half, p_value, error, METHOD)
