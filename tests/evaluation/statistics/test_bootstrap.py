import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t as student

from cxr.errors import DataError
from cxr.evaluation.metrics import classification_metrics, study_map
from cxr.evaluation.statistics.bootstrap import (
    METHOD,
    bootstrap_metrics,
    bootstrap_statistic,
    bootstrap_study_map,
    interval_of_draws,
    metric_range,
    patients_behind,
    resample_metrics,
    resample_parts,
)
from cxr.evaluation.statistics.intervals import auroc_interval, exact_proportion

from .made_up import NAMES, make_case, make_probs


@pytest.mark.parametrize("classes", [2, 4])
def test_every_metric_has_its_value_within_its_interval(classes):
    target, probs, groups = make_case(classes)
    names = NAMES[:classes]
    found = bootstrap_metrics(target, probs, groups, names)
    assert {name: one.value for name, one in found.items()} == pytest.approx(
        classification_metrics(target, probs, names)
    )
    for name, one in found.items():
        low, high = metric_range(name)
        assert low <= one.low < one.value < one.high <= high, name


def test_shares_of_rows_show_their_counts():
    target, probs, groups = make_case(2)
    found = bootstrap_metrics(target, probs, groups, NAMES[:2])
    preds = probs.argmax(axis=1)
    assert (found["accuracy"].k, found["accuracy"].n) == ((preds == target).sum(), len(target))
    assert (found["sensitivity"].k, found["sensitivity"].n) == ((preds[target == 1] == 1).sum(), (target == 1).sum())
    assert (found["npv"].k, found["npv"].n) == ((target[preds == 0] == 0).sum(), (preds == 0).sum())
    shares = {name for name, one in found.items() if one.n is not None}
    for name in shares:
        assert found[name].value == pytest.approx(found[name].k / found[name].n)
    assert shares == {"accuracy", "f1_micro", "sensitivity", "specificity", "ppv", "npv"} | {
        f"{metric}/{label}" for metric in ("precision", "recall", "specificity") for label in NAMES[:2]
    }


def test_draws_are_those_of_a_plain_loop():
    target, probs, groups = make_case(2, rows=60, patients=20)
    names = NAMES[:2]
    found = resample_metrics(target, probs, groups, names, ["mcc", "auroc"])
    assert {name: len(drawn) for name, drawn in found.items()} == {"mcc": 1000, "auroc": 1000}
    rng, patients, preds = np.random.default_rng(1), np.unique(groups), probs.argmax(axis=1)
    loop = []
    for _ in range(1000):
        rows = np.concatenate([np.flatnonzero(groups == one) for one in rng.choice(patients, len(patients))])
        loop.append(np.corrcoef(target[rows], preds[rows])[0, 1])
    assert found["mcc"].mean() == pytest.approx(np.mean(loop), abs=0.02)
    assert found["mcc"].std() == pytest.approx(np.std(loop), rel=0.1)


def test_parts_of_the_rows_are_drawn_with_the_same_patients():
    target, probs, groups = make_case(2)
    inside = np.arange(len(target)) < 60
    found = resample_parts(target, probs, groups, NAMES[:2], ["accuracy"], [inside, ~inside])
    own, rest = (draws["accuracy"] for draws in found)
    whole = resample_metrics(target, probs, groups, NAMES[:2], ["accuracy"])["accuracy"]
    assert ((np.minimum(own, rest) <= whole) & (whole <= np.maximum(own, rest))).all()


def test_a_perfect_model_has_exact_intervals_that_count_patients():
    target, groups = np.repeat([0, 1], 30), np.arange(60) // 3
    probs = np.where(target == 1, 0.9, 0.2)
    found = bootstrap_metrics(target, np.stack([1 - probs, probs], axis=1), groups, NAMES[:2])
    exact = exact_proportion(10, 10)
    assert (found["sensitivity"].low, found["sensitivity"].high) == (exact.low, exact.high)
    assert (found["sensitivity"].k, found["sensitivity"].n) == (30, 30)
    assert found["sensitivity"].method == "Clopper-Pearson, patients: 10"
    assert (found["auroc"].low, found["auroc"].high) == auroc_interval(1.0, 10, 10)
    assert found["auroc"].method == "Newcombe score, patients: 10 and 10"
    assert found["auroc/Negative"].low == found["auroc"].low
    assert found["mcc"].method == "every bootstrap sample gives the same value"
    assert np.isnan(found["mcc"].low)


def test_a_model_that_is_never_right_has_a_share_of_0_with_a_width():
    target, groups = np.repeat([0, 1], 10), np.arange(20)
    found = bootstrap_metrics(target, np.eye(2)[1 - target], groups, NAMES[:2])["accuracy"]
    assert (found.value, found.low, found.k, found.n) == (0, 0, 0, 20)
    assert found.high == exact_proportion(0, 20).high


def test_what_most_draws_cannot_measure_has_no_interval():
    target = np.array([1] + [0] * 39)
    probs = make_probs(np.random.default_rng(0), target, 2)
    found = bootstrap_metrics(target, probs, np.arange(40), NAMES[:2])
    assert found["auroc"].method.startswith("measurable in only ")
    assert np.isfinite(found["auroc"].value)
    assert np.isnan(found["auroc"].low)


def test_what_the_rows_cannot_measure_says_so():
    target = np.zeros(30, dtype=int)
    probs = make_probs(np.random.default_rng(0), target, 2)
    found = bootstrap_metrics(target, probs, np.arange(30), NAMES[:2])
    assert found["auroc"].method == found["sensitivity"].method == "not measurable on these rows"
    assert (found["sensitivity"].k, found["sensitivity"].n) == (0, 0)


def test_one_patient_gives_no_interval():
    target, probs, _ = make_case(2)
    found = bootstrap_metrics(target, probs, np.zeros(len(target)), NAMES[:2])
    assert {found[name].method for name in ("auroc", "accuracy", "mcc")} == {"fewer than two patients"}


def test_an_interval_is_symmetric_on_the_logit_scale():
    drawn = np.random.default_rng(0).normal(0.8, 0.05, 5000)
    found = interval_of_draws(0.8, drawn, 30, (0.0, 1.0))
    half = student.ppf(0.975, 29) * drawn.std(ddof=1) * np.sqrt(30 / 29) / (0.8 * 0.2)
    assert (found.low, found.high) == pytest.approx((expit(logit(0.8) - half), expit(logit(0.8) + half)))
    free = interval_of_draws(0.8, drawn, 30)
    assert (0.8 - free.low, free.high - 0.8) == pytest.approx((half * 0.16, half * 0.16))
    assert found.method == free.method == METHOD


def test_a_value_at_the_end_of_its_range_has_no_interval_by_draws():
    found = interval_of_draws(1.0, np.linspace(0.5, 1, 1000), 30, (0.0, 1.0))
    assert found.method == "the value is at the end of its range"


@pytest.mark.parametrize(
    ("name", "expected"), [("accuracy", 5), ("auroc", 2), ("recall/Negative", 2), ("f1/Typical", 2), ("mcc", 2)]
)
def test_behind_a_metric_stand_the_patients_of_its_smaller_side(name, expected):
    target, groups = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 2, 3, 3, 4])
    assert patients_behind(name, target, groups, NAMES[:2]) == expected


def test_a_class_without_a_case_does_not_count_as_the_smallest():
    assert patients_behind("f1_macro", np.array([0, 0, 1]), np.arange(3), NAMES[:3]) == 1


def test_a_class_whose_name_ends_in_that_of_another():
    target, names = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2]), ["opacity", "left/opacity", "none"]
    assert patients_behind("auroc/left/opacity", target, np.arange(9), names) == 3


def test_any_statistic_of_rows_is_drawn_as_the_metrics_are():
    target, probs, groups = make_case(2)
    right = probs.argmax(axis=1) == target

    def statistic(rows):
        return {"accuracy": right[rows].mean(), "brier": ((probs[rows, 1] - target[rows]) ** 2).mean()}

    found = bootstrap_statistic(statistic, groups, {"accuracy": (0, 1)})
    drawn = resample_metrics(target, probs, groups, NAMES[:2], ["accuracy"])["accuracy"]
    expected = interval_of_draws(right.mean(), drawn, len(np.unique(groups)), (0, 1))
    assert (found["accuracy"].low, found["accuracy"].high) == pytest.approx((expected.low, expected.high))
    assert found["brier"].low < found["brier"].value < found["brier"].high


def test_study_map_is_drawn_as_the_metrics_are():
    target, probs, groups = make_case(3, rows=90, patients=40)
    found = bootstrap_study_map(target, probs, groups, NAMES[:3])
    plain = bootstrap_statistic(
        lambda rows: {"study_map": study_map(target[rows], probs[rows], NAMES[:3])}, groups, {"study_map": (0, 1)}
    )["study_map"]
    assert found.value == plain.value == study_map(target, probs, NAMES[:3])
    assert found.low < found.value < found.high
    behind = patients_behind("study_map", target, groups, NAMES[:3])
    assert behind < len(np.unique(groups))  # fewer patients than the plain statistic rests on: a little wider
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.02)


def test_unknown_metrics_are_refused():
    target, probs, groups = make_case(2)
    with pytest.raises(DataError, match=r"expected names of metrics, got \['loss'\]; choose from \['accuracy'"):
        resample_metrics(target, probs, groups, NAMES[:2], ["loss", "auroc"])
