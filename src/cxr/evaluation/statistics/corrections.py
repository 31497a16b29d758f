"""P-values of many tests, corrected for their number. Knows nothing of what was tested."""

import numpy as np


def holm(p_values: list[float]) -> list[float]:
    """Adjust p-values so that a threshold on them bounds the chance of any false alarm (Holm 1979).

    Args:
        p_values: From 0 to 1, of tests that may depend on each other.
    """
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(np.minimum(np.asarray(p_values)[order] * factors, 1.0))
    return [float(p) for p in adjusted]
