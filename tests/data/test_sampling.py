import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.data.sampling import balance, epoch_order, take_limit
from cxr.errors import ConfigError, DataError

SIIM = {"Negative": 1676, "Typical": 2855, "Indeterminate": 1049, "Atypical": 474}


def make_samples(counts, patients=None, seed=0):
    rng = np.random.default_rng(seed)
    findings = rng.permutation(np.repeat(list(counts), list(counts.values())))
    count = len(findings)
    patient = np.arange(count) if patients is None else rng.integers(patients, size=count)
    return pd.DataFrame(
        {
            "sample_id": [f"s{number:06d}" for number in range(count)],
            "finding": findings,
            "label": (findings != "Negative").astype(int),
            "patient_id": [f"p{number}" for number in patient],
        }
    )


@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_laws_of_a_limit(one, more, seed):
    samples = make_samples({"Negative": 100, "Typical": 150, "Atypical": 50}, patients=180)
    limit = min(300, one + more)
    small, large = take_limit(samples, one, seed), take_limit(samples, limit, seed)
    assert (len(small), len(large)) == (one, limit)
    assert set(small.index) <= set(large.index)
    assert large.index.is_monotonic_increasing
    labels = np.array([100, 200])
    assert np.abs(np.bincount(large["label"], minlength=2) - limit * labels / 300).max() <= 1
    findings = large["finding"].value_counts().reindex(["Negative", "Typical", "Atypical"], fill_value=0)
    assert np.abs(findings - limit * np.array([100, 150, 50]) / 300).max() <= 2


def test_limit_takes_patients_whole_but_for_one_of_each_finding():
    samples = make_samples({"Negative": 300, "Typical": 300}, patients=60)
    chosen = take_limit(samples, 200, 0).index
    for _, rows in samples.groupby("finding"):
        share = rows.index.isin(chosen)
        taken = pd.Series(share, index=rows["patient_id"]).groupby(level=0).mean()
        assert ((taken > 0) & (taken < 1)).sum() <= 1


def test_limit_depends_on_the_seed_alone():
    samples = make_samples({"Negative": 50, "Typical": 50})
    shuffled = samples.sample(frac=1, random_state=0)
    assert set(take_limit(shuffled, 30, 5).index) == set(take_limit(samples, 30, 5).index)
    assert set(take_limit(samples, 30, 6).index) != set(take_limit(samples, 30, 5).index)


def test_limit_keeps_official_parts_in_proportion():
    samples = make_samples({"Negative": 100, "Typical": 100}).assign(split=["test"] * 50 + [None] * 150)
    assert take_limit(samples, 40, 0)["split"].value_counts().to_dict() == {"test": 10}


@pytest.mark.parametrize("limit", [0, -3, 101])
def test_impossible_limit(limit):
    with pytest.raises(
        DataError, match=f"expected data.limit from 1 to the 100 samples there are, but got {limit}; lower it"
    ):
        take_limit(make_samples({"Negative": 50, "Typical": 50}), limit, 0)


def test_balanced_siim_has_3352_studies_and_keeps_the_composition_of_positives():
    samples = make_samples(SIIM)
    balanced = balance(samples, 0)
    assert balanced["label"].value_counts().to_dict() == {0: 1676, 1: 1676}
    positives = balanced.loc[balanced["label"] == 1, "finding"].value_counts()
    for finding in ("Typical", "Indeterminate", "Atypical"):
        assert abs(positives[finding] - 1676 * SIIM[finding] / 4378) <= 1


def test_640_balanced_images_are_320_of_each_class():
    chosen = take_limit(balance(make_samples(SIIM), 0), 640, 0)
    assert chosen["label"].value_counts().to_dict() == {0: 320, 1: 320}


def test_balance_is_seeded():
    samples = make_samples({"Negative": 20, "Typical": 80})
    assert balance(samples, 1).equals(balance(samples, 1))
    assert not balance(samples, 1).equals(balance(samples, 2))


LABELS = np.repeat([0, 1, 2], [30, 7, 12])


def drawn_classes(keys, labels=LABELS):
    return np.bincount(labels[keys % len(labels)], minlength=3).tolist()


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.sampled_from(["none", "downsample", "oversample", "weighted"]),
)
@settings(max_examples=150, deadline=None)
def test_keys_are_distinct_and_count_repeats_from_zero(labels, mode):
    labels = np.array(labels)
    keys = epoch_order(labels, mode, 0, 0)
    assert keys.dtype == np.int64
    assert len(np.unique(keys)) == len(keys)
    rows, repeats = keys % len(labels), keys // len(labels)
    for row in np.unique(rows):
        assert sorted(repeats[rows == row]) == list(range((rows == row).sum()))


@pytest.mark.parametrize(
    ("mode", "classes"), [("none", [30, 7, 12]), ("downsample", [7, 7, 7]), ("oversample", [30, 30, 30])]
)
def test_classes_of_an_epoch(mode, classes):
    assert drawn_classes(epoch_order(LABELS, mode, 0, 0)) == classes


def test_none_takes_every_row_once():
    assert sorted(epoch_order(LABELS, "none", 0, 0)) == list(range(49))


def test_oversample_takes_every_row_at_least_floor_times():
    rows = np.bincount(epoch_order(LABELS, "oversample", 0, 0) % 49)
    assert (rows[:30] == 1).all()
    assert set(rows[30:37]) == {4, 5}
    assert set(rows[37:]) == {2, 3}


def test_weighted_draws_classes_equally_often_in_the_long_run():
    draws = np.sum([drawn_classes(epoch_order(LABELS, "weighted", 0, epoch)) for epoch in range(400)], axis=0)
    assert draws.sum() == 400 * 49
    assert np.abs(draws / draws.sum() - 1 / 3).max() < 0.015  # five standard deviations


@pytest.mark.parametrize("mode", ["none", "downsample", "oversample", "weighted"])
def test_order_is_a_function_of_seed_and_epoch(mode):
    order = epoch_order(LABELS, mode, 3, 4)
    assert (epoch_order(LABELS, mode, 3, 4) == order).all()
    for seed, epoch in ((3, 5), (4, 4)):
        other = epoch_order(LABELS, mode, seed, epoch)
        assert len(other) == len(order)
        assert (other != order).any()


def test_downsample_draws_other_rows_each_epoch():
    assert set(epoch_order(LABELS, "downsample", 0, 0)) != set(epoch_order(LABELS, "downsample", 0, 1))


def test_unknown_sampler():
    with pytest.raises(
        ConfigError, match="sampler to be one of none, downsample, oversample, weighted, but got 'smote'"
    ):
        epoch_order(LABELS, "smote", 0, 0)


def test_no_rows():
    with pytest.raises(DataError, match="expected samples to draw an epoch from, but there are none"):
        epoch_order(np.array([], dtype=int), "none", 0, 0)
