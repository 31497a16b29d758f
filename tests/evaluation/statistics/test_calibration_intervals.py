import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from cxr.errors import DataError
from cxr.evaluation.calibration import assign_bins, calibration_metrics, of_class, of_top_label
from cxr.evaluation.statistics.bootstrap import half_width, interval_of_draws, patients_behind
from cxr.evaluation.statistics.calibration_intervals import (
    WeightedCalibration,
    bootstrap_calibration,
    calibration_range,
)
from cxr.evaluation.statistics.resampling import draw_weights, number_groups

from .made_up import NAMES, make_case


def bin_by_hand(positive, prob, bins, rows):
    """The calibration error of drawn rows in given bins."""
    gaps = [np.sum(prob[rows][bins[rows] == one] - positive[rows][bins[rows] == one]) for one in np.unique(bins)]
    return np.abs(gaps).sum() / len(rows)


def measure_by_hand(target, probs, names, rows):
    """`calibration_metrics` of drawn rows, but for the bins, which are those of all rows."""
    found = calibration_metrics(target[rows], probs[rows], names)
    outcomes = {"ece": of_class(target, probs, 1) if len(names) == 2 else of_top_label(target, probs)}
    outcomes |= {f"ece/{name}": of_class(target, probs, k) for k, name in enumerate(names)}
    return {
        name: bin_by_hand(*outcomes[name], assign_bins(outcomes[name][1]), rows) if name in outcomes else value
        for name, value in found.items()
    }


@pytest.mark.parametrize("classes", [2, 3])
def test_draws_are_those_of_a_plain_loop(classes):
    target, probs, groups = make_case(classes, rows=150, patients=60, digits=12)
    names = NAMES[:classes]
    weights = next(draw_weights(number_groups(groups, len(target)), 1000, 0))[:, :40]
    found = WeightedCalibration(target, probs, names).measure(weights)
    for column, counts in enumerate(weights.T):
        expected = measure_by_hand(target, probs, names, np.repeat(np.arange(len(target)), counts))
        assert {name: found[name][column] for name in expected} == pytest.approx(expected, abs=1e-5, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.001, 0.1, 0.3, 0.5, 0.9, 0.999]), st.integers(0, 3)),
        min_size=2,
        max_size=12,
    ).filter(lambda rows: sum(count for _, _, count in rows))
)
def test_any_weights_of_few_rows_give_what_the_repeated_rows_give(rows):
    target, prob, counts = (np.array(column) for column in zip(*rows, strict=True))
    target, probs = target.astype(int), np.stack([1 - prob, prob], axis=1)
    found = WeightedCalibration(target, probs, NAMES[:2]).measure(counts[:, None])
    expected = measure_by_hand(target, probs, NAMES[:2], np.repeat(np.arange(len(target)), counts))
    assert {name: found[name][0] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-4, nan_ok=True)


def test_rows_that_are_called_certain_have_the_shift_of_the_equation():
    """One row of no at 0 and three of yes at 1: e^s = 3 e^-s. Log-odds of 28 leave such a share some four digits."""
    probs = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = WeightedCalibration(np.array([0, 1]), probs, NAMES[:2]).measure(np.array([[1], [3]]))
    assert found["calibration_in_the_large"][0] == pytest.approx(np.log(3) / 2, rel=2e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_every_number_has_its_value_within_its_interval(classes):
    target, probs, groups = make_case(classes, digits=12)
    names = NAMES[:classes]
    found = bootstrap_calibration(target, probs, groups, names)
    assert {name: one.value for name, one in found.items()} == calibration_metrics(target, probs, names)
    for name, one in found.items():
        assert one.low < one.value < one.high, name
        if (limits := calibration_range(name, classes)) is not None:
            assert limits[0] <= one.low < one.high <= limits[1], name


def test_an_interval_is_that_of_the_draws():
    target, probs, groups = make_case(2, digits=12)
    numbers = number_groups(groups, len(target))
    weighted = WeightedCalibration(target, probs, NAMES[:2])
    chunks = [weighted.measure(weights) for weights in draw_weights(numbers, 1000, 5)]
    found = bootstrap_calibration(target, probs, groups, NAMES[:2], seed=5)
    behind = patients_behind("brier", target, numbers, NAMES[:2])
    for name, limits in {"brier": (0.0, 1.0), "calibration_slope": None}.items():
        drawn = np.concatenate([chunk[name] for chunk in chunks])
        assert found[name] == interval_of_draws(found[name].value, drawn, behind, limits)


def make_outcomes(slope, rows=3000):
    """Outcomes of which the given probabilities say too much or too little by a slope, one patient each."""
    rng = np.random.default_rng(0)
    log_odds = rng.normal(size=rows) * 1.5
    target, prob = (rng.random(rows) < expit(slope * log_odds)).astype(int), expit(log_odds)
    return target, np.stack([1 - prob, prob], axis=1), np.arange(rows)


def test_the_error_of_a_calibrated_model_may_be_0_and_that_of_another_may_not():
    calibrated = bootstrap_calibration(*make_outcomes(1.0), NAMES[:2])
    assert calibrated["ece"].low == 0 < calibrated["ece"].value
    assert calibrated["calibration_slope"].low < 1 < calibrated["calibration_slope"].high
    other = bootstrap_calibration(*make_outcomes(0.4), NAMES[:2])
    assert 0 < other["ece"].low < other["ece"].value
    assert other["calibration_slope"].low < 0.4 < other["calibration_slope"].high < 1


def test_chance_adds_to_an_error_so_its_interval_reaches_further_down():
    target, probs, groups = make_outcomes(0.4, rows=400)
    weighted = WeightedCalibration(target, probs, NAMES[:2])
    drawn = np.concatenate([weighted.measure(weights)["ece"] for weights in draw_weights(groups, 1000, 0)])
    found = bootstrap_calibration(target, probs, groups, NAMES[:2])["ece"]
    assert drawn.mean() > found.value
    behind = patients_behind("ece", target, groups, NAMES[:2])
    assert found.low == pytest.approx(2 * found.value - drawn.mean() - half_width(drawn, behind))


def test_several_images_of_a_patient_do_not_narrow_an_interval():
    target, probs, groups = make_case(2, digits=12)
    again = np.tile(np.arange(len(target)), 4)
    once = bootstrap_calibration(target, probs, groups, NAMES[:2])
    repeated = bootstrap_calibration(target[again], probs[again], groups[again], NAMES[:2])
    for name in ("brier", "log_loss", "calibration_slope", "calibration_intercept"):
        assert (repeated[name].low, repeated[name].high) == pytest.approx((once[name].low, once[name].high), rel=1e-4)


def test_separated_outcomes_have_no_slope_and_one_class_no_line_at_all():
    prob = np.linspace(0.1, 0.9, 40)
    probs, groups = np.stack([1 - prob, prob], axis=1), np.arange(40)
    found = bootstrap_calibration((prob > 0.5).astype(int), probs, groups, NAMES[:2])
    assert found["calibration_slope"].method == "not measurable on these rows"
    assert found["calibration_in_the_large"].low < found["calibration_in_the_large"].high
    alone = bootstrap_calibration(np.ones(40, int), probs, groups, NAMES[:2])
    assert alone["calibration_in_the_large"].method == "not measurable on these rows"
    assert alone["brier"].low < alone["brier"].value < alone["brier"].high


def test_too_few_draws_are_refused():
    with pytest.raises(DataError, match="expected at least 1000 bootstrap draws, got 10"):
        bootstrap_calibration(*make_case(2, digits=12), NAMES[:2], draws=10)
