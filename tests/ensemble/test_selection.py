import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from cxr.ensemble.selection import select_weights
from cxr.errors import DataError
from cxr.inference.combine import soft_vote


def make_members(seed: int, members: int = 4, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = np.arange(rows) % 3
    logits = rng.normal(size=(members, rows, 3)) + 1.5 * np.eye(3)[target]
    return np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True), target


def test_the_only_good_member_is_chosen():
    target = np.array([0, 1, 0, 1])
    good = np.where(np.eye(2)[target] == 1, 0.9, 0.1)
    np.testing.assert_array_equal(select_weights([1 - good, good, 1 - good], target), [0, 1, 0])


def test_members_that_mend_each_other_are_both_chosen():
    target = np.zeros(4, dtype=int)
    first = np.array([[0.9, 0.1]] * 2 + [[0.4, 0.6]] * 2)
    weights = select_weights([first, first[::-1]], target)
    np.testing.assert_allclose(weights, [0.5, 0.5])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_the_choice_is_never_worse_than_the_best_member_on_its_own_rows(seed):
    probs, target = make_members(seed)
    alone = [log_loss(target, table) for table in probs]
    assert log_loss(target, soft_vote(probs, select_weights(probs, target))) <= min(alone) + 1e-12


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_the_order_of_members_does_not_matter(seed, order):
    probs, target = make_members(seed)
    np.testing.assert_allclose(select_weights(probs[order], target), select_weights(probs, target)[order])


def test_weights_are_the_shares_of_additions_by_a_plain_search():
    probs, target = make_members(0)
    bag: list[int] = []
    losses = []
    for _ in range(20):
        trials = [log_loss(target, probs[[*bag, m]].mean(axis=0)) for m in range(4)]
        bag.append(int(np.argmin(trials)))
        losses.append(min(trials))
    best = bag[: int(np.argmin(losses)) + 1]
    np.testing.assert_allclose(select_weights(probs, target, rounds=20), np.bincount(best, minlength=4) / len(best))


def test_targets_that_are_no_classes_are_refused():
    with pytest.raises(DataError, match="class indices from 0 to 1"):
        select_weights(np.full((2, 2, 2), 0.5), [0, 2])
