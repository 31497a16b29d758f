import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cxr.data.folds import make_folds
from cxr.errors import ConfigError, DataError


def make_table(count, patients=None, seed=0, test=0.0):
    rng = np.random.default_rng(seed)
    numbers = np.arange(count) if patients is None else rng.integers(patients, size=count)
    return pd.DataFrame(
        {
            "sample_id": [f"s{number:06d}" for number in range(count)],
            "finding": rng.choice(["common", "rare", "rarest"], count, p=[0.7, 0.2, 0.1]),
            "patient_id": [f"p{number}" for number in numbers],
            "split": np.where(rng.random(count) < test, "test", "train"),
        }
    )


@pytest.mark.filterwarnings("ignore:The least populated class")
@given(
    count=st.integers(40, 300),
    patients=st.one_of(st.none(), st.integers(30, 200)),
    folds=st.integers(2, 7),
    repeats=st.integers(1, 3),
    test=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_laws_of_folds(count, patients, folds, repeats, test, seed):
    samples = make_table(count, patients, seed % 1000, test)
    in_test = samples["patient_id"].isin(samples.loc[samples["split"] == "test", "patient_id"])
    assume(samples.loc[~in_test, "patient_id"].nunique() >= 3 * folds)
    table = make_folds(samples, folds, seed, repeats=repeats)
    assert table.index.equals(samples.index[~in_test])
    assert list(table.columns) == list(range(repeats))
    for repeat in table:
        assert set(table[repeat]) == set(range(folds))
        assert table[repeat].groupby(samples["patient_id"]).nunique().max() == 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_shares_of_findings_are_close(seed):
    samples = make_table(1500, patients=600, seed=seed % 100)
    shares = pd.crosstab(samples["finding"], make_folds(samples, 5, seed)[0], normalize="columns")
    assert (shares.max(axis=1) - shares.min(axis=1)).max() < 0.03


def test_repeats_differ_and_more_repeats_keep_the_first():
    samples = make_table(200)
    table = make_folds(samples, 5, 0, repeats=3)
    assert (table[0] != table[1]).any()
    assert (table[1] != table[2]).any()
    pd.testing.assert_frame_equal(make_folds(samples, 5, 0, repeats=2), table[[0, 1]])


def test_the_seed_alone_decides():
    samples = make_table(200, patients=80)
    shuffled = samples.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(make_folds(shuffled, 5, 3).sort_index(), make_folds(samples, 5, 3))
    assert (make_folds(samples, 5, 4) != make_folds(samples, 5, 3)).any(axis=None)


def test_the_column_group_goes_first_and_an_official_validation_part_is_divided_too():
    samples = make_table(60).assign(group=np.arange(60) // 6, split=["val"] * 30 + ["train"] * 30)
    folds = make_folds(samples, 5, 0)[0]
    assert len(folds) == 60
    assert folds.groupby(samples["group"]).nunique().max() == 1


@pytest.mark.parametrize(("folds", "repeats"), [(1, 1), (0, 1), (5, 0)])
def test_numbers_that_are_none(folds, repeats):
    with pytest.raises(
        ConfigError, match=f"expected 2 folds or more and 1 repeat or more, but got {folds} and {repeats}"
    ):
        make_folds(make_table(20), folds, 0, repeats=repeats)


@pytest.mark.parametrize("patients", [1, 4])
def test_too_few_patients(patients):
    with pytest.raises(
        DataError, match=f"each of 5 folds, but there are 40 samples in {patients} groups .*fewer folds"
    ):
        make_folds(make_table(40).assign(patient_id=[f"p{n % patients}" for n in range(40)]), 5, 0)


def test_too_few_samples():
    with pytest.raises(
        DataError, match="each of 5 folds, but there are 4 samples in 4 groups .* commonest finding 2 times"
    ):
        make_folds(make_table(4).assign(finding=list("aabb")), 5, 0)
