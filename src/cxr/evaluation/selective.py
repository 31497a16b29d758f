"""Answering only where the model is sure: how many cases it still answers (coverage), and how many of these are wrong.

Confidence is the largest probability of a row, calibrated or not; risk is the share of wrong answers among the rows
that are answered. A threshold chosen here keeps its promise on the rows it was chosen on; for others it is an
estimate. Knows nothing of files, intervals or how the probabilities were made.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxr.errors import DataError
from cxr.evaluation.calibration import of_top_label
from cxr.evaluation.thresholds import candidate_thresholds


@dataclass(frozen=True)
class Answers:
    """What a confidence threshold gives on some rows.

    Attributes:
        n: All rows, 1 or more.
        kept: Rows that are answered.
        errors: Of these, the wrong ones.
    """

    n: int
    kept: int
    errors: int

    @property
    def coverage(self) -> float:
        """kept / n."""
        return self.kept / self.n

    @property
    def risk(self) -> float:
        """errors / kept; nan where nothing is answered."""
        return self.errors / self.kept if self.kept else float("nan")


@dataclass(frozen=True)
class AbstentionPoint:
    """From which confidence on a row is answered, and what that gave where it was chosen.

    Attributes:
        rule: How it was chosen, for example ``risk <= 0.05``.
        threshold: A row is answered where its confidence is at least this.
        chosen_on: The part of the split, for example val.
        answers: The rows there.
    """

    rule: str
    threshold: float
    chosen_on: str
    answers: Answers

    def apply(self, target: ArrayLike, probs: ArrayLike) -> Answers:
        """What the same threshold gives on other rows; see `count_answers`."""
        return count_answers(target, probs, self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        there = self.answers
        measured = {"coverage": there.coverage, "risk": there.risk}
        counts = {"n": there.n, "kept": there.kept, "errors": there.errors}
        return {"rule": self.rule, "threshold": self.threshold, "chosen_on": self.chosen_on, **measured, **counts}


def risk_coverage_curve(target: ArrayLike, probs: ArrayLike) -> pd.DataFrame:
    """Risk at every coverage that a confidence threshold can give (Geifman and El-Yaniv 2017).

    Args:
        target: (N,) class indices.
        probs: (N, K) probabilities.

    Returns:
        One row per different confidence, from the fewest rows answered to all: threshold, coverage, risk, kept, errors.
        Rows of equal confidence are answered together.

    Raises:
        DataError: Shapes or values do not fit.
    """
    correct, confidence = of_top_label(target, probs)
    thresholds = candidate_thresholds(confidence)[-2::-1]
    kept = len(confidence) - np.searchsorted(np.sort(confidence), thresholds)
    errors = (~correct).sum() - np.searchsorted(np.sort(confidence[~correct]), thresholds)
    columns = {"threshold": thresholds, "coverage": kept / len(correct), "risk": errors / kept}
    return pd.DataFrame({**columns, "kept": kept, "errors": errors})


def area_under_risk_coverage(target: ArrayLike, probs: ArrayLike) -> float:
    """Mean risk over the coverages 1/N, 2/N, ... 1 (AURC); small where the errors are the unsure ones.

    Geifman, Uziel and El-Yaniv 2019. Rows of equal confidence are taken in random order, and this is the mean over all
    orders. At random confidence it is the error rate.

    Args:
        target: (N,) class indices.
        probs: (N, K) probabilities.

    Raises:
        DataError: Shapes or values do not fit.
    """
    correct, confidence = of_top_label(target, probs)
    _, group = np.unique(-confidence, return_inverse=True)
    error_rate = np.bincount(group, ~correct) / np.bincount(group)
    risks = np.cumsum(error_rate[np.sort(group)]) / np.arange(1, len(correct) + 1)
    return float(risks.mean())


def choose_by_risk(target: ArrayLike, probs: ArrayLike, risk: float, chosen_on: str = "val") -> AbstentionPoint:
    """The threshold that answers the most rows with at most a wanted risk.

    Args:
        target: (N,) class indices.
        probs: (N, K) probabilities.
        risk: From 0 to 1.
        chosen_on: The part of the split that the rows are.

    Raises:
        DataError: Shapes or values do not fit, or no coverage has so small a risk.
    """
    _check_wanted(risk, "risk")
    curve = risk_coverage_curve(target, probs)
    within = curve[curve["risk"] <= risk]
    if within.empty:
        least = f"{curve['risk'].min():.4g}"
        raise DataError(f"expected a risk of at most {risk} at some coverage, got {least} or more; accept a larger one")
    return _make_point(f"risk <= {risk}", chosen_on, within.iloc[-1], n=int(curve["kept"].iloc[-1]))


def choose_by_coverage(target: ArrayLike, probs: ArrayLike, coverage: float, chosen_on: str = "val") -> AbstentionPoint:
    """The highest threshold that answers at least a wanted share of the rows.

    Args:
        target: (N,) class indices.
        probs: (N, K) probabilities.
        coverage: From 0 to 1.
        chosen_on: The part of the split that the rows are.

    Raises:
        DataError: Shapes or values do not fit.
    """
    _check_wanted(coverage, "coverage")
    curve = risk_coverage_curve(target, probs)
    row = curve[curve["coverage"] >= coverage].iloc[0]
    return _make_point(f"coverage >= {coverage}", chosen_on, row, n=int(curve["kept"].iloc[-1]))


def count_answers(target: ArrayLike, probs: ArrayLike, threshold: float) -> Answers:
    """How many rows a threshold answers, and how many of them wrong.

    Raises:
        DataError: Shapes or values do not fit.
    """
    correct, confidence = of_top_label(target, probs)
    answered = confidence >= threshold
    return Answers(len(correct), int(answered.sum()), int((answered & ~correct).sum()))


def _make_point(rule: str, chosen_on: str, row: "pd.Series[float]", n: int) -> AbstentionPoint:
    answers = Answers(n, int(row["kept"]), int(row["errors"]))
    return AbstentionPoint(rule, float(row["threshold"]), chosen_on, answers)


def _check_wanted(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise DataError(f"expected a {name} from 0 to 1, got {value}; 0.1 is 10%")
