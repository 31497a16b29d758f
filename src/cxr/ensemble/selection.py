"""Weights of members by greedy selection. Numpy alone; knows nothing of what the members are.

What is chosen on rows is a little too good on the same rows: choose on validation, measure elsewhere.
"""

import numpy as np
import numpy.typing as npt

from cxr.evaluation.checks import check_probs

ROUNDS = 50
_LEAST_PROB = 1e-12


def select_weights(probs: npt.ArrayLike, target: npt.ArrayLike, rounds: int = ROUNDS) -> npt.NDArray[np.float64]:
    """Greedy selection with replacement (Caruana et al. 2004, "Ensemble selection from libraries of models").

    Round by round the member is added whose addition gives the mean probability the least log loss (of equal ones the
    first); a member may come again. The weights are those after the best round, of equally good ones the first, so
    the result is never worse on these rows than the best single member.

    Args:
        probs: (M, N, K) of M members for N images and K classes.
        target: (N,) class indices.
        rounds: How many members to add, 1 or more.

    Returns:
        (M,) weights that sum to 1.

    Raises:
        DataError: Shapes or values do not fit.
    """
    tables = np.asarray(probs, dtype=np.float64)
    classes = check_probs(target, tables[0])[0]
    right = tables[:, np.arange(len(classes)), classes]
    added: list[int] = []
    losses: list[float] = []
    total = np.zeros(len(classes))
    for size in range(1, rounds + 1):
        candidates = -np.log(np.maximum((total + right) / size, _LEAST_PROB)).mean(axis=1)
        best = int(candidates.argmin())
        added.append(best)
        losses.append(float(candidates[best]))
        total = total + right[best]
    chosen = added[: int(np.argmin(losses)) + 1]
    return np.bincount(chosen, minlength=len(tables)) / len(chosen)
