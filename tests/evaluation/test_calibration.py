import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit, softmax
from scipy.stats import binomtest
from sklearn import metrics
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from cxr.errors import DataError
from cxr.evaluation import calibration
from cxr.evaluation.calibration import (
    LEAST_OF_EACH,
    brier_score,
    calibration_error,
    calibration_metrics,
    expected_calibration_error,
    fit_scaling,
    fit_temperature,
    of_class,
    of_top_label,
    recalibration,
    reliability_curve,
)
from cxr.scaling import Scaling

# Temperature in Fahrenheit and thermal distress of O-rings on 23 shuttle flights: Dalal, Fowlkes and Hoadley 1989,
# Journal of the American Statistical Association 84:945. Their fit is 15.0429 - 0.2322 t.
FLIGHTS = [53, 57, 58, 63, 66, 67, 67, 67, 68, 69, 70, 70, 70, 70, 72, 73, 75, 75, 76, 76, 78, 79, 81]
DISTRESS = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]

CASES = [(2, 0), (3, 1), (5, 2)]


def make_case(num_classes: int, seed: int, n: int = 400, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(num_classes, size=n)
    return target, sharpness * (rng.normal(size=(n, num_classes)) + np.eye(num_classes)[target])


class LinearLogits(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose decision function is its input."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x):
        return x

    def predict(self, x):
        return x.argmax(axis=1)


def test_brier_score_of_briers_own_example():
    # Brier 1950, table 1: ten forecasts of rain; P = 0.19 by his sum over both classes
    rain = np.array([0.7, 0.9, 0.8, 0.4, 0.2, 0, 0, 0, 0, 0.1])
    target = [0, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    two = np.stack([1 - rain, rain], axis=1)
    assert brier_score(target, two) == pytest.approx(0.19 / 2)
    three = np.column_stack([two, np.zeros(10)])
    assert brier_score(target, three) == pytest.approx(0.19)


@pytest.mark.parametrize(("num_classes", "seed"), CASES)
def test_brier_score_and_log_loss_against_scikit_learn(num_classes, seed):
    target, logits = make_case(num_classes, seed)
    probs = softmax(logits, axis=1)
    if num_classes == 2:
        assert brier_score(target, probs) == pytest.approx(metrics.brier_score_loss(target, probs[:, 1]))
    else:
        each = [metrics.brier_score_loss(target == k, probs[:, k]) for k in range(num_classes)]
        assert brier_score(target, probs) == pytest.approx(sum(each))
    assert calibration.log_loss(target, probs) == pytest.approx(metrics.log_loss(target, probs))


def test_log_loss_of_an_impossible_outcome_is_finite():
    assert calibration.log_loss([1], [[1.0, 0.0]]) == pytest.approx(12 * np.log(10))


@pytest.mark.parametrize("num_bins", [1, 4, 10])
def test_bins_without_ties_are_those_of_scikit_learn(num_bins):
    target, logits = make_case(2, 0)
    positive, prob = of_class(target, softmax(logits, axis=1), 1)
    observed, predicted = calibration_curve(positive, prob, n_bins=num_bins, strategy="quantile")
    curve = reliability_curve(positive, prob, num_bins)
    np.testing.assert_allclose(curve["observed"], observed)
    np.testing.assert_allclose(curve["mean_prob"], predicted)
    assert calibration_error(positive, prob, num_bins) == pytest.approx(np.abs(observed - predicted).mean())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1) | st.sampled_from([0.0, 0.3, 1.0])), min_size=1, max_size=60),
    st.integers(1, 15),
)
def test_bins_hold_every_row_and_split_no_ties(rows, num_bins):
    positive, prob = np.array([yes for yes, _ in rows]), np.array([p for _, p in rows])
    curve = reliability_curve(positive, prob, num_bins)
    assert (curve["n"].sum(), curve["k"].sum()) == (len(rows), positive.sum())
    assert len(curve) <= num_bins
    ends = np.cumsum(curve["n"].to_numpy())[:-1]
    ordered = np.sort(prob)
    assert (ordered[ends - 1] < ordered[ends]).all()
    if len(np.unique(prob)) == len(prob):
        assert curve["n"].max() - curve["n"].min() <= 1 or len(prob) < num_bins
    by_hand = (curve["n"] * (curve["observed"] - curve["mean_prob"]).abs()).sum() / len(rows)
    assert calibration_error(positive, prob, num_bins) == pytest.approx(by_hand, abs=1e-12)


def test_equal_probabilities_are_one_bin():
    assert calibration_error([1, 0, 0, 0], [0.5] * 4) == 0.25
    assert reliability_curve([1, 0, 0, 0], [0.5] * 4)["n"].tolist() == [4]


def test_reliability_intervals_are_clopper_and_pearsons():
    positive, prob = np.array([0] * 8 + [1, 1] + [1] * 10), np.repeat([0.1, 0.9], 10)
    curve = reliability_curve(positive, prob)
    assert curve[["k", "n"]].to_numpy().tolist() == [[2, 10], [10, 10]]
    for row, k in enumerate((2, 10)):
        expected = binomtest(k, 10).proportion_ci(0.95, method="exact")
        assert curve.loc[row, ["low", "high"]].tolist() == pytest.approx([expected.low, expected.high])
    assert reliability_curve([0] * 10, [0.1] * 10).loc[0, "low"] == 0


def test_too_few_bins_are_refused():
    with pytest.raises(DataError, match="expected 1 or more bins, got 0"):
        calibration_error([1, 0], [0.2, 0.4], 0)


def test_calibrated_probabilities_have_a_small_error_and_distorted_ones_a_large():
    rng = np.random.default_rng(0)
    prob = rng.random(20_000)
    positive = rng.random(20_000) < prob
    assert calibration_error(positive, prob) < 0.015
    assert calibration_error(positive, prob**3) == pytest.approx(np.mean(prob - prob**3), abs=0.01)


def test_expected_calibration_error_is_of_class_1_or_of_the_top_label():
    target, logits = make_case(3, 0)
    probs = softmax(logits, axis=1)
    assert expected_calibration_error(target, probs) == calibration_error(*of_top_label(target, probs))
    two = probs[:, :2] / probs[:, :2].sum(axis=1, keepdims=True)
    assert expected_calibration_error(target == 1, two) == calibration_error(target == 1, two[:, 1])


def test_slope_and_intercept_against_a_published_fit():
    # the forecast 0.1 t - 7 in log odds is fitted by 15.0429 - 0.2322 t = -2.322 (0.1 t - 7) - 1.211
    found = recalibration(DISTRESS, expit(0.1 * np.array(FLIGHTS) - 7))
    assert found.slope == pytest.approx(-2.322, abs=5e-4)
    assert found.intercept == pytest.approx(15.0429 - 7 * 2.32163, abs=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_slope_and_intercepts_against_a_direct_search(seed):
    target, logits = make_case(2, seed, n=200)
    positive, prob = of_class(target, softmax(logits, axis=1), 1)

    def loss(line):
        odds = line[0] * logit(prob) + line[1]
        return -np.where(positive, np.log(expit(odds)), np.log(expit(-odds))).sum()

    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}
    free = minimize(loss, [1, 0], method="Nelder-Mead", options=options).x
    held = minimize(lambda x: loss([1, x[0]]), [0], method="Nelder-Mead", options=options).x
    found = recalibration(positive, prob)
    assert [found.slope, found.intercept, found.in_the_large] == pytest.approx([*free, *held], abs=1e-6)


def test_known_distortions_are_found():
    rng = np.random.default_rng(0)
    log_odds = rng.normal(size=100_000) * 1.5
    positive = rng.random(100_000) < expit(log_odds)
    found = recalibration(positive, expit(2 * log_odds + 1))
    assert found.slope == pytest.approx(0.5, abs=0.02)
    assert found.intercept == pytest.approx(-0.5, abs=0.03)
    assert recalibration(positive, expit(log_odds)).in_the_large == pytest.approx(0, abs=0.03)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40))
def test_calibration_in_the_large_makes_the_mean_right(rows):
    positive, prob = np.array([yes for yes, _ in rows]), np.array([p for _, p in rows])
    found = recalibration(positive, prob).in_the_large
    if positive.all() or not positive.any():
        assert np.isnan(found)
    else:
        shifted = expit(logit(np.clip(prob, 1e-12, 1 - 1e-12)) + found)
        assert shifted.mean() == pytest.approx(positive.mean(), abs=1e-9)


@pytest.mark.parametrize(
    ("positive", "prob"),
    [([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9]), ([0, 1, 1, 0], [0.5] * 4), ([0, 0, 1, 1], [0.1, 0.3, 0.3, 0.9])],
    ids=["separated", "constant", "tied at the threshold"],
)
def test_slope_without_a_best_value_is_nan(positive, prob):
    found = recalibration(positive, prob)
    assert np.isnan([found.slope, found.intercept]).all()
    assert np.isfinite(found.in_the_large)


@pytest.mark.parametrize("positive", [[0, 0], [1, 1]])
def test_one_outcome_has_no_recalibration(positive):
    found = recalibration(positive, [0.2, 0.8])
    assert np.isnan([found.slope, found.intercept, found.in_the_large]).all()


def loss_of(target, logits, scaling):
    return calibration.log_loss(target, scaling.to_probs(logits))


@pytest.mark.parametrize(("num_classes", "seed"), CASES)
@pytest.mark.parametrize("sharpness", [0.5, 4.0])
def test_temperature_has_the_least_log_loss(num_classes, seed, sharpness):
    target, logits = make_case(num_classes, seed, sharpness=sharpness)
    found = fit_temperature(target, logits)
    assert found.bias is None
    losses = [loss_of(target, logits, Scaling(found.temperature * factor)) for factor in (0.99, 1, 1.01)]
    assert losses[1] == min(losses)


@pytest.mark.skipif(
    "temperature" not in (inspect.getdoc(CalibratedClassifierCV) or ""), reason="scikit-learn 1.8 brings temperatures"
)
@pytest.mark.parametrize("num_classes", [3, 5])
def test_temperature_is_that_of_scikit_learn(num_classes):
    target, logits = make_case(num_classes, 3)
    model = CalibratedClassifierCV(FrozenEstimator(LinearLogits().fit(logits, target)), method="temperature")
    probs = model.fit(logits, target).predict_proba(logits)
    np.testing.assert_allclose(fit_temperature(target, logits).to_probs(logits), probs, atol=1e-5)


def test_scaling_of_two_classes_is_the_logistic_regression_of_scikit_learn():
    target, logits = make_case(2, 1)
    margins = (logits[:, 1] - logits[:, 0])[:, None]
    expected = LogisticRegression(C=np.inf, tol=1e-10).fit(margins, target).predict_proba(margins)
    np.testing.assert_allclose(fit_scaling(target, logits).to_probs(logits), expected, atol=1e-5)


@pytest.mark.parametrize(("num_classes", "seed"), CASES)
def test_scaling_has_the_least_log_loss(num_classes, seed):
    target, logits = make_case(num_classes, seed)
    logits = 3.0 * logits + np.arange(num_classes)
    found = fit_scaling(target, logits)
    least = loss_of(target, logits, found)
    rng = np.random.default_rng(0)
    for _ in range(20):
        bias = np.array(found.bias) + rng.normal(0, 0.02, num_classes)
        other = Scaling(found.temperature * np.exp(rng.normal(0, 0.02)), tuple(bias))
        assert loss_of(target, logits, other) > least
    assert sum(found.bias) == pytest.approx(0, abs=1e-9)
    shares = found.to_probs(logits).mean(axis=0)
    np.testing.assert_allclose(shares, np.bincount(target) / len(target), atol=1e-4)


def test_scaling_finds_back_what_was_done_to_the_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50_000, 3))
    target = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((50_000, 1))).sum(axis=1)
    assert fit_temperature(target, 2.5 * logits).temperature == pytest.approx(2.5, rel=0.03)
    found = fit_scaling(target, 2.5 * (logits - [1.0, 0.0, -1.0]))
    assert found.temperature == pytest.approx(2.5, rel=0.03)
    np.testing.assert_allclose(found.bias, [1.0, 0.0, -1.0], atol=0.05)


def test_a_net_that_leans_to_one_class_is_put_right():
    """No temperature makes sense of logits that rank well around the wrong threshold."""
    target, logits = make_case(2, 0)
    leaning = logits + np.array([0.0, 30.0])
    found = fit_scaling(target, leaning)
    np.testing.assert_allclose(found.to_probs(leaning), fit_scaling(target, logits).to_probs(logits), atol=1e-5)


def test_few_rows_of_a_class_learn_no_bias():
    target, logits = make_case(2, 0)
    few = np.concatenate([np.flatnonzero(target == 0), np.flatnonzero(target == 1)[: LEAST_OF_EACH - 1]])
    assert fit_scaling(target[few], logits[few]) == fit_temperature(target[few], logits[few])
    enough = np.append(few, np.flatnonzero(target == 1)[LEAST_OF_EACH])
    assert fit_scaling(target[enough], logits[enough]).bias is not None


def test_classes_that_another_threshold_separates_have_a_temperature_alone():
    margins = np.linspace(0.5, 4.5, 80)
    target, logits = (margins > 2).astype(int), np.stack([np.zeros(80), margins], axis=1)
    assert fit_scaling(target, logits) == fit_temperature(target, logits)


@pytest.mark.parametrize("logits", [[[2.0, 0], [0, 1]], [[0.0, 2], [1, 0]]], ids=["separated", "worse than chance"])
@pytest.mark.parametrize("fit", [fit_scaling, fit_temperature])
def test_what_has_no_best_scaling_has_none(fit, logits):
    assert fit([0, 1], logits) is None


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="expected finite logits, got 1 NaN"):
        fit_temperature([0, 1], [[np.nan, 1], [0, 1]])


def test_targets_that_do_not_fit_the_logits_are_refused():
    with pytest.raises(DataError, match=r"got targets \(1,\) and probabilities \(2, 2\)"):
        fit_temperature([0], [[0, 1], [0, 1]])


def test_metrics_of_two_classes_are_of_class_1():
    target, logits = make_case(2, 0)
    probs = softmax(logits, axis=1)
    found = calibration_metrics(target, probs, ["no", "yes"])
    assert list(found) == [
        *("brier", "log_loss", "ece"),
        *("calibration_slope", "calibration_intercept", "calibration_in_the_large"),
    ]
    assert found["calibration_slope"] == recalibration(target == 1, probs[:, 1]).slope
    flipped = calibration_metrics(1 - target, probs[:, ::-1], ["yes", "no"])
    assert flipped["calibration_slope"] == pytest.approx(found["calibration_slope"])
    assert flipped["calibration_intercept"] == pytest.approx(-found["calibration_intercept"])


def test_metrics_of_more_classes_are_of_each_against_the_rest():
    target, logits = make_case(3, 0)
    probs = softmax(logits, axis=1)
    found = calibration_metrics(target, probs, ["a", "b", "c"])
    assert found["ece/b"] == calibration_error(target == 1, probs[:, 1])
    assert found["calibration_slope/c"] == recalibration(target == 2, probs[:, 2]).slope
    assert len(found) == 3 + 3 * 4
