"""Whether a probability is what it says: of the cases given 0.8, do 80% have the finding?

Every number is a plain function of outcomes and probabilities, so that a bootstrap can call it on resampled rows. Knows
nothing of files, intervals over patients or how the probabilities were made. The intervals of `reliability_curve` take
rows for independent.

Two shapes of input: `target` (N,) class indices with `probs` (N, K), or, of one class, `positive` (N,) yes or no with
`prob` (N,). `of_class` and `of_top_label` make the second of the first.
"""

from dataclasses import astuple, dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize, root
from scipy.special import expit, log_softmax, logit, softmax
from scipy.stats import beta, rankdata

from cxr.errors import DataError
from cxr.evaluation.checks import BoolArray, FloatArray, IntArray, check_outcomes, check_probs
from cxr.scaling import Scaling

BINS = 10
"""Bins of the reliability curve and of the calibration error, so that the figure shows what the number sums."""

TEMPERATURES = (0.05, 20.0)
NEAR = 1e-3  # to a bound of these
SEPARATED = 1e-6  # log loss of classes that are told apart perfectly
LEAST_OF_EACH = 20
LEAST_PROB = 1e-12
"""What a probability of 0 counts as where its logarithm is asked for."""


@dataclass(frozen=True)
class Recalibration:
    """How log odds must be changed to fit the outcomes (Cox 1958); calibrated probabilities have 1, 0 and 0.

    Attributes:
        slope: Below 1 where probabilities are too extreme, above 1 where they are too moderate.
        intercept: Fitted together with the slope.
        in_the_large: The intercept with the slope held at 1: above 0 where the finding is more common than predicted.
    """

    slope: float
    intercept: float
    in_the_large: float


def calibration_metrics(target: ArrayLike, probs: ArrayLike, class_names: list[str]) -> dict[str, float]:
    """The calibration of a classifier in numbers; nan where one is not defined.

    Args:
        target: (N,) class indices.
        probs: (N, K) probabilities.
        class_names: The K names in order.

    Returns:
        brier, log_loss and ece. With two classes also calibration_slope, calibration_intercept and
        calibration_in_the_large of class 1; with more these and ece as ``<metric>/<class name>``, each against the
        rest.

    Raises:
        DataError: Shapes or values do not fit.
    """
    metrics = {
        "brier": brier_score(target, probs),
        "log_loss": log_loss(target, probs),
        "ece": expected_calibration_error(target, probs),
    }
    if len(class_names) == 2:
        return metrics | _measure_line(*of_class(target, probs, 1), "")
    for k, name in enumerate(class_names):
        positive, prob = of_class(target, probs, k)
        metrics[f"ece/{name}"] = calibration_error(positive, prob)
        metrics |= _measure_line(positive, prob, f"/{name}")
    return metrics


def of_class(target: ArrayLike, probs: ArrayLike, k: int) -> tuple[BoolArray, FloatArray]:
    """Whether each row is of class `k`, and the probability it was given: both (N,)."""
    target, probs = check_probs(target, probs)
    return target == k, probs[:, k]


def of_top_label(target: ArrayLike, probs: ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Whether the most probable class of each row is the right one, and its probability: both (N,)."""
    target, probs = check_probs(target, probs)
    return probs.argmax(axis=1) == target, probs.max(axis=1)


def brier_score(target: ArrayLike, probs: ArrayLike) -> float:
    """Mean squared difference of probabilities and outcomes; 0 is best.

    With two classes that of class 1, from 0 to 1. With more Brier's own sum over the classes (Brier 1950, Monthly
    Weather Review 78:1), from 0 to 2; for two classes it would be twice the former.

    Args:
        target: (N,) class indices.
        probs: (N, K) probabilities.

    Raises:
        DataError: Shapes or values do not fit.
    """
    return float(row_losses(target, probs)["brier"].mean())


def log_loss(target: ArrayLike, probs: ArrayLike) -> float:
    """Mean negative log of the probability of the right class; one of 0 counts as 1e-12.

    Raises:
        DataError: Shapes or values do not fit.
    """
    return float(row_losses(target, probs)["log_loss"].mean())


def row_losses(target: ArrayLike, probs: ArrayLike) -> dict[str, FloatArray]:
    """What each row adds to `brier_score` and `log_loss`, which are its means: brier and log_loss, each (N,).

    Raises:
        DataError: Shapes or values do not fit.
    """
    target, probs = check_probs(target, probs)
    squares = ((probs - np.eye(probs.shape[1])[target]) ** 2).sum(axis=1)
    of_target = probs[np.arange(len(target)), target]
    return {
        "brier": squares / (2 if probs.shape[1] == 2 else 1),
        "log_loss": -np.log(np.maximum(of_target, LEAST_PROB)),
    }


def expected_calibration_error(target: ArrayLike, probs: ArrayLike, num_bins: int = BINS) -> float:
    """`calibration_error` of class 1 with two classes, with more that of the most probable class (top label).

    It is 0 at best and, with few rows, well above 0 even for calibrated probabilities: compare it only between models
    on the same rows.

    Raises:
        DataError: Shapes or values do not fit.
    """
    two = np.shape(probs)[-1] == 2
    return calibration_error(*(of_class(target, probs, 1) if two else of_top_label(target, probs)), num_bins)


def calibration_error(positive: ArrayLike, prob: ArrayLike, num_bins: int = BINS) -> float:
    """Mean distance between the probability and the observed share over bins of equal mass, each weighed by its rows.

    Nixon et al. 2019, "Measuring calibration in deep learning": bins of as many rows each instead of equal width. Equal
    probabilities are never split between bins, so bins may differ in size and there may be fewer.

    Args:
        positive: (N,) outcomes, yes or no.
        prob: (N,) probability of yes.
        num_bins: Number of bins, 1 or more.

    Raises:
        DataError: Shapes or values do not fit.
    """
    positive, prob = check_outcomes(positive, prob)
    bins = assign_bins(prob, num_bins)
    return float(np.abs(np.bincount(bins, prob - positive)).sum() / len(prob))


def reliability_curve(positive: ArrayLike, prob: ArrayLike, num_bins: int = BINS) -> pd.DataFrame:
    """What was predicted and what was observed, bin by bin of equal mass (see `calibration_error`).

    Args:
        positive: (N,) outcomes, yes or no.
        prob: (N,) probability of yes.
        num_bins: Number of bins, 1 or more.

    Returns:
        One row per bin that has rows, in order: mean_prob, observed (the share k / n), low and high (its 95% interval
        by Clopper and Pearson, for independent rows), k, n.

    Raises:
        DataError: Shapes or values do not fit.
    """
    positive, prob = check_outcomes(positive, prob)
    rows = pd.DataFrame({"bin": assign_bins(prob, num_bins), "prob": prob, "positive": positive})
    curve = rows.groupby("bin").agg(mean_prob=("prob", "mean"), k=("positive", "sum"), n=("positive", "size"))
    k, n = curve["k"].to_numpy(), curve["n"].to_numpy()
    low, high = np.nan_to_num(beta.ppf(0.025, k, n - k + 1), nan=0), np.nan_to_num(beta.ppf(0.975, k + 1, n - k), nan=1)
    curve = curve.assign(observed=k / n, low=low, high=high)
    return curve[["mean_prob", "observed", "low", "high", "k", "n"]].reset_index(drop=True)


def recalibration(positive: ArrayLike, prob: ArrayLike) -> Recalibration:
    """Slope and intercept of a logistic regression of the outcomes on the log odds of the probabilities.

    Cox 1958, Biometrika 45:562; van Calster et al. 2019, BMC Medicine 17:230. Probabilities of 0 and 1 count as 1e-12
    and 1 - 1e-12.

    Args:
        positive: (N,) outcomes, yes or no.
        prob: (N,) probability of yes.

    Returns:
        The three numbers. All are nan where only one outcome is there; slope and intercept are nan where a threshold
        separates the outcomes perfectly or all probabilities are equal, since no finite or single best one exists.

    Raises:
        DataError: Shapes or values do not fit.
    """
    positive, prob = check_outcomes(positive, prob)
    if positive.all() or not positive.any():
        return Recalibration(np.nan, np.nan, np.nan)
    log_odds = to_log_odds(prob)
    in_the_large = _shift_to_share(log_odds, float(positive.mean()))
    slope, intercept = _fit_line(log_odds, positive) if _overlap(log_odds, positive) else (np.nan, np.nan)
    return Recalibration(slope, intercept, in_the_large)


def fit_scaling(target: ArrayLike, logits: ArrayLike) -> Scaling | None:
    """The scaling with the least log loss, to be fitted to validation alone and applied to test unchanged.

    With LEAST_OF_EACH rows of every class a temperature and a bias per class, which sum to 0 (Alexandari et al. 2020,
    "Maximum likelihood with bias-corrected calibration is hard-to-beat at label shift adaptation"): nets that learned
    from balanced batches, or from altered images, lean to one class. With fewer rows, or where the classes are told
    apart perfectly, a temperature alone (Guo et al. 2017, "On calibration of modern neural networks").

    Args:
        target: (N,) class indices.
        logits: (N, K) logits.

    Returns:
        None where there is no best one: the classes are told apart perfectly, or no better than by chance.

    Raises:
        DataError: Shapes or values do not fit.
    """
    target, logits = _check_logits(target, logits)
    counts = np.bincount(target, minlength=logits.shape[1])
    biased = _best_scaling(target, logits) if counts.min() >= LEAST_OF_EACH else None
    return fit_temperature(target, logits) if biased is None else biased


def fit_temperature(target: ArrayLike, logits: ArrayLike) -> Scaling | None:
    """The same without a bias. The log loss is convex in 1 / T, so its slope there has one root, or none in bounds.

    Raises:
        DataError: Shapes or values do not fit.
    """
    target, logits = _check_logits(target, logits)
    right = logits[np.arange(len(target)), target]

    def slope(inverse: float) -> float:
        return float(((softmax(inverse * logits, axis=1) * logits).sum(axis=1) - right).mean())

    least, most = TEMPERATURES
    if slope(1 / least) <= 0 or slope(1 / most) >= 0:
        return None
    return Scaling(float(1 / brentq(slope, 1 / most, 1 / least, xtol=1e-12)))


def name_recalibration(suffix: str) -> list[str]:
    """What the three numbers of a `Recalibration` are called among metrics."""
    return [f"calibration_{number.name}{suffix}" for number in fields(Recalibration)]


def to_log_odds(prob: FloatArray) -> FloatArray:
    """Log odds of probabilities of any shape; 0 and 1 count as `LEAST_PROB` and 1 less that."""
    return np.asarray(logit(np.clip(prob, LEAST_PROB, 1 - LEAST_PROB)))


def assign_bins(prob: FloatArray, num_bins: int = BINS) -> IntArray:
    """Bin of each row, (N,) from 0, by the middle rank of its probability, which equal ones share.

    Args:
        prob: (N,) probabilities.
        num_bins: Number of bins, 1 or more.

    Raises:
        DataError: Fewer than 1 bin.
    """
    if num_bins < 1:
        raise DataError(f"expected 1 or more bins, got {num_bins}; 10 is usual")
    doubled = np.rint(2 * rankdata(prob)).astype(np.int64) - 1  # whole numbers, so that no bin starts by rounding
    return doubled * num_bins // (2 * len(prob))


def _measure_line(positive: BoolArray, prob: FloatArray, suffix: str) -> dict[str, float]:
    return dict(zip(name_recalibration(suffix), astuple(recalibration(positive, prob)), strict=True))


def _shift_to_share(log_odds: FloatArray, share: float) -> float:
    """The shift of log odds with which the mean probability is `share`."""
    wanted = logit(share)
    low, high = wanted - log_odds.max() - 1, wanted - log_odds.min() + 1
    return float(brentq(lambda shift: expit(log_odds + shift).mean() - share, low, high, xtol=1e-12))


def _overlap(log_odds: FloatArray, positive: BoolArray) -> bool:
    """Whether no threshold separates the outcomes, not even with ties on it: only then there is a best line."""
    yes, no = log_odds[positive], log_odds[~positive]
    return bool(yes.min() < no.max() and no.min() < yes.max())


def _fit_line(log_odds: FloatArray, positive: BoolArray) -> tuple[float, float]:
    """Slope and intercept of the logistic regression: the root of the gradient of its convex log loss."""
    centre, spread = log_odds.mean(), log_odds.std()
    scaled, outcomes = (log_odds - centre) / spread, positive.astype(np.float64)

    def gradient_and_curvature(line: FloatArray) -> tuple[FloatArray, FloatArray]:
        prob = expit(line[0] * scaled + line[1])
        excess, weight = prob - outcomes, prob * (1 - prob)
        weighted = weight * scaled
        curvature = np.array([[weighted @ scaled, weighted.sum()], [weighted.sum(), weight.sum()]])
        return np.array([excess @ scaled, excess.sum()]) / len(scaled), curvature / len(scaled)

    found = root(gradient_and_curvature, np.zeros(2), jac=True, tol=1e-13).x
    return float(found[0] / spread), float(found[1] - found[0] * centre / spread)


def _check_logits(target: ArrayLike, logits: ArrayLike) -> tuple[IntArray, FloatArray]:
    values = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise DataError(f"expected finite logits, got {bad} NaN or infinite; look for a diverged run")
    indices, _ = check_probs(target, np.zeros(values.shape))
    return indices, values


def _best_scaling(target: IntArray, logits: FloatArray) -> Scaling | None:
    """The least of a log loss that is convex in 1 / T and the bias; None at a bound of T, or where nothing is lost."""
    outcomes = np.eye(logits.shape[1])[target]

    def loss_and_gradient(point: FloatArray) -> tuple[float, FloatArray]:
        scaled = point[0] * logits + point[1:]
        excess = (softmax(scaled, axis=1) - outcomes) / len(target)
        loss = -(log_softmax(scaled, axis=1) * outcomes).sum() / len(target)
        return float(loss), np.array([(excess * logits).sum(), *excess.sum(axis=0)])

    least, most = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    bounds = [(least, most), *[(None, None)] * logits.shape[1]]
    start = np.array([1.0, *np.zeros(logits.shape[1])])
    found = minimize(loss_and_gradient, start, jac=True, bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-9})
    inverse, bias = found.x[0], found.x[1:] - found.x[1:].mean()
    if found.fun < SEPARATED or not least * (1 + NEAR) < inverse < most * (1 - NEAR):
        return None
    return Scaling(float(1 / inverse), tuple(map(float, bias)))
