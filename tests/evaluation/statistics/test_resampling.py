import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.errors import DataError
from cxr.evaluation.statistics.resampling import draw_weights, number_groups, patient_groups


def all_weights(groups, draws=1000, seed=0):
    return np.concatenate(list(draw_weights(np.asarray(groups), draws, seed)), axis=1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=30), st.integers(0, 100))
def test_every_sample_draws_as_many_groups_as_there_are(groups, seed):
    numbers = number_groups(groups, len(groups))
    weights = all_weights(numbers, seed=seed)
    first = np.unique(numbers, return_index=True)[1]
    assert weights.shape == (len(groups), 1000)
    assert (weights[first].sum(axis=0) == len(first)).all()
    np.testing.assert_array_equal(weights, weights[first][numbers])  # rows of a group stand or fall together


def test_each_group_is_drawn_as_often_as_any_other():
    weights = all_weights(np.arange(20), draws=4000)
    assert weights.mean(axis=1) == pytest.approx(np.ones(20), abs=0.08)  # 5 standard errors
    assert weights.var(axis=1) == pytest.approx(np.full(20, 0.95), abs=0.2)


def test_the_seed_decides_and_parts_do_not(monkeypatch):
    whole = all_weights(np.arange(30), seed=3)
    np.testing.assert_array_equal(all_weights(np.arange(30), seed=3), whole)
    assert (all_weights(np.arange(30), seed=4) != whole).any()
    monkeypatch.setattr("cxr.evaluation.statistics.resampling._CHUNK", 700)
    np.testing.assert_array_equal(all_weights(np.arange(30), seed=3), whole)


def test_few_draws_are_refused():
    with pytest.raises(DataError, match="expected at least 1000 bootstrap draws, got 999"):
        all_weights([0, 1], draws=999)


def test_groups_are_numbered_as_they_appear():
    assert number_groups(["b", "a", "b"], 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a"], r"expected one group for each of 2 rows, got shape \(1,\)"),
        (np.array(["a", None], dtype=object), "expected a group for every row, got none in 1 rows"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, message):
    with pytest.raises(DataError, match=message):
        number_groups(groups, 2)


def test_rows_without_a_patient_go_by_study_and_else_stand_alone():
    table = pd.DataFrame(
        {
            "patient_id": pd.array(["p", "p", None, None, None, None], dtype="string"),
            "study_id": pd.array(["s", "t", "s", "s", None, None], dtype="string"),
        }
    )
    assert patient_groups(table).tolist() == [0, 0, 1, 1, 2, 3]
