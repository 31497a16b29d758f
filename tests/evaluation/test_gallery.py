import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.errors import DataError
from cxr.evaluation.gallery import KINDS, choose_rows


def make_table(prob_1, target, patients=None):
    prob_1 = np.asarray(prob_1, dtype=float)
    ids = [f"s{i}" for i in range(len(prob_1))]
    return pd.DataFrame(
        {"sample_id": ids, "patient_id": patients, "target": target, "prob_0": 1 - prob_1, "prob_1": prob_1}
    )


def chosen(table, count):
    rows = choose_rows(table, count)
    return {kind: rows.loc[rows["kind"] == kind, "sample_id"].tolist() for kind in KINDS}


def test_the_most_certain_errors_the_most_uncertain_and_correct_ones_of_each_class():
    table = make_table(
        [0.9, 0.8, 0.05, 0.52, 0.45, 0.99, 0.97, 0.1, 0.96, 0.3],
        [0, 0, 1, 1, 0, 1, 1, 0, 1, 0],
        [f"p{i}" for i in range(10)],
    )
    assert chosen(table, 2) == {"errors": ["s2", "s0"], "uncertain": ["s3", "s4"], "correct": ["s7", "s5"]}
    assert chosen(table, 3) == {
        "errors": ["s2", "s0", "s1"], "uncertain": ["s3", "s4", "s9"], "correct": ["s7", "s5", "s6"],
    }  # fmt: skip


def test_a_patient_is_shown_once_and_rows_without_one_stand_alone():
    table = make_table([0.9, 0.8, 0.7, 0.95, 0.6], [0, 0, 0, 1, 1], ["a", "a", None, "a", None])
    assert chosen(table, 3) == {"errors": ["s0", "s2"], "uncertain": ["s4"], "correct": []}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_choice_does_not_depend_on_the_order_and_repeats_no_patient(seed, count):
    rng = np.random.default_rng(seed)
    patients = [None if i == 5 else f"p{i}" for i in rng.integers(0, 12, 30)]
    table = make_table(rng.integers(0, 11, 30) / 10, rng.integers(0, 2, 30), patients)
    rows = choose_rows(table, count)
    again = choose_rows(table.sample(frac=1, random_state=seed), count)
    assert rows["sample_id"].tolist() == again["sample_id"].tolist()
    assert rows["patient_id"].dropna().is_unique
    assert (rows["kind"].value_counts() <= count).all()
    assert (rows.loc[rows["kind"] == "errors", "prediction"] != rows.loc[rows["kind"] == "errors", "target"]).all()
    assert set(rows.columns) == {*table.columns, "kind", "prediction", "certainty"}


def test_no_image_of_a_kind_is_refused():
    with pytest.raises(DataError, match="expected 1 or more images of each kind, got 0; choose a larger number"):
        choose_rows(make_table([0.5], [1]), 0)
