"""Whether acting on a model helps more than treating all or none, at every threshold probability.

Knows nothing of files, intervals or how the probabilities were made.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxr.errors import DataError
from cxr.evaluation.checks import FloatArray, check_outcomes

THRESHOLDS: tuple[float, ...] = tuple((np.arange(1, 100) / 100).tolist())


def decision_curve(positive: ArrayLike, prob: ArrayLike, thresholds: ArrayLike = THRESHOLDS) -> pd.DataFrame:
    """Net benefit of the model beside that of treating all and none, at the prevalence of these rows.

    Args:
        positive: (N,) outcomes, yes or no.
        prob: (N,) calibrated probability of yes.
        thresholds: (T,) probabilities from 0 to under 1 at which one would just treat.

    Returns:
        T rows: threshold, model, treat_all, treat_none.

    Raises:
        DataError: Shapes or values do not fit.
    """
    odds = _odds(thresholds)
    share = float(np.mean(check_outcomes(positive, prob)[0]))
    return pd.DataFrame(
        {
            "threshold": np.asarray(thresholds, dtype=np.float64),
            "model": net_benefit(positive, prob, thresholds),
            "treat_all": share - (1 - share) * odds,
            "treat_none": 0.0,
        }
    )


def net_benefit(positive: ArrayLike, prob: ArrayLike, thresholds: ArrayLike = THRESHOLDS) -> FloatArray:
    """True positives less false positives, per row, these weighed by the odds of the threshold.

    Vickers and Elkin 2006, Medical Decision Making 26:565: TP / N - FP / N * t / (1 - t), where those with a
    probability of t or more are treated. Its unit is true positives per person, without any harm of a false one.

    Args:
        positive: (N,) outcomes, yes or no.
        prob: (N,) calibrated probability of yes.
        thresholds: (T,) probabilities from 0 to under 1.

    Returns:
        (T,) net benefits, at most the prevalence.

    Raises:
        DataError: Shapes or values do not fit.
    """
    positive, prob = check_outcomes(positive, prob)
    odds = _odds(thresholds)
    tp, fp = (len(rows) - np.searchsorted(np.sort(rows), thresholds) for rows in (prob[positive], prob[~positive]))
    return np.asarray(tp / len(prob) - fp / len(prob) * odds)


def _odds(thresholds: ArrayLike) -> FloatArray:
    values = np.asarray(thresholds, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values < 1)).all():
        raise DataError(f"expected thresholds (T,) from 0 to under 1, got {values.tolist()}; 0.1 is a risk of 10%")
    return values / (1 - values)
