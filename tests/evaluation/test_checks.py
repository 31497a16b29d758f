import numpy as np
import pytest

from cxr.errors import DataError
from cxr.evaluation.checks import check_outcomes, check_probs, check_scores


def test_sound_input_comes_back_as_arrays():
    target, probs = check_probs([0, 1], [[0.2, 0.8], [1, 0]])
    assert (target.dtype, probs.dtype) == (np.int64, np.float64)
    positive, score = check_scores([1, 0], [5, -3])
    assert positive.tolist() == [True, False]
    assert score.tolist() == [5, -3]


@pytest.mark.parametrize(
    ("target", "probs", "message"),
    [
        ([], np.zeros((0, 2)), "at least one row of probabilities, got none"),
        ([0, 1], [[0.2, 0.8]], r"got targets \(2,\) and probabilities \(1, 2\)"),
        ([0], [[1.0]], r"\(N, K\) of 2 or more classes, got targets \(1,\) and probabilities \(1, 1\)"),
        ([0], [0.5], r"got targets \(1,\) and probabilities \(1,\)"),
        ([2], [[0.2, 0.8]], r"indices from 0 to 1, got \[2\]"),
        ([0.5], [[0.2, 0.8]], r"indices from 0 to 1, got \[0.5\]"),
        ([0], [[np.nan, 0.8]], "finite probabilities, got 1 NaN"),
        ([0], [[-0.2, 1.2]], "from 0 to 1, got -0.2 to 1.2"),
    ],
)
def test_probabilities_that_do_not_fit_are_refused(target, probs, message):
    with pytest.raises(DataError, match=message):
        check_probs(target, probs)


@pytest.mark.parametrize(
    ("positive", "score", "message"),
    [
        ([], [], "at least one row of scores, got none"),
        ([1, 0], [0.5], r"one length \(N,\), got \(2,\) and \(1,\)"),
        ([2], [0.5], r"yes or no \(1 or 0\), got \[2\]"),
        ([1], [np.inf], "finite scores, got 1 NaN"),
    ],
)
def test_scores_that_do_not_fit_are_refused(positive, score, message):
    with pytest.raises(DataError, match=message):
        check_scores(positive, score)


def test_a_probability_of_more_than_one_is_refused():
    with pytest.raises(DataError, match="from 0 to 1, got 0.5 to 1.5"):
        check_outcomes([1, 0], [0.5, 1.5])
