import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from cxr.errors import DataError
from cxr.evaluation.statistics.delong import delong, delong_difference, delong_interval
from cxr.evaluation.statistics.intervals import auroc_interval

# DeLong, DeLong and Clarke-Pearson 1988, ovarian cancer: albumin, total protein, K-G score, outcome (complete rows)
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def ovarian():
    """Outcome, then scores: albumin, K-G score (small is good), total protein."""
    table = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4)
    return table[:, 3] == 1, np.stack([table[:, 0], -table[:, 2], table[:, 1]], axis=1)


def by_definition(positive, scores):
    """AUROCs and covariance from the placement of every case among every other row."""
    cases, others = scores[positive], scores[~positive]
    pairs = (cases[:, None] > others[None]) + 0.5 * (cases[:, None] == others[None])
    of_cases, of_others, auroc = pairs.mean(axis=1), pairs.mean(axis=0), pairs.mean(axis=(0, 1))
    first = (of_cases - auroc).T @ (of_cases - auroc) / (len(cases) - 1)
    second = (of_others - auroc).T @ (of_others - auroc) / (len(others) - 1)
    return auroc, first / len(cases) + second / len(others)


def test_published_example_of_one_curve():
    """As SAS/STAT's PROC LOGISTIC prints it, example "Comparing Receiver Operating Characteristic Curves"."""
    positive, scores = ovarian()
    found = [delong_interval(positive, score) for score in scores.T]
    errors = np.sqrt(np.diag(delong(positive, scores).covariance))
    assert [round(one.value, 4) for one in found] == [0.7366, 0.7258, 0.6478]
    assert errors.round(4).tolist() == [0.0927, 0.1028, 0.1000]
    ends = [(round(one.low, 4), round(one.high, 4)) for one in found]
    assert ends == [(0.5549, 0.9182), (0.5243, 0.9273), (0.4518, 0.8439)]


def test_published_example_of_two_curves():
    positive, scores = ovarian()
    found = delong_difference(positive, scores[:, 0], scores[:, 1])
    assert (round(found.value, 4), round(found.standard_error, 4)) == (0.0108, 0.0953)
    assert (round(found.low, 4), round(found.high, 4), round(found.p_value, 4)) == (-0.1761, 0.1976, 0.9102)
    found = delong_difference(positive, scores[:, 2], scores[:, 1])
    assert (round(found.value, 4), round(found.standard_error, 4)) == (-0.0780, 0.1046)
    assert (round(found.low, 4), round(found.high, 4), round(found.p_value, 4)) == (-0.2830, 0.1271, 0.4561)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 3), st.integers(1, 8), st.integers(0, 10**6))
def test_ranks_give_what_the_definition_gives(cases, others, models, levels, seed):
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(cases + others) < cases)
    scores = rng.integers(levels, size=(cases + others, models)) / levels
    found, (auroc, covariance) = delong(positive, scores), by_definition(positive, scores)
    np.testing.assert_allclose(found.values, auroc, atol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-12)


def test_the_smallest_difference_has_a_power_of_80_percent():
    positive, scores = ovarian()
    found = delong_difference(positive, scores[:, 0], scores[:, 1])
    shift = found.smallest / found.standard_error
    assert norm.sf(norm.ppf(0.975) - shift) + norm.cdf(norm.ppf(0.025) - shift) == pytest.approx(0.8, abs=1e-4)


def test_a_perfect_score_has_a_width():
    positive = np.arange(30) < 10
    found = delong_interval(positive, positive.astype(float))
    assert (found.low, found.high) == auroc_interval(1.0, 10, 20)
    assert found.method == "Newcombe score"


def test_equal_scores_do_not_differ():
    positive, scores = ovarian()
    found = delong_difference(positive, scores[:, 0], 2 * scores[:, 0])
    assert (found.value, found.p_value) == (0, 1)
    assert np.isnan([found.low, found.standard_error, found.smallest]).all()
    assert found.method.startswith("no variance")


@pytest.mark.parametrize("cases", [0, 1, 29])
def test_fewer_than_two_of_a_kind_are_refused(cases):
    with pytest.raises(DataError, match=f"expected two cases and two others for DeLong, got {cases} and {30 - cases}"):
        delong(np.arange(30) < cases, np.zeros((30, 1)))
