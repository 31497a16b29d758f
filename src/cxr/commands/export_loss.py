"""What a graph says of images beside what it should say: the largest difference, and what that does to answers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from cxr.errors import WeightsError
from cxr.imaging.preprocess import Stored
from cxr.inference.predictor import Predictor
from cxr.inference.verdict import list_points

ALLOWED = 1e-4
"""How far a probability of a float graph may be from the run's own."""

Probs = NDArray[np.float64]
Ask = Callable[[tuple[Stored, ...]], Probs]
"""A batch for each preprocessing -> probabilities (B, K)."""


def ask_all(ask: Ask, batches: Iterable[tuple[Stored, ...]]) -> Probs:
    """The (N, K) probabilities of all batches."""
    return np.concatenate([ask(batch) for batch in batches])


def ask_both(first: Ask, second: Ask, batches: Iterable[tuple[Stored, ...]]) -> tuple[Probs, Probs]:
    """The same of two that see the same images, each read once."""
    found = [(first(batch), second(batch)) for batch in batches]
    return np.concatenate([one for one, _ in found]), np.concatenate([other for _, other in found])


def check_parity(found: Probs, wanted: Probs, what: str) -> float:
    """The largest difference of two tables (N, K).

    Args:
        found: What the graph says.
        wanted: What it should say; nan where that is not stated, so that whatever is found there is right.
        what: Where the second comes from, for the message.

    Raises:
        WeightsError: It is larger than ALLOWED or no number, or nothing is stated.
    """
    stated = ~np.isnan(wanted)
    largest = float(np.abs(found - wanted)[stated].max()) if stated.any() else np.nan
    if not largest <= ALLOWED:
        raise WeightsError(
            f"expected probabilities within {ALLOWED:g} of {what}, got a difference of {largest:.2g}, so nothing is "
            "exported; give the data, and for a run that an earlier version trained, train it again"
        )
    return largest


@dataclass(frozen=True)
class Loss:
    """What another arithmetic costs, held against the float graph on the same images.

    Attributes:
        n: Images.
        largest: Difference of a probability.
        mean: Difference of all probabilities.
        auroc: Of the float graph and of the other one, mean over classes or targets; None where not defined.
        other_answers: Images that get another answer.
        other_decisions: Images with another decision at the operating point; None where there is none.
    """

    n: int
    largest: float
    mean: float
    auroc: tuple[float, float] | None
    other_answers: int
    other_decisions: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        auroc = None if self.auroc is None else {"float": self.auroc[0], "export": self.auroc[1]}
        return {"n": self.n, "largest": self.largest, "mean": self.mean, "auroc": auroc,
                "other_answers": self.other_answers, "other_decisions": self.other_decisions}  # fmt: skip


def measure_loss(predictor: Predictor, plain: Probs, found: Probs, targets: Probs) -> Loss:
    """Hold one table of probabilities against another.

    Args:
        predictor: Whose classes and operating point count.
        plain: (N, K) of the float graph.
        found: (N, K) of the other one.
        targets: (N, K) 1, 0, or nan where not stated.
    """
    differences = np.abs(found - plain)
    areas = _mean_auroc(plain, targets), _mean_auroc(found, targets)
    answers = [[predictor.name(row) for row in table] for table in (plain, found)]
    return Loss(
        n=len(plain),
        largest=float(differences.max()),
        mean=float(differences.mean()),
        auroc=None if areas[0] is None or areas[1] is None else (areas[0], areas[1]),
        other_answers=sum(one != other for one, other in zip(*answers, strict=True)),
        other_decisions=_count_decisions(predictor, plain, found),
    )


def _mean_auroc(probs: Probs, targets: Probs) -> float | None:
    """Mean over the classes that have images of both kinds."""
    pairs = [(column[~np.isnan(column)], probs[~np.isnan(column), k]) for k, column in enumerate(targets.T)]
    areas = [roc_auc_score(target, score) for target, score in pairs if len(np.unique(target)) == 2]
    return float(np.mean(areas)) if areas else None


def _count_decisions(predictor: Predictor, plain: Probs, found: Probs) -> int | None:
    points = list_points(predictor)
    if not points:
        return None
    thresholds = np.array([points.get(name, np.inf) for name in predictor.class_names])
    return int(((plain >= thresholds) != (found >= thresholds)).any(axis=1).sum())
