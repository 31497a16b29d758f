"""What changes to the images cost a model: metrics under each change beside those without. Knows nothing of images.

A change that leaves a finding visible should leave the answer as it is; where it does not, another hospital's images
may do the same.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.evaluation.statistics.bootstrap import metric_intervals, resample_metrics
from cxr.evaluation.statistics.paired import paired_differences
from cxr.evaluation.statistics.resampling import patient_groups

METRICS = ("auroc", "balanced_accuracy")
UNCHANGED = ("none", "")

Probs = NDArray[np.float64]
Change = tuple[str, str]


def measure_stress(
    predictions: pd.DataFrame, changed: Mapping[Change, Probs], class_names: list[str], draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Metrics under each change, and how far they moved, with 95% intervals by paired bootstrap of patients.

    Args:
        predictions: N rows of a predictions table: what the model says of the images as they are.
        changed: (kind, strength) -> (N, K) probabilities for the same rows under that change.
        class_names: The K names in order.
        draws: Bootstrap samples, at least 1000.
        seed: Of the samples.

    Returns:
        One row without change, then one per change: change, strength, for each of `METRICS` its value, `_low`, `_high`
        and (nan in the first row) `_lost`, `_lost_low`, `_lost_high`; `n` rows and `moved`, those whose most probable
        class is another than without the change.

    Raises:
        DataError: Shapes or values do not fit, or too few draws.
    """
    target = predictions["target"].to_numpy(dtype=np.int64)
    probs = predictions[[f"prob_{k}" for k in range(len(class_names))]].to_numpy(dtype=np.float64)
    groups = patient_groups(predictions)
    rows = []
    for change, values in {UNCHANGED: probs, **changed}.items():
        found = resample_metrics(target, values, groups, class_names, METRICS, draws=draws, seed=seed)
        intervals = metric_intervals(target, values, groups, class_names, found)
        cells: dict[str, object] = {"change": change[0], "strength": change[1]}
        lost = paired_differences(target, probs, values, groups, class_names, METRICS, draws=draws, seed=seed)
        for name in METRICS:
            one, fall = intervals[name], lost[name]
            cells |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
            cells |= {f"{name}_lost": fall.value, f"{name}_lost_low": fall.low, f"{name}_lost_high": fall.high}
        moved = int((values.argmax(axis=1) != probs.argmax(axis=1)).sum())
        rows.append({**cells, "moved": moved, "n": len(target)})
    return pd.DataFrame(rows)
