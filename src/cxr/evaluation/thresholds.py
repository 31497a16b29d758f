"""Thresholds between scores: all that tell rows apart, none that stands on a score. Knows nothing of outcomes."""

import numpy as np

from cxr.evaluation.checks import FloatArray


def candidate_thresholds(score: FloatArray) -> FloatArray:
    """Every way to divide scores by ``score >= threshold``.

    A threshold lies half way between two neighbouring scores, so that the last digits of a score, which differ between
    devices, do not decide.

    Args:
        score: (N,) finite scores with M different values.

    Returns:
        (M + 1,) ascending: the least score, at which all rows are kept, half ways, and a number just above the
        greatest score, at which none is.
    """
    values = np.unique(score)
    middle = values[:-1] / 2 + values[1:] / 2
    middle = np.where(middle > values[:-1], middle, values[1:])
    return np.concatenate([values[:1], middle, [np.nextafter(values[-1], np.inf)]])
