import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.statistics.resampling import draw_weights
from cxr.evaluation.statistics.weighted import WeightedMetrics, rank, weighted_areas, weighted_envelope

from .made_up import NAMES, make_case


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_weights_do_what_repeated_rows_do(classes):
    target, probs, groups = make_case(classes)
    names = NAMES[:classes]
    wanted = list(classification_metrics(target, probs, names))
    weights = next(draw_weights(np.unique(groups, return_inverse=True)[1], 1000, 0))[:, :20]
    found = WeightedMetrics(target, probs, names, wanted).measure(weights)
    for column in range(20):
        rows = np.repeat(np.arange(len(target)), weights[:, column])
        expected = classification_metrics(target[rows], probs[rows], names)
        assert {name: found[name][column] for name in wanted} == pytest.approx(expected, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10**6))
def test_areas_equal_those_of_scikit_learn_with_sample_weights(rows, levels, seed):
    rng = np.random.default_rng(seed)
    positive, score = rng.random(rows) < 0.5, rng.integers(levels, size=rows).astype(float)
    weights = rng.integers(0, 4, size=(rows, 3)).astype(np.int32)
    auroc, average = weighted_areas(rank(positive, score), weights)
    for column in range(3):
        kept = weights[:, column] > 0
        truth, place, weight = positive[kept], score[kept], weights[kept, column]
        if not truth.any():
            assert np.isnan([auroc[column], average[column]]).all()
            continue
        assert average[column] == pytest.approx(average_precision_score(truth, place, sample_weight=weight))
        if truth.all():
            assert np.isnan(auroc[column])
        else:
            assert auroc[column] == pytest.approx(roc_auc_score(truth, place, sample_weight=weight))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10**6))
def test_the_envelope_is_that_of_repeated_rows(rows, levels, seed):
    rng = np.random.default_rng(seed)
    positive, score = rng.random(rows) < 0.5, rng.integers(levels, size=rows).astype(float)
    weights = rng.integers(0, 4, size=(rows, 3)).astype(np.int32)
    found = weighted_envelope(rank(positive, score), weights)
    for column in range(3):
        truth, place = (np.repeat(values, weights[:, column]) for values in (positive, score))
        if not truth.any():
            assert np.isnan(found[column])
            continue
        precision, recall, _ = precision_recall_curve(truth, place)
        expected = sum((recall[i] - recall[i + 1]) * precision[: i + 1].max() for i in range(len(recall) - 1))
        assert found[column] == pytest.approx(expected)


def test_only_what_is_wanted_is_ranked():
    target, probs, _ = make_case(2)
    assert list(WeightedMetrics(target, probs, NAMES[:2], ["accuracy"]).rankings) == []
    assert list(WeightedMetrics(target, probs, NAMES[:2], ["auroc"]).rankings) == [1]
    target, probs, _ = make_case(4)
    assert list(WeightedMetrics(target, probs, NAMES, ["auroc/Typical"]).rankings) == [1]
    assert list(WeightedMetrics(target, probs, NAMES, ["average_precision"]).rankings) == [0, 1, 2, 3]


@pytest.mark.filterwarnings("error")
def test_no_rows_at_all_give_nan():
    target, probs, _ = make_case(2)
    found = WeightedMetrics(target, probs, NAMES[:2], ["accuracy", "auroc", "sensitivity"]).measure(
        np.zeros((len(target), 2), dtype=np.int32)
    )
    assert all(np.isnan(values).all() for values in found.values())
