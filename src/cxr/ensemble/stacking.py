"""A learnt mixture of members. Knows nothing of what they are.

Not guaranteed: that the rows are such that no member learnt them. A member is too sure of what it learnt, and a mixture
fitted there trusts the member that learnt best by heart; `cxr.ensemble.members` looks after it.
"""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from cxr.errors import DataError
from cxr.evaluation.checks import check_probs
from cxr.inference.combine import Rule, log_features


def fit_stack(probs: npt.ArrayLike, target: npt.ArrayLike) -> Rule:
    """A multinomial logistic regression on the members' log probabilities (Wolpert 1992, "Stacked generalization").

    Args:
        probs: (M, N, K) of M members for N images, none of which a member learnt.
        target: (N,) class indices, each class at least once.

    Returns:
        The rule, its coefficients as plain numbers.

    Raises:
        DataError: Shapes or values do not fit, or a class is missing.
    """
    tables = np.asarray(probs, dtype=np.float64)
    classes = check_probs(target, tables[0])[0]
    missing = sorted(set(range(tables.shape[2])) - set(classes.tolist()))
    if missing:
        raise DataError(f"expected rows of every class to fit a stack on, got none of {missing}; use more rows")
    model = LogisticRegression(max_iter=10_000, tol=1e-8).fit(log_features(tables), classes)
    return Rule("stack", _for_each_class(model))


def _for_each_class(model: LogisticRegression) -> dict[str, list[float] | list[list[float]]]:
    """Of two classes scikit-learn keeps the second alone; against it the first has the score 0."""
    slopes, constants = model.coef_, model.intercept_
    if len(slopes) == 1:
        slopes, constants = np.vstack([np.zeros_like(slopes), slopes]), np.append(0.0, constants)
    return {"coefficients": slopes.tolist(), "intercepts": constants.tolist()}
