from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from cxr.errors import ConfigError
from cxr.inference.combine import RULES, Rule, majority_vote, one_vs_rest, one_vs_rest_vote, soft_vote, stack


@st.composite
def tables(draw: st.DrawFn, classes: int | None = None) -> np.ndarray:
    """(M, N, K) probabilities, ties and certainties among them."""
    members, rows = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    width = draw(st.integers(2, 4)) if classes is None else classes
    counts = draw(arrays(np.int64, (members, rows, width), elements=st.integers(0, 4)))
    counts[..., 0] += counts.sum(axis=2) == 0
    return counts / counts.sum(axis=2, keepdims=True)


@st.composite
def nets_of_classes(draw: st.DrawFn) -> np.ndarray:
    """(K, N, 2) of one net per class."""
    yes = draw(arrays(np.float64, draw(st.tuples(st.integers(2, 5), st.integers(1, 4))), elements=st.floats(0, 1)))
    return np.stack([1 - yes, yes], axis=2)


def test_a_soft_vote_is_the_weighted_mean():
    probs = [[[0.8, 0.2], [0.1, 0.9]], [[0.4, 0.6], [0.5, 0.5]]]
    expected = [[0.75 * 0.8 + 0.25 * 0.4, 0.75 * 0.2 + 0.25 * 0.6], [0.75 * 0.1 + 0.25 * 0.5, 0.75 * 0.9 + 0.25 * 0.5]]
    np.testing.assert_allclose(soft_vote(probs, [3, 1]), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("weights", [None, [1, 2, 3]])
def test_a_soft_vote_is_that_of_scikit_learn(weights):
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    models = [("a", GaussianNB()), ("b", DecisionTreeClassifier(max_depth=3)), ("c", LogisticRegression())]
    voting = VotingClassifier(models, voting="soft", weights=weights).fit(rows, labels)
    probs = [model.predict_proba(rows) for model in voting.estimators_]
    np.testing.assert_allclose(soft_vote(probs, weights), voting.predict_proba(rows), atol=1e-12)


def test_a_majority_of_names_wins_over_a_higher_mean():
    probs = [[[0.51, 0.49]], [[0.51, 0.49]], [[0.0, 1.0]]]
    found = majority_vote(probs)
    assert found.argmax(axis=1) == [0]
    np.testing.assert_allclose(found, [[(2 + 0.34) / 4, (1 + 0.66) / 4]])


@given(tables())
def test_equal_votes_go_to_the_highest_mean_and_else_the_most_votes_win(probs):
    for row, found in enumerate(majority_vote(probs)):
        votes = np.bincount(probs[:, row].argmax(axis=1), minlength=probs.shape[2])
        tied = np.flatnonzero(votes == votes.max())
        means = probs[:, row].mean(axis=0)
        best = tied[np.isclose(means[tied], means[tied].max())]
        assert found.argmax() in best


@pytest.mark.parametrize("rule", [soft_vote, majority_vote])
@given(probs=tables(), data=st.data())
def test_the_order_of_members_does_not_matter(rule: Callable, probs, data):
    order = data.draw(st.permutations(range(len(probs))))
    np.testing.assert_allclose(rule(probs[order]), rule(probs), atol=1e-12)


@given(probs=tables(classes=3), data=st.data())
def test_the_order_of_members_does_not_matter_to_a_stack_whose_coefficients_go_along(probs, data):
    coefficients = data.draw(arrays(np.float64, (3, len(probs), 3), elements=st.floats(-2, 2)))
    order = data.draw(st.permutations(range(len(probs))))
    found = stack(probs, coefficients.reshape(3, -1), [0, 0.5, 1])
    moved = stack(probs[order], coefficients[:, order].reshape(3, -1), [0, 0.5, 1])
    np.testing.assert_allclose(moved, found, atol=1e-9)


@given(probs=tables(), data=st.data())
def test_the_order_of_weighted_members_does_not_matter(probs, data):
    weights = np.array(data.draw(st.lists(st.floats(0.1, 10), min_size=len(probs), max_size=len(probs))))
    order = data.draw(st.permutations(range(len(probs))))
    np.testing.assert_allclose(soft_vote(probs[order], weights[order]), soft_vote(probs, weights), atol=1e-12)


@given(nets=nets_of_classes(), data=st.data())
@pytest.mark.parametrize("rule", [one_vs_rest, one_vs_rest_vote])
def test_the_order_of_classes_goes_along(rule, nets, data):
    order = data.draw(st.permutations(range(len(nets))))
    np.testing.assert_allclose(rule(nets[order]), rule(nets)[:, order], atol=1e-12)


@given(probs=tables(), nets=nets_of_classes())
def test_probabilities_sum_to_one(probs, nets):
    members, _, classes = probs.shape
    found = [soft_vote(probs), majority_vote(probs), one_vs_rest(nets), one_vs_rest_vote(nets)]
    found.append(stack(probs, np.eye(classes, members * classes), np.zeros(classes)))
    for table in found:
        assert (table >= 0).all()
        np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-9)


def test_one_vs_rest_is_the_share_in_the_sum():
    yes = np.array([[0.9, 0.0, 0.2], [0.6, 0.0, 0.3], [0.0, 0.0, 0.0]])
    nets = np.stack([1 - yes, yes], axis=2)
    np.testing.assert_allclose(one_vs_rest(nets), [[0.6, 0.4, 0], [1 / 3, 1 / 3, 1 / 3], [0.4, 0.6, 0]])


@pytest.mark.parametrize(
    ("yes", "winner", "expected"),
    [
        ([0.2, 0.7, 0.1], 1, [0.2 / 2, 1.7 / 2, 0.1 / 2]),
        ([0.2, 0.3, 0.0], 1, [0.4, 0.6, 0.0]),
        ([0.6, 0.9, 0.0], 1, [1.4 / 3, 1.6 / 3, 0.0]),
        ([0.6, 0.9, 0.5], 1, [1.3 / 4, 1.45 / 4, 1.25 / 4]),
    ],
    ids=["one", "none", "several", "all"],
)
def test_a_vote_of_one_vs_rest_is_defined_whoever_says_yes(yes, winner, expected):
    nets = np.stack([1 - np.array(yes), np.array(yes)], axis=1)[:, None, :]
    assert one_vs_rest_vote(nets).argmax() == winner
    np.testing.assert_allclose(one_vs_rest_vote(nets)[0], expected)


@given(nets_of_classes())
def test_the_vote_is_the_most_certain_of_those_who_say_yes_and_of_all_where_none_does(nets):
    for yes, found in zip(nets[:, :, 1].T, one_vs_rest_vote(nets), strict=True):
        asked = yes[yes >= 0.5] if (yes >= 0.5).any() else yes
        assert np.isclose(yes[found.argmax()], asked.max())


def test_a_stack_is_the_regression_of_scikit_learn():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), size=(2, 80))
    target = rng.integers(0, 3, 80)
    features = np.hstack([np.log(probs[0]), np.log(probs[1])])
    model = LogisticRegression().fit(features, target)
    np.testing.assert_allclose(stack(probs, model.coef_, model.intercept_), model.predict_proba(features), atol=1e-9)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, np.nan]])
def test_weights_that_cannot_be_are_refused(weights):
    with pytest.raises(ConfigError, match="one weight from 0 for each of 2 members, and not all 0"):
        soft_vote(np.full((2, 1, 2), 0.5), weights)


def test_coefficients_of_other_members_are_refused():
    with pytest.raises(ConfigError, match=r"expected 2 x 4 coefficients and 2 intercepts, got \(2, 2\) and \(2,\)"):
        stack(np.full((2, 1, 2), 0.5), np.eye(2), [0, 0])


def test_one_table_alone_is_refused():
    with pytest.raises(ConfigError, match=r"of shape \(members, images, classes\), got \(1, 2\)"):
        soft_vote([[0.5, 0.5]])


def test_one_vs_rest_of_nets_with_several_classes_is_refused():
    with pytest.raises(ConfigError, match="tell one class from the rest, got 3 classes"):
        one_vs_rest(np.full((3, 1, 3), 1 / 3))


def test_a_rule_is_a_name_and_plain_settings():
    probs = np.array([[[0.8, 0.2]], [[0.4, 0.6]]])
    np.testing.assert_allclose(Rule("soft", {"weights": [1, 0]})(probs), probs[0])
    np.testing.assert_allclose(Rule("majority")(probs), majority_vote(probs))


def test_an_unknown_rule_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=f"among {', '.join(RULES)}, got 'mean'"):
        Rule("mean")
