"""Strategies see other folds alone; a mixture is what its rule makes of its members."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from cxr.ensemble.selection import select_weights
from cxr.experiments.automl import mixtures
from cxr.experiments.automl.mixtures import STRATEGIES, Library, Mixture, choose, cross_fit
from cxr.experiments.automl.task import Task
from cxr.inference.combine import Rule, log_features

CLASSES = ["normal", "covid", "viral"]
ROWS = 150


def make_library(noises, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, ROWS)
    samples = pd.DataFrame({
        "sample_id": [str(n) for n in range(ROWS)], "label": labels, "group": np.arange(ROWS),
    })  # fmt: skip
    task = Task(samples, CLASSES, np.arange(ROWS) % 5, "accuracy", lambda table: table)
    scores = [np.eye(3)[labels] * 2 + noise * rng.normal(size=(ROWS, 3)) for noise in noises]
    probs = np.stack([np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in scores])
    families = ["svm", "knn"] * len(noises)
    return Library([f"m{n}" for n in range(len(noises))], families[: len(noises)], probs, task)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_fold_is_judged_by_a_choice_that_did_not_see_it(strategy, monkeypatch):
    library = make_library([1.0, 2.0, 3.0])
    original, seen = STRATEGIES[strategy], []

    def watched(library, rows, size):
        seen.append(rows.copy())
        return original(library, rows, size)

    monkeypatch.setitem(mixtures.STRATEGIES, strategy, watched)
    probs = cross_fit(strategy, library, 10)
    for fold, rows in enumerate(seen):
        np.testing.assert_array_equal(rows, library.task.folds != fold)
        mixture = original(library, rows, 10)
        np.testing.assert_allclose(probs[~rows], mixture(library.probs[:, ~rows]))
    np.testing.assert_allclose(probs.sum(axis=1), 1)


def test_the_labels_of_a_fold_do_not_change_how_it_is_judged():
    library = make_library([1.0, 2.0, 3.0])
    fold = library.task.folds == 0
    samples = library.task.samples.copy()
    samples.loc[fold, "label"] = (samples.loc[fold, "label"] + 1) % 3
    task = Task(samples, CLASSES, library.task.folds, "accuracy", library.task.tell_ids)
    other = Library(library.names, library.families, library.probs, task)
    for strategy in STRATEGIES:
        first, second = (cross_fit(strategy, one, 10)[fold] for one in (library, other))
        np.testing.assert_array_equal(first, second)


def test_single_is_the_one_with_the_best_score():
    library = make_library([3.0, 0.5, 2.0])
    assert STRATEGIES["single"](library, np.ones(ROWS, bool), 1).members == [1]


def test_the_vote_has_the_weights_of_greedy_selection_without_those_of_none():
    library = make_library([1.0, 1.0, 9.0])
    mixture = STRATEGIES["vote"](library, np.ones(ROWS, bool), 20)
    weights = select_weights(library.probs, library.task.labels, 20)
    assert weights[2] == 0
    assert mixture.members == [0, 1]
    np.testing.assert_allclose(mixture(library.probs), np.tensordot(weights, library.probs, axes=1))


def test_the_stack_is_a_logistic_regression_on_the_best_of_each_family():
    library = make_library([3.0, 2.0, 1.0, 1.5])
    mixture = STRATEGIES["stack"](library, np.ones(ROWS, bool), 1)
    assert mixture.members == [2, 3]
    logs = log_features(library.probs[[2, 3]])
    expected = LogisticRegression(max_iter=10_000, tol=1e-8).fit(logs, library.task.labels).predict_proba(logs)
    np.testing.assert_allclose(mixture(library.probs), expected, atol=1e-6)


def test_the_winner_has_the_best_score_on_folds_that_it_did_not_see(monkeypatch):
    library = make_library([1.0, 1.2, 1.4])
    choice = choose(library, 10)
    scores = {name: library.task.score(cross_fit(name, library, 10)) for name in STRATEGIES}
    assert scores[choice.strategy] == max(scores.values())
    assert choice.mixture == STRATEGIES[choice.strategy](library, np.ones(ROWS, bool), 10)


def test_of_equal_ones_the_simplest_wins():
    library = make_library([0.0, 0.0])
    assert choose(library, 5).strategy == "single"


def test_a_library_without_a_trial_holds_the_others_as_they_were():
    library = make_library([1.0, 2.0, 3.0])
    left = library.without("m1")
    assert (left.names, left.families) == (["m0", "m2"], ["svm", "svm"])
    np.testing.assert_array_equal(left.probs, library.probs[[0, 2]])
    assert left.task is library.task


def test_a_mixture_takes_its_members_out_of_the_library():
    library = make_library([1.0, 2.0, 3.0])
    mixture = Mixture([0, 2], Rule("soft", {"weights": [1.0, 3.0]}))
    np.testing.assert_allclose(mixture(library.probs), 0.25 * library.probs[0] + 0.75 * library.probs[2])
