import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.errors import DataError
from cxr.evaluation.selective import (
    Answers,
    area_under_risk_coverage,
    choose_by_coverage,
    choose_by_risk,
    count_answers,
    risk_coverage_curve,
)

ROWS = st.lists(st.tuples(st.booleans(), st.floats(0.5, 1) | st.sampled_from([0.6, 0.75, 1.0])), min_size=1)


def two_class(rows):
    """Targets and probabilities of rows (correct, confidence) that all predict class 1."""
    confidence = np.array([c for _, c in rows])
    confidence = np.nextafter(np.maximum(confidence, np.nextafter(0.5, 1)), 1)
    return np.array([int(right) for right, _ in rows]), np.stack([1 - confidence, confidence], axis=1)


FOUR = two_class([(True, 0.9), (False, 0.8), (True, 0.7), (False, 0.6)])


def test_a_curve_by_hand():
    curve = risk_coverage_curve(*FOUR)
    assert curve["coverage"].tolist() == [0.25, 0.5, 0.75, 1]
    assert curve["risk"].tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve[["kept", "errors"]].to_numpy().tolist() == [[1, 0], [2, 1], [3, 1], [4, 2]]
    assert area_under_risk_coverage(*FOUR) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_ties_are_the_mean_over_all_orders():
    right = [True, False, True, False, True]
    confidence = [0.9, 0.8, 0.8, 0.8, 0.6]
    areas = []
    for order in permutations([1, 2, 3]):
        wrong = [not right[i] for i in (0, *order, 4)]
        areas.append(np.mean(np.cumsum(wrong) / np.arange(1, 6)))
    found = area_under_risk_coverage(*two_class(list(zip(right, confidence, strict=True))))
    assert found == pytest.approx(np.mean(areas))


@settings(deadline=None)
@given(ROWS)
def test_laws_of_the_curve(rows):
    target, probs = two_class(rows)
    curve = risk_coverage_curve(target, probs)
    error_rate = 1 - target.mean()
    assert curve["coverage"].is_monotonic_increasing
    assert curve["coverage"].iloc[-1] == 1
    assert curve["risk"].iloc[-1] == pytest.approx(error_rate)
    assert len(curve) == len(np.unique(probs.max(axis=1)))
    for _, row in curve.iterrows():
        assert count_answers(target, probs, row["threshold"]) == Answers(len(rows), row["kept"], row["errors"])
    equal = np.full_like(probs, 0.25)
    equal[:, 1] = 0.75
    assert area_under_risk_coverage(target, equal) == pytest.approx(error_rate)


@settings(deadline=None)
@given(ROWS, st.floats(0, 1))
def test_the_wanted_coverage_is_reached_and_no_more_than_needed(rows, coverage):
    target, probs = two_class(rows)
    point = choose_by_coverage(target, probs, coverage)
    assert point.answers.coverage >= coverage
    assert point.answers == count_answers(target, probs, point.threshold)
    curve = risk_coverage_curve(target, probs)
    assert not ((curve["coverage"] >= coverage) & (curve["kept"] < point.answers.kept)).any()


@settings(deadline=None)
@given(ROWS, st.floats(0, 1))
def test_the_wanted_risk_is_kept_at_the_largest_coverage(rows, risk):
    target, probs = two_class(rows)
    curve = risk_coverage_curve(target, probs)
    if curve["risk"].min() > risk:
        with pytest.raises(DataError, match="at some coverage, got"):
            choose_by_risk(target, probs, risk)
        return
    point = choose_by_risk(target, probs, risk)
    assert point.answers.risk <= risk
    assert point.answers == count_answers(target, probs, point.threshold)
    assert not ((curve["risk"] <= risk) & (curve["kept"] > point.answers.kept)).any()


def test_a_risk_that_falls_again_at_a_larger_coverage_is_taken_there():
    point = choose_by_risk(*FOUR, 0.4)
    assert point.answers == Answers(n=4, kept=3, errors=1)
    assert point.apply(*two_class([(False, 0.7), (True, 0.61)])) == Answers(n=2, kept=1, errors=1)


def test_a_risk_that_no_coverage_has_is_refused():
    with pytest.raises(DataError, match=r"expected a risk of at most 0.1 at some coverage, got 0.5 or more"):
        choose_by_risk(*two_class([(False, 0.9), (True, 0.8)]), 0.1)


def test_a_point_tells_what_it_gave_in_plain_values():
    stored = choose_by_coverage(*FOUR, 0.5).to_dict()
    assert json.loads(json.dumps(stored)) == stored
    assert stored | {"threshold": 0} == {
        "rule": "coverage >= 0.5", "threshold": 0, "chosen_on": "val", "coverage": 0.5, "risk": 0.5,
        "n": 4, "kept": 2, "errors": 1,
    }  # fmt: skip


def test_a_threshold_that_answers_nothing_has_no_risk():
    answers = count_answers(*FOUR, 0.99)
    assert answers.coverage == 0
    assert np.isnan(answers.risk)


@pytest.mark.parametrize(("choose", "name"), [(choose_by_risk, "risk"), (choose_by_coverage, "coverage")])
def test_what_is_no_share_is_refused(choose, name):
    with pytest.raises(DataError, match=f"expected a {name} from 0 to 1, got 5"):
        choose(*FOUR, 5)
