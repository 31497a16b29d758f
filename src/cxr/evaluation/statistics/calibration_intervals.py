"""The numbers of `calibration_metrics` with intervals from whole patients drawn again.

A weight says how often a row counts. Brier score and log loss are weighted means; the calibration error keeps the bins
of all rows, whose edges are thus not drawn again; slope and intercept are found by Newton's method for many draws at
once, starting from those of all rows. Knows nothing of tables, files or pages.
"""

from dataclasses import astuple, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from cxr.evaluation.calibration import (
    LEAST_PROB,
    assign_bins,
    calibration_metrics,
    name_recalibration,
    of_class,
    of_top_label,
    recalibration,
    row_losses,
    to_log_odds,
)
from cxr.evaluation.checks import BoolArray, FloatArray, check_probs
from cxr.evaluation.statistics.bootstrap import Range, half_width, interval_of_draws, patients_behind
from cxr.evaluation.statistics.intervals import CONFIDENCE, Interval
from cxr.evaluation.statistics.resampling import Weights, draw_weights, number_groups

_STEPS = 20
_LONGEST_STEP = 5.0
_SETTLED = 1e-3  # the step after such a one is about its square, far less than draws differ by
_TINY = 1e-12


def bootstrap_calibration(
    target: ArrayLike, probs: ArrayLike, groups: ArrayLike, class_names: list[str], draws: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Every number of `calibration_metrics` with its interval.

    Args:
        target: (N,) class indices in [0, K).
        probs: (N, K) probabilities.
        groups: (N,) ids of patients, whose rows stand or fall together.
        class_names: The K names in order.
        draws: Bootstrap samples, at least 1000. The same as those of `bootstrap_metrics` with this seed.
        seed: Of the samples.

    Returns:
        Name -> value with interval; a reason instead of an interval where there is none, see `bootstrap_metrics`.

    Raises:
        DataError: Shapes or values do not fit, or too few draws.
    """
    values = calibration_metrics(target, probs, class_names)
    target, probs = check_probs(target, probs, len(class_names))
    numbers = number_groups(groups, len(target))
    weighted = WeightedCalibration(target, probs, class_names)
    chunks = [weighted.measure(weights) for weights in draw_weights(numbers, draws, seed)]
    found = {}
    for name, value in values.items():
        drawn = np.concatenate([chunk[name] for chunk in chunks])
        behind = patients_behind(name, target, numbers, class_names)
        found[name] = interval_of_draws(value, drawn, behind, calibration_range(name, len(class_names)))
        if name in weighted.binned:
            by_chance = np.concatenate([chunk[f"{name} by chance"] for chunk in chunks])
            found[name] = _reach_down(found[name], drawn, by_chance, half_width(drawn, behind))
    return found


def _reach_down(error: Interval, drawn: FloatArray, by_chance: FloatArray, half: float) -> Interval:
    """The interval of a calibration error with room below for what chance adds to it.

    That is what it adds to the draws; and the error may be 0 where a calibrated model's would often be as large.
    """
    if error.value <= np.quantile(by_chance, (1 + CONFIDENCE) / 2):
        return replace(error, low=0.0)
    added = float(drawn.mean()) - error.value
    return replace(error, low=min(error.low, max(0.0, error.value - added - half)))


def calibration_range(name: str, classes: int) -> Range | None:
    """The least and the greatest value that a number of `calibration_metrics` can have; None where it has neither."""
    if name.startswith("calibration_"):
        return None
    greatest = {"brier": 1.0 if classes == 2 else 2.0, "log_loss": float(-np.log(LEAST_PROB))}
    return 0.0, greatest.get(name, 1.0)


class WeightedCalibration:
    """`calibration_metrics` of the same rows, weighted again and again.

    Args:
        target: (N,) class indices in [0, K).
        probs: (N, K) probabilities.
        class_names: The K names in order.
    """

    def __init__(self, target: ArrayLike, probs: ArrayLike, class_names: list[str]) -> None:
        two = len(class_names) == 2
        self.losses = row_losses(target, probs)
        first = of_class(target, probs, 1) if two else of_top_label(target, probs)
        classes = {f"/{name}": of_class(target, probs, k) for k, name in enumerate(class_names)}
        self.binned = {"ece": BinnedError(*first)}
        self.lines = {"": WeightedLine(*first)}
        if not two:
            self.binned |= {f"ece{suffix}": BinnedError(*rows) for suffix, rows in classes.items()}
            self.lines = {suffix: WeightedLine(*rows) for suffix, rows in classes.items()}

    def measure(self, weights: Weights) -> dict[str, FloatArray]:
        """The numbers under each of B weightings.

        Args:
            weights: (N, B) whole numbers from 0, some row in each weighting.

        Returns:
            Name -> (B,), nan where one is not defined; and for each calibration error ``<name> by chance``.
        """
        counts = weights.astype(np.float64)
        measured = {name: loss @ counts / counts.sum(axis=0) for name, loss in self.losses.items()}
        for name, error in self.binned.items():
            measured |= dict(zip((name, f"{name} by chance"), error.measure(counts), strict=True))
        for suffix, line in self.lines.items():
            measured |= dict(zip(name_recalibration(suffix), line.measure(counts), strict=True))
        return measured


class BinnedError:
    """`calibration_error` in the bins of all rows, weighted again and again.

    Args:
        positive: (N,) outcomes, yes or no.
        prob: (N,) probability of yes.
    """

    def __init__(self, positive: BoolArray, prob: FloatArray) -> None:
        bins = assign_bins(prob)
        self.excess = (bins == np.unique(bins)[:, None]) * (prob - positive)

    def measure(self, counts: FloatArray) -> FloatArray:
        """(2, B) of (N, B) counts: the error, and what it would be if all rows together had none in any bin."""
        gaps = self.excess @ counts / counts.sum(axis=0)
        return np.abs(np.stack([gaps, gaps - self.excess.mean(axis=1, keepdims=True)])).sum(axis=1)


class WeightedLine:
    """`recalibration`, weighted again and again.

    Args:
        positive: (N,) outcomes, yes or no.
        prob: (N,) probability of yes.
    """

    def __init__(self, positive: BoolArray, prob: FloatArray) -> None:
        self.positive, self.prob = positive, prob
        self.log_odds = to_log_odds(prob)
        self.centre, self.spread = self.log_odds.mean(), max(self.log_odds.std(), _TINY)
        found = recalibration(positive, prob)
        self.start = np.nan_to_num([found.slope * self.spread, found.intercept + found.slope * self.centre])
        self.shift = np.nan_to_num([found.in_the_large])

    def measure(self, counts: FloatArray) -> FloatArray:
        """Slope, intercept and the intercept at slope 1, (3, B), of (N, B) counts; nan where one is not defined."""
        mixed, overlap = self._find_defined(counts)
        found = np.full((3, counts.shape[1]), np.nan)
        ones, scaled = np.ones_like(self.log_odds), (self.log_odds - self.centre) / self.spread
        lines = self._fit(np.stack([scaled, ones]), 0 * ones, self.start, counts[:, overlap])
        found[0, overlap] = lines[0] / self.spread
        found[1, overlap] = lines[1] - lines[0] * self.centre / self.spread
        found[2, mixed] = self._fit(ones[None], self.log_odds, self.shift, counts[:, mixed])[0]
        unsettled = np.isnan(found[0]) & overlap | np.isnan(found[2]) & mixed
        for column in np.flatnonzero(unsettled):
            rows = np.repeat(np.arange(len(ones)), counts[:, column].astype(int))
            found[:, column] = astuple(recalibration(self.positive[rows], self.prob[rows]))
        return found

    def _find_defined(self, counts: FloatArray) -> tuple[BoolArray, BoolArray]:
        """Which draws have both outcomes, and which of them no threshold separates, as `recalibration` asks."""
        yes, no = (
            np.where(counts[rows] > 0, self.log_odds[rows, None], np.nan) for rows in (self.positive, ~self.positive)
        )
        ends = [(np.fmin.reduce(part, initial=np.inf), np.fmax.reduce(part, initial=-np.inf)) for part in (yes, no)]
        (least_yes, most_yes), (least_no, most_no) = ends
        mixed = np.isfinite(least_yes) & np.isfinite(least_no)
        return mixed, mixed & (least_yes < most_no) & (least_no < most_yes)

    def _fit(self, features: FloatArray, offset: FloatArray, start: FloatArray, counts: FloatArray) -> FloatArray:
        """Coefficients (P, B) of features (P, N) in a logistic regression for each column of counts (N, B).

        Newton's method; nan where it does not settle.
        """
        prob = expit(offset + start @ features)  # the first step is one of matrices, all draws being at one place
        curvature = _pair(features, np.maximum(prob * (1 - prob), _TINY)) @ counts
        step = _divide((features * (prob - self.positive)) @ counts, curvature)
        found = start[:, None] - step
        moving = np.arange(counts.shape[1])
        for _ in range(_STEPS):
            moving = moving[np.abs(step).max(axis=0) > _SETTLED]
            if not len(moving):
                break
            weights = counts[:, moving]
            probs = expit(offset[:, None] + features.T @ found[:, moving])
            gradient = features @ (weights * (probs - self.positive[:, None]))
            step = _divide(gradient, _pair(features, 1.0) @ (weights * np.maximum(probs * (1 - probs), _TINY)))
            found[:, moving] -= step
        else:
            found[:, moving[np.abs(step).max(axis=0) > _SETTLED]] = np.nan
        return found


def _pair(features: FloatArray, weights: FloatArray | float) -> FloatArray:
    """(P * P, N) products of features (P, N) with one another and with weights (N,)."""
    return (features[:, None] * features * weights).reshape(-1, features.shape[1])


def _divide(gradient: FloatArray, curvature: FloatArray) -> FloatArray:
    """Newton's steps (P, B) of gradients (P, B) and curvatures (P * P, B), no longer than keeps numbers finite."""
    squares = np.moveaxis(curvature.reshape(len(gradient), len(gradient), -1), 2, 0)
    steps = np.einsum("bpq,qb->pb", np.linalg.pinv(squares, hermitian=True), gradient)
    return np.clip(steps, -_LONGEST_STEP, _LONGEST_STEP)
