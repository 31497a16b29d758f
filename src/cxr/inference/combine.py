"""Probabilities of several models -> one table: votes, a learnt mixture, and one-against-the-rest.

Numpy alone. Knows nothing of models, of files, or of how weights are found. In no rule does the order of the members
matter, as long as their weights go with them; in one-against-the-rest it is the order of the classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr.errors import ConfigError
from cxr.scaling import softmax

Floats = npt.NDArray[np.float64]

_LEAST_PROB = 1e-12
ONE_VS_REST = ("one_vs_rest", "one_vs_rest_vote")
"""Rules whose member k tells class k from all others."""
WINNER_DEFINED = (*ONE_VS_REST, "majority")
"""Rules that say which class wins; a bias would let another one win."""


def soft_vote(probs: npt.ArrayLike, weights: Sequence[float] | None = None) -> Floats:
    """The weighted mean of the members' probabilities.

    Args:
        probs: (M, N, K) of M members for N images and K classes.
        weights: (M,) from 0, not all 0; only their proportions count. None: all the same.

    Returns:
        (N, K) probabilities.

    Raises:
        ConfigError: Weights that are not so.
    """
    tables = _checked(probs)
    shares = np.ones(len(tables)) if weights is None else np.asarray(weights, dtype=np.float64)
    if shares.shape != (len(tables),) or not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() == 0:
        raise ConfigError(
            f"expected one weight from 0 for each of {len(tables)} members, and not all 0, got {weights}; give one "
            "number per member"
        )
    return np.tensordot(shares / shares.sum(), tables, axes=1)


def majority_vote(probs: npt.ArrayLike) -> Floats:
    """Each member names its most probable class (of equal ones the first), and most votes win.

    Where classes have as many votes, the one with the highest mean probability wins (of equal ones the first): the
    probability of a class is its votes plus its mean probability, over M + 1. A mean probability is never 1 ahead of
    one with more votes, so it decides between equal votes and nothing else.

    Args:
        probs: (M, N, K) of M members for N images and K classes.

    Returns:
        (N, K) probabilities.
    """
    tables = _checked(probs)
    votes = np.eye(tables.shape[2])[tables.argmax(axis=2)].sum(axis=0)
    return np.asarray((votes + tables.mean(axis=0)) / (len(tables) + 1))


def stack(
    probs: npt.ArrayLike, coefficients: Sequence[Sequence[float]] | Floats, intercepts: Sequence[float] | Floats
) -> Floats:
    """A multinomial logistic regression on the logarithms of the members' probabilities (Wolpert 1992).

    Args:
        probs: (M, N, K) of M members for N images and K classes.
        coefficients: (K, M * K), those of the first member first; they must come from images that no member learnt.
        intercepts: (K,).

    Returns:
        (N, K) probabilities.

    Raises:
        ConfigError: Coefficients of another number.
    """
    tables = _checked(probs)
    members, _, classes = tables.shape
    slopes, constants = np.asarray(coefficients, dtype=np.float64), np.asarray(intercepts, dtype=np.float64)
    if slopes.shape != (classes, members * classes) or constants.shape != (classes,):
        raise ConfigError(
            f"expected {classes} x {members * classes} coefficients and {classes} intercepts, got {slopes.shape} and "
            f"{constants.shape}; fit the stack on these members"
        )
    return softmax(log_features(tables) @ slopes.T + constants)


def one_vs_rest(probs: npt.ArrayLike) -> Floats:
    """The share of each class in the sum of what its own net says.

    Args:
        probs: (K, N, 2): net k tells class k (second column) from all others (first).

    Returns:
        (N, K) probabilities; 1/K where every net is certain that it is not its class.

    Raises:
        ConfigError: Nets of other than two classes.
    """
    yes = _answers(probs)
    total = yes.sum(axis=1, keepdims=True)
    return np.where(total > 0, yes / np.where(total > 0, total, 1), 1 / yes.shape[1])


def one_vs_rest_vote(probs: npt.ArrayLike) -> Floats:
    """The class whose net says yes, with at least 0.5.

    Where several or all say yes the most certain of them wins, and where none does the most certain of all. So the
    class is that of `one_vs_rest`, always; the probability is another one: the votes of a class plus its share there,
    over the number of votes + 1.

    Args:
        probs: (K, N, 2), see `one_vs_rest`.

    Returns:
        (N, K) probabilities.

    Raises:
        ConfigError: Nets of other than two classes.
    """
    votes = _answers(probs) >= 0.5
    return np.asarray((votes + one_vs_rest(probs)) / (votes.sum(axis=1, keepdims=True) + 1))


RULES: dict[str, Callable[..., Floats]] = {
    "soft": soft_vote,
    "majority": majority_vote,
    "stack": stack,
    "one_vs_rest": one_vs_rest,
    "one_vs_rest_vote": one_vs_rest_vote,
}


@dataclass(frozen=True)
class Rule:
    """A rule and its settings as plain values, so that it can be stored.

    Args:
        name: A key of `RULES`.
        settings: Its arguments beside `probs`.

    Raises:
        ConfigError: No rule has this name.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ConfigError(f"expected a rule among {', '.join(RULES)}, got {self.name!r}; choose one of these")

    def __call__(self, probs: npt.ArrayLike) -> Floats:
        """(N, K) probabilities of the members' (M, N, K); see the functions of `RULES`."""
        return RULES[self.name](probs, **self.settings)


def order_classes(rule: str, class_names: Sequence[str], of_members: Sequence[Sequence[str]]) -> list[list[int]]:
    """Which columns of each member's table make the (M, N, K) of a rule.

    Args:
        rule: A key of `RULES`.
        class_names: The K names in order.
        of_members: Those of each member, in its own order; in one-against-the-rest two, one of them its class.

    Raises:
        ConfigError: Members of other classes, or not one net per class.
    """
    if rule not in ONE_VS_REST:
        return [_find_columns(class_names, names) for names in of_members]
    if len(of_members) != len(class_names) or any(len(names) != 2 for names in of_members):
        raise ConfigError(
            f"expected one net of two classes for each of {', '.join(class_names)}, got {len(of_members)} with "
            f"{[len(names) for names in of_members]} classes; train them by plan=ovr"
        )
    own = [_find_columns([name], names)[0] for name, names in zip(class_names, of_members, strict=True)]
    return [[1 - column, column] for column in own]


def to_logits(probs: npt.ArrayLike) -> Floats:
    """Logarithms, whose softmax gives the probabilities back; 0 counts as 1e-12."""
    return np.log(np.maximum(np.asarray(probs, dtype=np.float64), _LEAST_PROB))


def log_features(tables: Floats) -> Floats:
    """(M, N, K) probabilities as (N, M * K) logarithms, those of the first member first."""
    return to_logits(tables).transpose(1, 0, 2).reshape(tables.shape[1], -1)


def _find_columns(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    if not set(wanted) <= set(names) or 1 < len(wanted) != len(names):
        raise ConfigError(
            f"expected members of the classes {', '.join(wanted)}, in any order, got one of {', '.join(names)}; "
            "combine models of the same classes"
        )
    return [list(names).index(name) for name in wanted]


def _checked(probs: npt.ArrayLike) -> Floats:
    tables = np.asarray(probs, dtype=np.float64)
    if tables.ndim != 3 or len(tables) == 0:
        raise ConfigError(
            f"expected probabilities of shape (members, images, classes), got {tables.shape}; stack the members' tables"
        )
    return tables


def _answers(probs: npt.ArrayLike) -> Floats:
    """(N, K) what each net says of its own class."""
    tables = _checked(probs)
    if tables.shape[2] != 2:
        raise ConfigError(
            f"expected nets that tell one class from the rest, got {tables.shape[2]} classes; choose another rule"
        )
    return tables[:, :, 1].T
