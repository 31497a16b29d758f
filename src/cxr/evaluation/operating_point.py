"""From which score on a case is called positive: chosen on one part of the split, applied unchanged to another.

Two outcomes, yes and no; of several classes one against the rest, ``target == k`` with ``probs[:, k]``. A row is called
positive where ``score >= threshold``. Knows nothing of files, of where scores come from, or of intervals.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from cxr.errors import ConfigError, DataError
from cxr.evaluation.checks import BoolArray, FloatArray, IntArray, check_scores
from cxr.evaluation.thresholds import candidate_thresholds

_NEARLY = 1e-12  # equal up to the last digits of a sum


@dataclass(frozen=True)
class Counts:
    """Right and wrong calls; a share of nothing is nan."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def n(self) -> int:
        """All rows."""
        return self.tp + self.fp + self.tn + self.fn

    @property
    def sensitivity(self) -> float:
        """tp / (tp + fn)."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """tn / (tn + fp)."""
        return _share(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> float:
        """tp / (tp + fp), at the prevalence of these rows."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def npv(self) -> float:
        """tn / (tn + fn), at the prevalence of these rows."""
        return _share(self.tn, self.tn + self.fn)

    def shares(self) -> dict[str, tuple[int, int]]:
        """k and n behind sensitivity, specificity, ppv and npv."""
        return {
            "sensitivity": (self.tp, self.tp + self.fn),
            "specificity": (self.tn, self.tn + self.fp),
            "ppv": (self.tp, self.tp + self.fp),
            "npv": (self.tn, self.tn + self.fn),
        }


@dataclass(frozen=True)
class ThresholdTable:
    """What each threshold gives on the rows it is chosen on.

    Attributes:
        thresholds: (M,) ascending, from all called positive to none.
        tp: (M,) true positives.
        tn: (M,) true negatives.
        positives: Rows of yes, 1 or more.
        negatives: Rows of no, 1 or more.
    """

    thresholds: FloatArray
    tp: IntArray
    tn: IntArray
    positives: int
    negatives: int

    @property
    def sensitivity(self) -> FloatArray:
        """(M,) falling."""
        return self.tp / self.positives

    @property
    def specificity(self) -> FloatArray:
        """(M,) rising."""
        return self.tn / self.negatives


class Rule(Protocol):
    """How a threshold is chosen. Its text, ``str(rule)``, is what `parse_rule` reads."""

    def choose(self, table: ThresholdTable) -> float:
        """The threshold; of equally good ones the one with the higher sensitivity."""


@dataclass(frozen=True)
class AtLeast:
    """The highest specificity with a wanted sensitivity, or the other way round.

    Either can always be had, if only by calling every row positive, or none.

    Attributes:
        measure: sensitivity or specificity.
        value: The wanted share, over 0, at most 1.

    Raises:
        ConfigError: Another measure or value.
    """

    measure: str
    value: float

    def __post_init__(self) -> None:
        if self.measure not in ("sensitivity", "specificity"):
            raise ConfigError(f"expected a least sensitivity or specificity, got {self.measure!r}; name one of the two")
        if not 0 < self.value <= 1:
            raise ConfigError(f"expected a {self.measure} over 0 and at most 1, got {self.value}; 0.9 is 90%")

    def choose(self, table: ThresholdTable) -> float:
        """See `Rule`."""
        wanted, other = table.sensitivity, table.specificity
        if self.measure == "specificity":
            wanted, other = other, wanted
        reached = np.flatnonzero(wanted >= self.value)
        best = reached[other[reached] == other[reached].max()]
        return float(table.thresholds[best[wanted[best].argmax()]])

    def __str__(self) -> str:
        return f"{self.measure} >= {self.value}"


@dataclass(frozen=True)
class Youden:
    """The largest sum of sensitivity and specificity (Youden 1950, Cancer 3:32)."""

    def choose(self, table: ThresholdTable) -> float:
        """See `Rule`."""
        sum_of_shares = table.tp * table.negatives + table.tn * table.positives
        return float(table.thresholds[sum_of_shares.argmax()])

    def __str__(self) -> str:
        return "youden"


@dataclass(frozen=True)
class LeastCost:
    """The least expected cost of wrong calls at a prevalence.

    Attributes:
        false_negative: Cost of a case that is called negative, over 0.
        false_positive: Cost of a non-case that is called positive, over 0.
        prevalence: Share of cases where the threshold is to be used, over 0 and under 1.

    Raises:
        ConfigError: A value out of range.
    """

    false_negative: float
    false_positive: float
    prevalence: float

    def __post_init__(self) -> None:
        for name, cost in (("false negative", self.false_negative), ("false positive", self.false_positive)):
            if not 0 < cost < math.inf:
                raise ConfigError(f"expected a cost of a {name} over 0, got {cost}; only the ratio of the two counts")
        if not 0 < self.prevalence < 1:
            raise ConfigError(f"expected a prevalence over 0 and under 1, got {self.prevalence}; 0.1 is 10%")

    def choose(self, table: ThresholdTable) -> float:
        """See `Rule`."""
        missed = self.false_negative * self.prevalence * (1 - table.sensitivity)
        alarms = self.false_positive * (1 - self.prevalence) * (1 - table.specificity)
        cost = missed + alarms
        return float(table.thresholds[np.flatnonzero(cost <= cost.min() + _NEARLY * cost.max())[0]])

    def __str__(self) -> str:
        return f"cost fn={self.false_negative} fp={self.false_positive} prevalence={self.prevalence}"


@dataclass(frozen=True)
class Fixed:
    """A given threshold; 0.5 on probabilities of two classes calls the most probable one.

    Attributes:
        threshold: A finite number.

    Raises:
        ConfigError: It is not finite.
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise ConfigError(f"expected a finite threshold, got {self.threshold}; 0.5 calls the most probable class")

    def choose(self, table: ThresholdTable) -> float:
        """See `Rule`."""
        del table
        return float(self.threshold)

    def __str__(self) -> str:
        return f"threshold {self.threshold}"


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what it gave where it was chosen.

    Attributes:
        rule: Text of the rule that chose it.
        threshold: A row is positive where ``score >= threshold``.
        positive_class: Name of the class whose probability the score is.
        chosen_on: The part of the split, for example val.
        counts: The calls there.
    """

    rule: str
    threshold: float
    positive_class: str
    chosen_on: str
    counts: Counts

    def apply(self, positive: ArrayLike, score: ArrayLike) -> Counts:
        """The calls of the same threshold on other rows; see `count_calls`."""
        return count_calls(positive, score, self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "rule": self.rule,
            "threshold": self.threshold,
            "positive_class": self.positive_class,
            "chosen_on": self.chosen_on,
            "sensitivity": self.counts.sensitivity,
            "specificity": self.counts.specificity,
            "n": self.counts.n,
            "tp": self.counts.tp,
            "fp": self.counts.fp,
            "tn": self.counts.tn,
            "fn": self.counts.fn,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "OperatingPoint":
        """What `to_dict` gave; sensitivity, specificity and n are counted anew.

        Raises:
            DataError: A value is absent or of another kind.
        """
        texts = [values.get(name) for name in ("rule", "positive_class", "chosen_on")]
        counts = [values.get(name) for name in ("tp", "fp", "tn", "fn")]
        threshold = values.get("threshold")
        sound = all(isinstance(text, str) for text in texts) and all(type(count) is int for count in counts)
        if not sound or not isinstance(threshold, (int, float)) or not math.isfinite(threshold):
            raise DataError(
                "expected an operating point with rule, threshold, positive_class, chosen_on, tp, fp, tn and fn, got "
                f"{dict(values)}; choose it again"
            )
        rule, positive_class, chosen_on = map(str, texts)
        return cls(rule, float(threshold), positive_class, chosen_on, Counts(*(int(str(count)) for count in counts)))


def choose_operating_point(
    positive: ArrayLike, score: ArrayLike, rule: Rule, *, positive_class: str, chosen_on: str = "val"
) -> OperatingPoint:
    """Choose a threshold by a rule.

    Thresholds lie half way between neighbouring scores (`candidate_thresholds`), so equal scores are always called
    alike.

    Args:
        positive: (N,) outcomes, yes or no.
        score: (N,) finite scores, larger where yes is more likely.
        rule: `AtLeast`, `Youden`, `LeastCost` or `Fixed`.
        positive_class: Name of the class that yes means.
        chosen_on: The part of the split that the rows are.

    Raises:
        DataError: Shapes or values do not fit, or only one outcome is there.
    """
    positive, score = check_scores(positive, score)
    table = _tabulate(positive, score)
    if table.positives == 0 or table.negatives == 0:
        raise DataError(
            f"expected rows of {positive_class} and of others to choose an operating point on, got {table.positives} "
            f"and {table.negatives}; choose it on a part that has both"
        )
    threshold = rule.choose(table)
    return OperatingPoint(str(rule), threshold, positive_class, chosen_on, count_calls(positive, score, threshold))


def count_calls(positive: ArrayLike, score: ArrayLike, threshold: float) -> Counts:
    """Count the right and wrong calls of a threshold.

    Args:
        positive: (N,) outcomes, yes or no.
        score: (N,) finite scores.
        threshold: A row is called positive where ``score >= threshold``.

    Raises:
        DataError: Shapes or values do not fit.
    """
    positive, score = check_scores(positive, score)
    called = score >= threshold
    tp, fp = int((called & positive).sum()), int((called & ~positive).sum())
    return Counts(tp=tp, fp=fp, tn=int((~positive).sum()) - fp, fn=int(positive.sum()) - tp)


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> tuple[float, float]:
    """PPV and NPV at a prevalence, by Bayes' theorem; nan where nothing would be called so.

    Args:
        sensitivity: From 0 to 1.
        specificity: From 0 to 1.
        prevalence: Share of cases among those tested, from 0 to 1.

    Raises:
        DataError: A value outside [0, 1].
    """
    for name, value in (("sensitivity", sensitivity), ("specificity", specificity), ("prevalence", prevalence)):
        if not 0 <= value <= 1:
            raise DataError(f"expected a {name} from 0 to 1, got {value}; 0.1 is 10%")
    tp, fn = sensitivity * prevalence, (1 - sensitivity) * prevalence
    tn, fp = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
    return _share(tp, tp + fp), _share(tn, tn + fn)


def parse_rule(text: str) -> Rule:
    """The rule that a text names.

    Args:
        text: ``sensitivity >= 0.9``, ``specificity >= 0.9``, ``youden``, ``cost fn=10 fp=1 prevalence=0.1`` or
            ``threshold 0.5``.

    Raises:
        ConfigError: Another text, or a value out of range.
    """
    number = r"(\d+\.?\d*(?:e[+-]?\d+)?)"
    if found := re.fullmatch(rf"(sensitivity|specificity)\s*>=\s*{number}", text.strip()):
        return AtLeast(found[1], float(found[2]))
    if found := re.fullmatch(rf"cost\s+fn={number}\s+fp={number}\s+prevalence={number}", text.strip()):
        return LeastCost(*map(float, found.groups()))
    if found := re.fullmatch(rf"threshold\s+(-?){number}", text.strip()):
        return Fixed(float(found[1] + found[2]))
    if text.strip() == "youden":
        return Youden()
    raise ConfigError(
        "expected an operating point by 'sensitivity >= 0.9', 'specificity >= 0.9', 'youden', "
        f"'cost fn=10 fp=1 prevalence=0.1' or 'threshold 0.5', got {text!r}"
    )


def _tabulate(positive: BoolArray, score: FloatArray) -> ThresholdTable:
    thresholds = candidate_thresholds(score)
    yes, no = np.sort(score[positive]), np.sort(score[~positive])
    below = np.searchsorted(no, thresholds)
    return ThresholdTable(thresholds, len(yes) - np.searchsorted(yes, thresholds), below, len(yes), len(no))


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
