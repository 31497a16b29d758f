import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from cxr.ensemble.stacking import fit_stack
from cxr.errors import DataError


def make_members(classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    target = np.arange(90) % classes
    logits = rng.normal(size=(2, 90, classes)) + 1.0 * np.eye(classes)[target]
    return np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True), target


@pytest.mark.parametrize("classes", [2, 3])
def test_a_stack_gives_what_scikit_learn_gives(classes):
    probs, target = make_members(classes)
    features = np.hstack(list(np.log(probs)))
    expected = LogisticRegression(tol=1e-10, max_iter=10_000).fit(features, target).predict_proba(features)
    np.testing.assert_allclose(fit_stack(probs, target)(probs), expected, atol=1e-4)


def test_a_stack_mends_a_member_that_is_wrong_on_purpose():
    probs, target = make_members(2)
    backwards = 1 - probs
    assert log_loss(target, fit_stack(backwards, target)(backwards)) < log_loss(target, probs.mean(axis=0))


def test_a_class_without_rows_is_refused():
    with pytest.raises(DataError, match=r"rows of every class to fit a stack on, got none of \[2\]"):
        fit_stack(np.full((1, 4, 3), 1 / 3), [0, 1, 0, 1])
