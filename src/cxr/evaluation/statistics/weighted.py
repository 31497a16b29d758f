"""The metrics of a table of predictions under many sets of weights at once. Knows nothing of where weights come from.

A weight says how often a row counts. Counts of the confusion table are one matrix product; areas under curves take one
sort for each class and running sums over it, equal scores together, as scikit-learn has them.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.evaluation.checks import BoolArray, FloatArray, IntArray
from cxr.evaluation.metrics import name_metrics
from cxr.evaluation.statistics.resampling import Weights

RANKED = ("auroc", "average_precision")


@dataclass(frozen=True)
class Ranking:
    """The rows in falling order of a score, and where in it cases of a class stand.

    Attributes:
        order: (N,) rows.
        cases: (P,) places of the cases in that order.
        start: (T,) for every distinct score of a case, the place at which rows of that score begin.
        end: (T,) the place behind the last of them.
        cases_before: (T,) cases before `start`.
        cases_until: (T,) cases before `end`.
    """

    order: IntArray
    cases: IntArray
    start: IntArray
    end: IntArray
    cases_before: IntArray
    cases_until: IntArray


class WeightedMetrics:
    """`classification_metrics` of the same rows, weighted again and again.

    Args:
        target: (N,) class indices in [0, K).
        probs: (N, K) probabilities.
        class_names: The K names in order.
        names: Metrics that are wanted.
    """

    def __init__(self, target: IntArray, probs: FloatArray, class_names: list[str], names: Collection[str]) -> None:
        self.class_names = class_names
        self.names = names
        self.cells = target * len(class_names) + probs.argmax(axis=1)
        self.rankings = {k: rank(target == k, probs[:, k]) for k in _ranked_classes(class_names, names)}

    def measure(self, weights: Weights) -> dict[str, FloatArray]:
        """Metrics under each of B weightings.

        Args:
            weights: (N, B) whole numbers from 0; a weighting without any row gives nan.

        Returns:
            Name -> (B,).
        """
        size = len(self.class_names)
        areas = np.full((2, weights.shape[1], size), np.nan)
        for k, ranking in self.rankings.items():
            areas[:, :, k] = weighted_areas(ranking, weights)
        counts = weighted_counts(self.cells, weights, size)
        with np.errstate(invalid="ignore"):
            named = name_metrics(counts, areas[0], areas[1], self.class_names)
        return {name: named[name] for name in self.names}


def rank(positive: BoolArray, score: FloatArray) -> Ranking:
    """Sort once for `weighted_areas`.

    Args:
        positive: (N,) whether a row is a case.
        score: (N,) larger for what is taken for a case.
    """
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.append(begins[1:], len(order))
    before = np.concatenate([[0], np.cumsum(positive[order])])
    held = before[ends] > before[begins]
    start, end = begins[held], ends[held]
    return Ranking(order, np.flatnonzero(positive[order]), start, end, before[start], before[end])


def weighted_areas(ranking: Ranking, weights: Weights) -> tuple[FloatArray, FloatArray]:
    """AUROC and average precision under each of B weightings.

    Args:
        ranking: Of N rows.
        weights: (N, B) whole numbers from 0.

    Returns:
        Two arrays (B,): the share of pairs of a case and another row that are ordered rightly, ties counting half; and
        the mean precision at the cases, each at the end of its tie. Nan without a case, the first also without others.
    """
    ordered = weights[ranking.order]
    rows, cases = _running_sum(ordered), _running_sum(ordered[ranking.cases])
    before, until = cases[ranking.cases_before], cases[ranking.cases_until]
    here, reached = (until - before).astype(np.float64), rows[ranking.end]
    others_above = rows[ranking.start] - before + reached - until  # twice the mean over the tie
    positives = cases[-1].astype(np.float64)
    negatives = rows[-1] - positives
    wrong = np.einsum("tb,tb->b", here, others_above) / 2
    precision = np.divide(until, reached, out=np.zeros_like(here), where=reached > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        average = np.einsum("tb,tb->b", here, precision) / positives
        return np.where(negatives > 0, 1 - wrong / (positives * negatives), np.nan), average


def weighted_envelope(ranking: Ranking, weights: Weights) -> FloatArray:
    """Interpolated average precision under each of B weightings, as `cxr.evaluation.metrics.study_map` has it.

    Args:
        ranking: Of N rows.
        weights: (N, B) whole numbers from 0.

    Returns:
        (B,): the mean over the cases of the greatest precision at their tie or a later one; nan without a case.
    """
    ordered = weights[ranking.order]
    rows, cases = _running_sum(ordered), _running_sum(ordered[ranking.cases])
    until, reached = cases[ranking.cases_until], rows[ranking.end]
    here = (until - cases[ranking.cases_before]).astype(np.float64)
    precision = np.divide(until, reached, out=np.zeros_like(here), where=reached > 0)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.einsum("tb,tb->b", here, best) / cases[-1])


def weighted_counts(cells: IntArray, weights: Weights, size: int) -> FloatArray:
    """(B, K, K) confusion counts; `cells` (N,) are K times the true class plus the called one."""
    onehot = (cells == np.arange(size**2)[:, None]).astype(np.float32)
    return (onehot @ weights.astype(np.float32)).T.reshape(-1, size, size).astype(np.float64)


def _running_sum(values: Weights) -> NDArray[np.int32]:
    """(N + 1, B): sums of the first rows, from none to all."""
    sums = np.zeros((len(values) + 1, values.shape[1]), dtype=np.int32)
    np.cumsum(values, axis=0, out=sums[1:])
    return sums


def _ranked_classes(class_names: list[str], names: Collection[str]) -> list[int]:
    if len(class_names) > 2 and set(RANKED) & set(names):
        return list(range(len(class_names)))
    asked = [{f"{metric}/{label}" for metric in RANKED} for label in class_names]
    asked[1] |= set(RANKED)
    return [k for k, wanted in enumerate(asked) if wanted & set(names)]
