"""Do 95% intervals hold the truth in 95% of samples? Simulated patients of one to four images each."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from cxr.evaluation.calibration import calibration_metrics
from cxr.evaluation.statistics.bootstrap import bootstrap_metrics, metric_intervals, resample_metrics
from cxr.evaluation.statistics.calibration_intervals import bootstrap_calibration
from cxr.evaluation.statistics.paired import paired_differences

NAMES = ["negative", "positive"]
REPEATS = 2000  # the Monte Carlo error of a coverage of 95% is 0.5%


def draw_patients(rng, patients, prevalence):
    groups = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    return (rng.random(patients) < prevalence)[groups].astype(int), groups


def draw_probs(rng, target, groups, shift):
    """Scores of variance 1, half of it common to a patient's images; cases lie `shift` higher."""
    noise = rng.normal(size=groups.max() + 1)[groups] + rng.normal(size=len(groups))
    positive = expit(shift * (target - 0.5) + noise / np.sqrt(2))
    return np.stack([1 - positive, positive], axis=1)


@pytest.mark.verify
@pytest.mark.parametrize(
    ("patients", "prevalence", "shift"),
    [(40, 0.5, 1.2), (100, 0.4, 1.2), (100, 0.4, 2.0), (150, 0.15, 1.2)],
    ids=["40 patients", "100 patients", "AUROC 0.92", "few cases"],
)
def test_intervals_hold_the_truth_as_often_as_they_say(patients, prevalence, shift):
    rng = np.random.default_rng(0)
    truth = {"auroc": norm.cdf(shift / np.sqrt(2)), "sensitivity": norm.cdf(shift / 2), "accuracy": norm.cdf(shift / 2)}
    held = {name: [] for name in truth}
    for repeat in range(REPEATS):
        target, groups = draw_patients(rng, patients, prevalence)
        probs = draw_probs(rng, target, groups, shift)
        drawn = resample_metrics(target, probs, groups, NAMES, truth, seed=repeat)
        for name, found in metric_intervals(target, probs, groups, NAMES, drawn).items():
            held[name].append(found.low <= truth[name] <= found.high)
    for name, times in held.items():
        assert 0.93 <= np.mean(times) <= 0.97, name


@pytest.mark.verify
@pytest.mark.parametrize(
    ("patients", "prevalence", "shift"),
    [(100, 0.4, 1.2), (150, 0.15, 1.2), (500, 0.4, 1.2), (100, 0.5, 1.0)],
    ids=["100 patients", "few cases", "500 patients", "calibrated"],
)
def test_intervals_of_calibration_hold_the_truth_as_often_as_they_say(patients, prevalence, shift):
    """The log odds of the outcome are `shift` times those given, and more or less common than they say."""
    rng = np.random.default_rng(0)
    target, groups = draw_patients(rng, 400_000, prevalence)
    truth = calibration_metrics(target, draw_probs(rng, target, groups, shift), NAMES)
    held = {name: [] for name in truth}
    for repeat in range(500):
        target, groups = draw_patients(rng, patients, prevalence)
        found = bootstrap_calibration(target, draw_probs(rng, target, groups, shift), groups, NAMES, seed=repeat)
        for name, one in found.items():
            held[name].append(one.low <= truth[name] <= one.high)
    for name, times in held.items():
        assert 0.92 <= np.mean(times) <= 0.99, name  # the Monte Carlo error is 1%


@pytest.mark.verify
def test_paired_differences_alarm_in_one_of_twenty_equal_pairs():
    rng = np.random.default_rng(0)
    p_values = {"auroc": [], "accuracy": []}
    for repeat in range(1000):
        target, groups = draw_patients(rng, 100, 0.4)
        first, second = (draw_probs(rng, target, groups, 1.2) for _ in range(2))
        found = paired_differences(target, first, second, groups, NAMES, p_values, seed=repeat)
        for name, difference in found.items():
            assert (difference.low <= 0 <= difference.high) == (difference.p_value >= 0.05)
            p_values[name].append(difference.p_value)
    for name, values in p_values.items():
        assert 0.03 <= np.mean(np.array(values) < 0.05) <= 0.07, name


def test_several_images_of_a_patient_do_not_narrow_an_interval():
    rng = np.random.default_rng(0)
    target, groups = draw_patients(rng, 200, 0.4)
    probs = draw_probs(rng, target, groups, 1.2)
    once = bootstrap_metrics(target, probs, groups, NAMES)["auroc"]
    again = np.tile(np.arange(len(target)), 5)
    repeated = bootstrap_metrics(target[again], probs[again], groups[again], NAMES)["auroc"]
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))
