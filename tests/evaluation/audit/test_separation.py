import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from cxr.evaluation.audit.separation import (
    FOLDS,
    auroc_by_class,
    separate_by_features,
    separate_by_scores,
)

FEW = {"penalty": 1.0, "permutations": 99}


def draw(seed, count=120, classes=2, shift=0.0, width=6):
    """Features of which the first is moved by `shift` for each class."""
    rng = np.random.default_rng(seed)
    target = rng.permutation(np.arange(count) % classes)
    features = rng.normal(size=(count, width))
    features[:, 0] += shift * target
    return features, target


@pytest.mark.parametrize("classes", [2, 3])
def test_auroc_is_that_of_scikit_learn_in_each_fold(classes):
    features, target = draw(0, classes=classes, shift=0.7)
    found = auroc_by_class(features, target, penalty=1.0, seed=3)
    for k in range(classes):
        right, pairs = 0.0, 0
        for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=3).split(features, target):
            scores = Ridge(alpha=1.0).fit(features[train], target[train] == k).predict(features[test])
            positive = target[test] == k
            weight = positive.sum() * (~positive).sum()
            right, pairs = right + weight * roc_auc_score(positive, scores), pairs + weight
        assert found[k] == pytest.approx(right / pairs, abs=1e-9)


@pytest.mark.parametrize("scale", [1, 1e-9])
def test_given_scores_are_taken_as_they_are(scale):
    _, target = draw(1, classes=3)
    scores = scale * np.random.default_rng(1).random((len(target), 3)).round(1)
    found = separate_by_scores(scores, target, permutations=9)
    expected = [roc_auc_score(target == k, scores[:, k]) for k in range(3)]
    assert found.by_class == pytest.approx(expected)
    assert found.auroc == pytest.approx(np.mean(expected))
    assert found.strongest == int(np.argmax(expected))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_gives_the_class_away_is_found(dtype):
    _, target = draw(2)
    found = separate_by_features(np.eye(2, dtype=dtype)[target], target, **FEW)
    assert found.auroc == 1
    assert found.p_value == pytest.approx(0.01)
    assert 0.9 < found.interval[0] < found.interval[1] == 1
    assert found.chance[1] < 0.8
    assert found.patients == 120


def test_one_class_of_three_that_is_given_away_counts():
    _, target = draw(3, classes=3)
    found = separate_by_features((target == 2)[:, None].astype(float), target, **FEW)
    assert found.strongest == 2
    assert found.by_class == pytest.approx((0.75, 0.75, 1.0), abs=0.02)
    assert found.auroc < 0.9
    assert found.chance[1] < found.strongest_chance[1] < 0.8
    assert found.p_value == pytest.approx(0.01)


def test_a_constant_gives_exactly_one_half():
    _, target = draw(4)
    found = separate_by_features(np.ones((len(target), 3)), target, **FEW)
    assert (found.auroc, found.p_value, found.chance, found.strongest_chance) == (0.5, 1.0, (0.5, 0.5), (0.5, 0.5))


def test_chance_passes_a_threshold_as_often_as_the_threshold_says():
    p_values = []
    for seed in range(200):
        features, target = draw(seed, count=60)
        p_values.append(separate_by_features(features, target, penalty=1.0, permutations=19, seed=seed).p_value)
    assert 0.02 <= np.mean(np.array(p_values) <= 0.1) <= 0.18  # 20 expected, SD 4.2


def test_strata_take_away_what_only_tells_the_stratum():
    rng = np.random.default_rng(5)
    strata = rng.integers(0, 2, 300)
    target = (rng.random(300) < np.where(strata == 1, 0.9, 0.1)).astype(int)
    features = strata[:, None] + rng.normal(0, 0.01, (300, 1))
    assert separate_by_features(features, target, **FEW).auroc > 0.8
    within = separate_by_features(features, target, strata=strata, **FEW)
    assert within.auroc < 0.65
    assert within.p_value > 0.01


def test_the_same_seed_gives_the_same_result():
    features, target = draw(6, shift=0.5)
    assert separate_by_features(features, target, **FEW) == separate_by_features(features, target, **FEW)


def test_parts_of_the_shuffles_change_nothing(monkeypatch):
    features, target = draw(7, classes=3, shift=0.3)
    whole = separate_by_features(features, target, **FEW)
    monkeypatch.setattr("cxr.evaluation.audit.separation._CHUNK", 1000)
    assert separate_by_features(features, target, **FEW) == whole
