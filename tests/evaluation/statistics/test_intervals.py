import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom, norm

from cxr.errors import DataError
from cxr.evaluation.statistics.intervals import EXACT, auroc_interval, exact_proportion, no_interval


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_exact_ends_are_quantiles_of_beta_distributions(counts):
    k, n = counts
    found = exact_proportion(k, n)
    low = 0.0 if k == 0 else beta.ppf(0.025, k, n - k + 1)
    high = 1.0 if k == n else beta.ppf(0.975, k + 1, n - k)
    assert (found.value, found.k, found.n, found.method) == (k / n, k, n, EXACT)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert found.low < found.high


def test_exact_interval_as_published():
    """Brown, Cai and DasGupta 2001, Statistical Science 16:101; the rule of three for none of n."""
    found = exact_proportion(0, 100)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 100))
    found = exact_proportion(15, 148)  # Newcombe 1998, Statistics in Medicine 17:857, table I
    assert (round(found.low, 4), round(found.high, 4)) == (0.0578, 0.1617)
    found = exact_proportion(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2527, 0.3676)


@pytest.mark.parametrize(("p", "n"), [(0.5, 20), (0.9, 66), (0.99, 100)])
def test_exact_interval_covers_at_least_what_it_says(p, n):
    ends = [exact_proportion(k, n) for k in range(n + 1)]
    held = sum(binom.pmf(k, n, p) for k, found in enumerate(ends) if found.low <= p <= found.high)
    assert held >= 0.95


def test_no_rows_give_no_number():
    found = exact_proportion(0, 0)
    assert found.method == "no rows"
    assert all(math.isnan(end) for end in (found.value, found.low, found.high))


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3)])
def test_a_part_larger_than_the_whole_is_refused(k, n):
    with pytest.raises(DataError, match=f"expected k from 0 to n, got k = {k} and n = 3"):
        exact_proportion(k, n)


def test_a_value_may_have_no_interval():
    found = no_interval(0.5, "one patient", 1, 2)
    assert (found.value, found.method, found.k, found.n) == (0.5, "one patient", 1, 2)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@given(st.floats(0, 1), st.integers(2, 500), st.integers(2, 500))
def test_auroc_interval_solves_the_equation_of_newcombe(auroc, positives, negatives):
    low, high = auroc_interval(auroc, positives, negatives)
    assert 0 <= low <= auroc <= high <= 1
    assert low < high
    for bound in {low, high} - {0.0, 1.0}:
        extra = (positives + negatives) / 2 - 1
        variance = bound * (1 - bound) * (1 + extra * ((1 - bound) / (2 - bound) + bound / (1 + bound)))
        half_width = norm.ppf(0.975) * math.sqrt(variance / (positives * negatives))
        assert abs(auroc - bound) == pytest.approx(half_width, abs=1e-6)


@pytest.mark.parametrize(("auroc", "positives", "negatives"), [(0.7, 20, 40), (0.85, 30, 30), (0.95, 15, 60)])
def test_auroc_interval_holds_the_truth_as_often_as_it_says(auroc, positives, negatives):
    rng = np.random.default_rng(0)
    first = rng.normal(norm.ppf(auroc) * math.sqrt(2), 1, (1500, positives))
    found = (first[:, :, None] > rng.normal(size=(1500, 1, negatives))).mean(axis=(1, 2))
    intervals = np.array([auroc_interval(value, positives, negatives) for value in found])
    held = (intervals[:, 0] <= auroc) & (auroc <= intervals[:, 1])
    assert 0.93 <= held.mean() <= 0.985
