import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_curve

from cxr.errors import ConfigError, DataError
from cxr.evaluation.operating_point import (
    AtLeast,
    Counts,
    Fixed,
    LeastCost,
    OperatingPoint,
    Youden,
    choose_operating_point,
    count_calls,
    parse_rule,
    predictive_values,
)
from cxr.evaluation.thresholds import candidate_thresholds

SHARES = st.floats(0.01, 1) | st.sampled_from([0.07, 0.57, 0.9, 0.95, 1.0])
ROWS = st.lists(st.tuples(st.booleans(), st.floats(0, 1) | st.sampled_from([0.2, 0.5, 1.0])), min_size=2).filter(
    lambda rows: len({yes for yes, _ in rows}) == 2
)
RULES = [AtLeast("sensitivity", 0.95), AtLeast("specificity", 0.8), Youden(), LeastCost(10.0, 1.0, 0.1), Fixed(0.5)]


def choose(positive, score, rule):
    return choose_operating_point(positive, score, rule, positive_class="pneumonia")


def unzip(rows):
    return np.array([yes for yes, _ in rows]), np.array([score for _, score in rows])


def make_case(seed=0, n=300):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    return positive, np.round(rng.normal(size=n) + 1.5 * positive, 1)


def calls_at_all_thresholds(positive, score):
    return [count_calls(positive, score, threshold) for threshold in candidate_thresholds(score)]


@settings(deadline=None)
@given(ROWS, SHARES, st.sampled_from(["sensitivity", "specificity"]))
def test_the_wanted_share_is_reached_and_no_other_threshold_is_better(rows, value, measure):
    positive, score = unzip(rows)
    found = choose(positive, score, AtLeast(measure, value)).counts
    other = "specificity" if measure == "sensitivity" else "sensitivity"
    assert getattr(found, measure) >= value
    reaching = [one for one in calls_at_all_thresholds(positive, score) if getattr(one, measure) >= value]
    assert getattr(found, other) == max(getattr(one, other) for one in reaching)
    rivals = [one for one in reaching if getattr(one, other) == getattr(found, other)]
    assert getattr(found, measure) == max(getattr(one, measure) for one in rivals)


@pytest.mark.parametrize("seed", range(4))
def test_youden_is_the_largest_distance_of_the_roc_curve(seed):
    positive, score = make_case(seed)
    fpr, tpr, _ = roc_curve(positive, score)
    found = choose(positive, score, Youden()).counts
    assert found.sensitivity + found.specificity - 1 == pytest.approx((tpr - fpr).max())


def test_of_two_equal_youden_points_the_more_sensitive_is_taken():
    point = choose([1, 0, 1, 0], [0.9, 0.7, 0.5, 0.3], Youden())
    assert (point.counts.sensitivity, point.counts.specificity) == (1, 0.5)


@pytest.mark.parametrize(("miss", "alarm", "prevalence"), list(product([1, 20], [1, 5], [0.02, 0.5])))
def test_the_least_cost_is_the_least_of_all_thresholds(miss, alarm, prevalence):
    positive, score = make_case()

    def cost(one):
        return miss * prevalence * (1 - one.sensitivity) + alarm * (1 - prevalence) * (1 - one.specificity)

    least = min(cost(one) for one in calls_at_all_thresholds(positive, score))
    assert cost(choose(positive, score, LeastCost(miss, alarm, prevalence)).counts) == pytest.approx(least)


def test_of_two_equal_costs_the_more_sensitive_is_taken():
    point = choose([1, 0, 1, 0], [0.9, 0.7, 0.5, 0.3], LeastCost(0.3, 0.3, 0.5))
    assert (point.counts.sensitivity, point.counts.specificity) == (1, 0.5)


def test_a_fixed_threshold_of_one_half_is_the_most_probable_class():
    prob = np.random.default_rng(0).random(100)
    positive = np.random.default_rng(1).random(100) < prob
    expected = confusion_matrix(positive, np.stack([1 - prob, prob]).argmax(axis=0))
    counts = choose(positive, prob, Fixed()).counts
    assert [[counts.tn, counts.fp], [counts.fn, counts.tp]] == expected.tolist()


def test_the_threshold_lies_half_way_to_the_next_score():
    point = choose([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9], AtLeast("sensitivity", 1.0))
    assert point.threshold == pytest.approx(0.4)
    assert (point.counts.sensitivity, point.counts.specificity) == (1, 1)


def test_a_sensitivity_may_take_calling_all_positive_and_a_specificity_none():
    positive, score = [1, 0, 0], [0.1, 0.5, 0.9]
    assert choose(positive, score, AtLeast("sensitivity", 0.9)).counts == Counts(tp=1, fp=2, tn=0, fn=0)
    assert choose(positive, score, AtLeast("specificity", 0.9)).counts == Counts(tp=0, fp=0, tn=2, fn=1)


def test_equal_scores_are_called_alike():
    point = choose([1, 1, 0, 0], [0.5] * 4, Youden())
    assert point.counts == Counts(tp=2, fp=2, tn=0, fn=0)


@pytest.mark.parametrize(("positive", "got"), [([1, 1], "2 and 0"), ([0, 0], "0 and 2")])
def test_one_outcome_alone_gives_no_operating_point(positive, got):
    with pytest.raises(DataError, match=f"rows of pneumonia and of others to choose an operating point on, got {got}"):
        choose(positive, [0.2, 0.4], Youden())


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_an_operating_point_survives_json(rule):
    point = choose(*make_case(), rule)
    assert OperatingPoint.from_dict(json.loads(json.dumps(point.to_dict()))) == point
    assert parse_rule(point.rule) == rule


def test_what_is_stored_tells_what_it_gave_there():
    stored = choose([0, 0, 1, 1], [0.1, 0.7, 0.6, 0.9], AtLeast("sensitivity", 0.9)).to_dict()
    assert stored == {
        "rule": "sensitivity >= 0.9", "threshold": pytest.approx(0.35), "positive_class": "pneumonia",
        "chosen_on": "val", "sensitivity": 1.0, "specificity": 0.5, "n": 4, "tp": 2, "fp": 1, "tn": 1, "fn": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"threshold": None}, {"threshold": float("nan")}, {"tp": 1.5}, {"tp": True}, {"rule": 3}], ids=str
)
def test_a_damaged_operating_point_is_refused(change):
    stored = choose(*make_case(), Youden()).to_dict() | change
    with pytest.raises(DataError, match="expected an operating point with rule, threshold, positive_class"):
        OperatingPoint.from_dict(stored)


def test_an_operating_point_with_a_value_missing_is_refused():
    with pytest.raises(DataError, match="chosen_on, tp, fp, tn and fn, got {'rule': 'youden'}; choose it again"):
        OperatingPoint.from_dict({"rule": "youden"})


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_counts_on_other_rows_are_those_of_the_same_threshold(rule):
    point = choose(*make_case(0), rule)
    positive, score = make_case(1)
    counts = point.apply(positive, score)
    assert [[counts.tn, counts.fp], [counts.fn, counts.tp]] == confusion_matrix(
        positive, score >= point.threshold
    ).tolist()
    assert counts.n == len(positive)
    assert counts.shares()["sensitivity"] == (counts.tp, positive.sum())
    for name, (k, n) in counts.shares().items():
        assert getattr(counts, name) == k / n


def test_shares_of_nothing_are_nan():
    counts = count_calls([0, 0], [0.1, 0.2], 0.5)
    assert np.isnan([counts.sensitivity, counts.ppv]).all()
    assert (counts.specificity, counts.npv) == (1, 1)


def test_predictive_values_of_a_published_example():
    # Altman and Bland 1994, BMJ 309:102: liver scans, 231 of 258 and 54 of 86 right
    counts = Counts(tp=231, fn=27, fp=32, tn=54)
    assert predictive_values(counts.sensitivity, counts.specificity, 258 / 344) == pytest.approx(
        (counts.ppv, counts.npv)
    )
    assert (round(counts.ppv, 2), round(counts.npv, 2)) == (0.88, 0.67)
    ppv, npv = predictive_values(counts.sensitivity, counts.specificity, 0.25)
    assert (round(ppv, 2), round(npv, 2)) == (0.45, 0.95)


def test_predictive_values_of_what_is_never_called_are_nan():
    assert predictive_values(0, 1, 0.2) == pytest.approx((np.nan, 0.8), nan_ok=True)
    assert predictive_values(1, 0, 0.2) == pytest.approx((0.2, np.nan), nan_ok=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [((1.1, 0.5, 0.5), "sensitivity from 0 to 1, got 1.1"), ((0.5, 0.5, 20), "prevalence from 0 to 1, got 20")],
)
def test_predictive_values_of_what_is_no_share_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        predictive_values(*values)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("sensitivity>=0.90", AtLeast("sensitivity", 0.9)),
        (" specificity >= 1 ", AtLeast("specificity", 1.0)),
        ("youden", Youden()),
        ("cost fn=10 fp=1 prevalence=1e-2", LeastCost(10, 1, 0.01)),
        ("threshold 0.5", Fixed(0.5)),
        ("threshold -1.25", Fixed(-1.25)),
    ],
)
def test_rules_are_read_from_text(text, rule):
    assert parse_rule(text) == rule


@settings(deadline=None)
@given(st.floats(0, 1, exclude_min=True), st.floats(0, 1e9, exclude_min=True), st.floats(-1e9, 1e9))
def test_the_text_of_a_rule_is_read_as_that_rule(share, cost, threshold):
    prevalence = min(share, 0.5)
    for rule in (AtLeast("specificity", share), LeastCost(cost, 1.0, prevalence), Fixed(threshold)):
        assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize("text", ["", "sensitivity", "accuracy >= 0.9", "sensitivity >= 0.9 youden", "threshold nan"])
def test_another_text_is_no_rule(text):
    with pytest.raises(ConfigError, match=r"expected an operating point by 'sensitivity >= 0.9', .*, got "):
        parse_rule(text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AtLeast("accuracy", 0.9), "least sensitivity or specificity, got 'accuracy'"),
        (lambda: AtLeast("sensitivity", 90), "sensitivity over 0 and at most 1, got 90"),
        (lambda: AtLeast("specificity", 0), "specificity over 0 and at most 1, got 0"),
        (lambda: LeastCost(0, 1, 0.5), "cost of a false negative over 0, got 0"),
        (lambda: LeastCost(1, float("inf"), 0.5), "cost of a false positive over 0, got inf"),
        (lambda: LeastCost(1, 1, 1), "prevalence over 0 and under 1, got 1"),
        (lambda: Fixed(float("nan")), "finite threshold, got nan"),
    ],
)
def test_rules_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
