"""What targets and probabilities must be before anything is measured on them. Knows nothing of what is measured."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.errors import DataError

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def check_probs(target: ArrayLike, probs: ArrayLike, num_classes: int | None = None) -> tuple[IntArray, FloatArray]:
    """Targets (N,) and probabilities (N, K) as arrays.

    Args:
        target: (N,) class indices in [0, K), N >= 1.
        probs: (N, K) probabilities, K >= 2.
        num_classes: K, where it is known from elsewhere.

    Raises:
        DataError: Shapes or values do not fit.
    """
    values, indices = _check_finite(probs, "probabilities"), np.asarray(target)
    columns = values.shape[1] if values.ndim == 2 else 0
    if columns < 2 or indices.shape != values.shape[:1] or num_classes not in (None, columns):
        wanted = "K" if num_classes is None else num_classes
        got = f"targets {indices.shape} and probabilities {values.shape}"
        raise DataError(
            f"expected targets (N,) and probabilities (N, {wanted}) of 2 or more classes, got {got}; give one row per "
            "target and one column per class"
        )
    _check_range(values)
    return check_indices(indices, columns, "targets"), values


def check_indices(values: ArrayLike, num_classes: int, name: str) -> IntArray:
    """Class indices (N,) in [0, K) as an array; `name` is what the error calls them.

    Raises:
        DataError: They are not (N,), or an index is outside.
    """
    indices = np.asarray(values)
    if indices.ndim != 1 or not np.isin(indices, np.arange(num_classes)).all():
        seen = np.unique(indices)[:10].tolist()
        raise DataError(
            f"expected {name} (N,) to be class indices from 0 to {num_classes - 1}, got {seen}; use the class order"
        )
    return indices.astype(np.int64)


def check_outcomes(positive: ArrayLike, prob: ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Outcomes (N,) of yes or no and the probability (N,) of yes, as arrays.

    Raises:
        DataError: As `check_scores`, or a probability outside [0, 1].
    """
    outcomes, values = check_scores(positive, prob)
    _check_range(values)
    return outcomes, values


def check_scores(positive: ArrayLike, score: ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Outcomes (N,) of yes or no and a score (N,) of any range, larger where yes is more likely, as arrays.

    Raises:
        DataError: Lengths that differ, no rows, outcomes other than yes and no (1, 0), or a score that is not finite.
    """
    values, outcomes = _check_finite(score, "scores"), np.asarray(positive)
    if values.ndim != 1 or outcomes.shape != values.shape:
        got = f"{outcomes.shape} and {values.shape}"
        raise DataError(f"expected outcomes and scores of one length (N,), got {got}; pass one of each per row")
    if not np.isin(outcomes, (0, 1)).all():
        seen = np.unique(outcomes)[:10].tolist()
        raise DataError(f"expected outcomes to be yes or no (1 or 0), got {seen}; compare the target with one class")
    return outcomes.astype(np.bool_), values


def _check_finite(values: ArrayLike, name: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise DataError(f"expected at least one row of {name}, got none; evaluate a part of the split that has rows")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise DataError(f"expected finite {name}, got {bad} NaN or infinite; look for a diverged run")
    return array


def _check_range(probs: FloatArray) -> None:
    if probs.min() < 0 or probs.max() > 1:
        got = f"{probs.min():.4g} to {probs.max():.4g}"
        raise DataError(f"expected probabilities from 0 to 1, got {got}; give the outputs of a softmax")
