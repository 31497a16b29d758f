import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.data.allocation import allocate

FRACTIONS = np.array([0.7, 0.2, 0.1])


def part_sizes(counts, parts, fractions=FRACTIONS):
    return np.bincount(parts, weights=counts.sum(axis=1), minlength=len(fractions))


@st.composite
def problems(draw):
    findings = draw(st.integers(1, 4))
    group = st.lists(st.integers(0, 9), min_size=findings, max_size=findings).filter(any)
    weights = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    counts = draw(st.lists(group, min_size=1, max_size=60))
    return np.array(counts), np.array(weights) / sum(weights), draw(st.integers(0, 2**32))


@given(problems())
@settings(max_examples=150, deadline=None)
def test_every_group_has_a_part_and_sizes_are_within_the_largest_group(problem):
    counts, fractions, seed = problem
    parts = allocate(counts, fractions, np.random.default_rng(seed))
    assert len(parts) == len(counts)
    assert set(parts) <= set(range(len(fractions)))
    sizes = part_sizes(counts, parts, fractions)
    assert np.abs(sizes - fractions * counts.sum()).max() <= counts.sum(axis=1).max() + 1e-5


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_single_samples_are_exact_in_total_and_in_each_finding(findings, seed):
    counts = np.repeat(np.eye(len(findings), dtype=int), findings, axis=0)
    parts = allocate(counts, FRACTIONS, np.random.default_rng(seed))
    assert np.abs(part_sizes(counts, parts) - FRACTIONS * len(counts)).max() < 1
    table = np.stack([counts[parts == part].sum(axis=0) for part in range(3)])
    assert np.abs(table - FRACTIONS[:, None] * np.array(findings)).max() <= 2


def test_no_kind_of_group_is_favoured_by_a_part():
    sizes = np.random.default_rng(0).geometric(0.4, 5000)
    parts = allocate(sizes[:, None], FRACTIONS, np.random.default_rng(1))
    means = [sizes[parts == part].mean() for part in range(3)]
    assert np.ptp(means) < 0.1


def test_groups_too_large_for_the_small_parts_go_to_the_large_one():
    counts = np.array([[60, 0], *[[1, 0]] * 20, *[[0, 1]] * 20])
    parts = allocate(counts, FRACTIONS, np.random.default_rng(0))
    assert part_sizes(counts, parts).tolist() == [70, 20, 10]
    assert [counts[parts == part, 1].sum() > 0 for part in (1, 2)] == [True, True]


@pytest.mark.parametrize("rare", [3, 4, 5])
def test_a_rare_finding_reaches_as_many_parts_as_it_can(rare):
    counts = np.array([[1, 0]] * 100 + [[0, 1]] * rare)
    parts = allocate(counts, FRACTIONS, np.random.default_rng(0))
    assert len(set(parts[100:])) >= min(3, rare - 1)


def test_the_seed_decides_who_but_not_how_many():
    counts = np.eye(2, dtype=int)[np.arange(200) % 2]
    one, same, other = (allocate(counts, FRACTIONS, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()
    assert (np.bincount(one) == np.bincount(other)).all()
