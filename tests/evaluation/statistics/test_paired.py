import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr.errors import DataError
from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.statistics.delong import delong_difference
from cxr.evaluation.statistics.paired import METHOD, difference_of_draws, mcnemar, paired_differences

from .made_up import NAMES, make_case, make_probs


def two_models(rows=400, patients=400, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.integers(2, size=rows)
    first, second = (make_probs(rng, target, 2, digits=6, skill=skill) for skill in (1.5, 1.0))
    return target, first, second, np.arange(rows) % patients


def test_values_are_differences_of_the_metrics():
    target, first, second, groups = two_models()
    names = list(classification_metrics(target, first, NAMES[:2]))
    found = paired_differences(target, first, second, groups, NAMES[:2], names)
    ours, theirs = (classification_metrics(target, probs, NAMES[:2]) for probs in (first, second))
    assert {name: one.value for name, one in found.items()} == pytest.approx({n: ours[n] - theirs[n] for n in names})
    assert all(one.method == METHOD and one.low < one.value < one.high for one in found.values())


def test_with_one_row_for_each_patient_it_agrees_with_delong():
    target, first, second, groups = two_models()
    found = paired_differences(target, first, second, groups, NAMES[:2], ["auroc"], draws=4000)["auroc"]
    expected = delong_difference(target == 1, first[:, 1], second[:, 1])
    assert found.value == pytest.approx(expected.value)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=0.06)  # 5 Monte Carlo errors
    assert found.smallest == pytest.approx(expected.smallest, rel=0.06)


def test_pairing_narrows_the_interval_of_models_that_agree():
    target, first, second, groups = two_models()
    paired = paired_differences(target, first, 0.7 * first + 0.3 * second, groups, NAMES[:2], ["auroc"])["auroc"]
    apart = paired_differences(target, first, second, groups, NAMES[:2], ["auroc"])["auroc"]
    assert paired.standard_error < 0.6 * apart.standard_error


def test_swapping_the_models_turns_the_sign():
    target, first, second, groups = two_models(patients=80)
    one = paired_differences(target, first, second, groups, NAMES[:2], ["mcc"])["mcc"]
    other = paired_differences(target, second, first, groups, NAMES[:2], ["mcc"])["mcc"]
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p_value == pytest.approx(other.p_value)


def test_a_model_does_not_differ_from_itself():
    target, probs, groups = make_case(2)
    found = paired_differences(target, probs, probs, groups, NAMES[:2], ["auroc"])["auroc"]
    assert (found.value, found.p_value, found.method) == (0, 1, "every bootstrap sample gives the same value")
    assert np.isnan([found.low, found.high, found.smallest]).all()


@pytest.mark.parametrize(
    ("value", "drawn", "groups", "reason"),
    [
        (math.nan, np.full(1000, math.nan), 10, "not measurable on these rows"),
        (0.1, np.where(np.arange(1000) < 800, 0.1, math.nan), 10, "measurable in only 800 of 1000 bootstrap samples"),
        (0.1, np.linspace(0, 1, 1000), 1, "fewer than two patients"),
    ],
)
def test_a_difference_without_an_interval_says_why(value, drawn, groups, reason):
    found = difference_of_draws(value, drawn, groups)
    assert found.method == reason
    assert np.isnan([found.low, found.high, found.p_value]).all()


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 10))
def test_mcnemar_is_the_sign_test_of_rows_that_one_has_right(only_first, only_second, both):
    first = np.repeat([True, False, True], [only_first, only_second, both])
    second = np.repeat([False, True, True], [only_first, only_second, both])
    found = mcnemar(first, second)
    together = only_first + only_second
    tail = sum(math.comb(together, k) for k in range(min(only_first, only_second) + 1)) / 2**together
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p_value == pytest.approx(min(2 * tail, 1.0))


def test_mcnemar_refuses_lengths_that_differ():
    with pytest.raises(DataError, match="expected two models on the same rows, got 2 and 3 rows"):
        mcnemar(np.ones(2, dtype=bool), np.ones(3, dtype=bool))
