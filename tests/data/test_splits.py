import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from cxr.data.identity import hash_id
from cxr.data.splits import (
    interval_width,
    make_groups,
    make_split,
    read_split,
    warn_if_few,
    write_split,
)
from cxr.errors import ConfigError, DataError

FRACTIONS = (0.7, 0.2, 0.1)


def make_samples(count, patients=None, shares=(0.5, 0.3, 0.15, 0.05), seed=0):
    """A table of `count` samples in four findings; patients (default: one per sample) are drawn at random."""
    rng = np.random.default_rng(seed)
    findings = rng.choice(["atypical", "indeterminate", "negative", "typical"], size=count, p=shares[::-1])
    patient = np.arange(count) if patients is None else rng.integers(patients, size=count)
    return pd.DataFrame(
        {
            "sample_id": [f"s{number:06d}" for number in range(count)],
            "finding": findings,
            "label": (findings != "negative").astype(int),
            "patient_id": [f"p{number}" for number in patient],
        }
    )


def link_naively(rows):
    """Groups as a partition of row numbers, by merging sets until nothing changes."""
    groups = [{number} for number in range(len(rows))]
    for one in range(len(rows)):
        for two in range(one):
            if any(a is not None and a == b for a, b in zip(rows[one], rows[two], strict=True)):
                first = next(group for group in groups if one in group)
                second = next(group for group in groups if two in group)
                if first is not second:
                    first |= second
                    groups.remove(second)
    return {frozenset(group) for group in groups}


ids = st.one_of(st.none(), st.sampled_from("abcdef"))


@given(st.lists(st.tuples(ids, ids, ids), min_size=1, max_size=14))
@settings(max_examples=100, deadline=None)
def test_groups_are_the_connected_components(rows):
    samples = pd.DataFrame(rows, columns=["patient_id", "study_id", "content_hash"], dtype=object)
    groups = make_groups(samples)
    assert {frozenset(rows) for rows in groups.groupby(groups).groups.values()} == link_naively(rows)
    assert groups.drop_duplicates().tolist() == list(range(groups.nunique()))


def test_equal_values_of_different_columns_link_nothing():
    samples = pd.DataFrame({"patient_id": ["x", "y"], "study_id": ["y", "x"]})
    assert make_groups(samples).tolist() == [0, 1]


def test_without_any_id_every_file_is_its_own_group():
    assert make_groups(pd.DataFrame({"sample_id": ["a", "b", "c"]})).tolist() == [0, 1, 2]


@given(
    count=st.integers(60, 300),
    patients=st.one_of(st.none(), st.integers(30, 200)),
    weights=st.tuples(st.integers(4, 9), st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_laws_of_a_split(count, patients, weights, seed):
    samples = make_samples(count, patients)
    fractions = np.array(weights) / sum(weights)
    split = make_split(samples, fractions, seed)
    assert split.index.equals(samples.index)
    assert set(split) == {"train", "val", "test"}
    assert split.groupby(samples["patient_id"]).nunique().max() == 1
    sizes = split.value_counts()[["train", "val", "test"]].to_numpy()
    assert np.abs(sizes - fractions * count).max() <= samples["patient_id"].value_counts().max()


@pytest.mark.parametrize("fractions", [(0.7, 0.2, 0.1), (0.6, 0.2, 0.2)])
def test_6054_studies_are_divided_as_written(fractions):
    """The two divisions that the reference system got wrong: 4317/1727/10 and 4022/2012/20."""
    split = make_split(make_samples(6054), fractions, seed=0)
    sizes = split.value_counts()[["train", "val", "test"]].to_numpy()
    assert np.abs(sizes - 6054 * np.array(fractions)).max() < 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_class_shares_differ_by_less_than_two_points(seed):
    samples = make_samples(1000)
    split = make_split(samples, FRACTIONS, seed)
    shares = pd.crosstab(samples["finding"], split, normalize="columns")
    assert (shares.max(axis=1) - shares.min(axis=1)).max() < 0.02


def test_class_shares_of_patients_with_several_images():
    samples = make_samples(5000, patients=1500)
    shares = pd.crosstab(samples["finding"], make_split(samples, FRACTIONS, 0), normalize="columns")
    assert (shares.max(axis=1) - shares.min(axis=1)).max() < 0.02


def test_the_seed_alone_decides():
    samples = make_samples(200)
    split = make_split(samples, FRACTIONS, 0)
    shuffled = samples.sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(make_split(shuffled, FRACTIONS, 0).sort_index(), split)
    assert (make_split(samples, FRACTIONS, 1) != split).any()


def test_split_is_the_same_on_every_machine():
    split = make_split(make_samples(20, patients=12), FRACTIONS, 0)
    assert split.index[split == "val"].tolist() == [3, 5, 6, 17]
    assert split.index[split == "test"].tolist() == [10, 14]


def test_linked_files_stay_together_through_the_group_column():
    """Two patients are linked by a row that a filter has dropped."""
    samples = make_samples(100).assign(content_hash=[f"h{number}" for number in range(100)])
    samples["group"] = np.where(samples.index < 10, 0, samples.index)
    assert make_split(samples, FRACTIONS, 3)[:10].nunique() == 1


def test_official_test_part_is_kept_and_validation_is_carved():
    samples = make_samples(1000).assign(split=["test"] * 150 + ["train"] * 800 + [None] * 50)
    split = make_split(samples, FRACTIONS, 0)
    assert (split[:150] == "test").all()
    assert "test" not in set(split[150:])
    assert (split == "val").sum() == round(850 * 0.2 / 0.9)


def test_official_validation_part_is_kept_and_test_is_carved():
    samples = make_samples(1000).assign(split=["val"] * 100 + ["train"] * 900)
    split = make_split(samples, FRACTIONS, 0)
    assert (split == "val").sum() == 100
    assert abs((split == "test").sum() - 900 * 0.1 / 0.8) < 1


def test_three_official_parts_are_taken_as_they_are():
    samples = make_samples(30).assign(split=["test"] * 5 + ["val"] * 5 + ["train"] * 20)
    assert make_split(samples, FRACTIONS, 0).tolist() == samples["split"].tolist()


def test_official_training_part_alone_is_divided_in_three():
    split = make_split(make_samples(100).assign(split="train"), FRACTIONS, 0)
    assert split.value_counts().to_dict() == {"train": 70, "val": 20, "test": 10}


def test_no_test_fraction_is_needed_where_there_is_an_official_test_part():
    samples = make_samples(100).assign(split=["test"] * 20 + ["train"] * 80)
    assert make_split(samples, (0.9, 0.1, 0), 0).value_counts().to_dict() == {"train": 72, "test": 20, "val": 8}


def test_official_parts_keep_their_rows_whatever_they_share():
    samples = make_samples(30).assign(split=["test"] * 5 + ["val"] * 5 + ["train"] * 20)
    samples.loc[[0, 7, 10, 11], "patient_id"] = "in all parts"
    assert make_split(samples, FRACTIONS, 0).tolist() == samples["split"].tolist()


@pytest.mark.parametrize(
    "fractions",
    [(70, 20, 10), (0.7, 0.2), (0.7, 0.2, 0.2), (1.1, -0.2, 0.1), (float("nan"), 0.5, 0.5), ("a", 0, 1), 0.7],
)
def test_fractions_that_are_none(fractions):
    with pytest.raises(
        ConfigError, match="expected data.fractions to be three shares .* but got .*; write 70/20/10 percent"
    ):
        make_split(make_samples(100), fractions, 0)


@pytest.mark.parametrize("fractions", [(0.9, 0.1, 0), (0.9, 0, 0.1)])
def test_a_part_without_samples_is_an_error(fractions):
    with pytest.raises(DataError, match="expected samples in train, val and test, but (val|test) would be empty"):
        make_split(make_samples(100), fractions, 0)


def test_one_patient_for_all_is_an_impossible_split():
    samples = make_samples(100).assign(patient_id="ANONYMOUS")
    with pytest.raises(
        DataError, match="but val, test would be empty: there are 100 samples in 1 groups .* largest of 100"
    ):
        make_split(samples, FRACTIONS, 0)


def test_dataset_without_training_rows_is_an_impossible_split():
    with pytest.raises(DataError, match="but train, val would be empty"):
        make_split(make_samples(10).assign(split="test"), FRACTIONS, 0)


@pytest.mark.parametrize("patients", [1, 10, 66, 100, 2000])
def test_interval_width_is_that_of_wilson(patients):
    expected = binomtest(round(0.8 * patients), patients).proportion_ci(method="wilson")
    assert interval_width(patients, round(0.8 * patients) / patients) == pytest.approx(
        expected.high - expected.low, abs=1e-6
    )


def test_few_test_patients_warn_with_the_interval_to_expect():
    with pytest.warns(UserWarning, match="the test part has 20 patients: expect 95% intervals about 0.34 wide"):
        warn_if_few(20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_few(100)


@pytest.fixture
def written(tmp_path):
    samples = make_samples(60, patients=40)
    samples["split"] = make_split(samples, FRACTIONS, 0)
    path = tmp_path / "split.csv"

    def write(salt):
        write_split(samples, path, class_names=["negative", "positive"], salt=salt)
        return samples, path

    return write


@pytest.mark.parametrize("salt", [None, "salt"], ids=["plain", "hashed"])
def test_split_file_comes_back(written, salt):
    samples, path = written(salt)
    pd.testing.assert_series_equal(read_split(samples, path, salt="salt"), samples["split"])


def test_split_file_holds_what_it_says(written):
    samples, path = written("salt")
    table = pd.read_csv(path, dtype=str)
    assert list(table) == ["sample_id", "patient_id", "split", "label", "class"]
    assert table["sample_id"][0] == hash_id(samples["sample_id"][0], "salt")
    assert table["class"].tolist() == samples["label"].map({0: "negative", 1: "positive"}).tolist()
    text = path.read_text()
    assert "s000000" not in text
    assert "salt" not in text
    assert not any(patient in table["patient_id"].tolist() for patient in samples["patient_id"])


def test_split_file_without_patient_ids(tmp_path):
    samples = make_samples(20).drop(columns="patient_id").assign(split="train")
    write_split(samples, tmp_path / "split.csv", class_names=["a", "b"], salt="salt")
    assert pd.read_csv(tmp_path / "split.csv")["patient_id"].isna().all()


def test_samples_that_look_like_missing_values_come_back(tmp_path):
    samples = make_samples(3).assign(split=["train", "val", "test"], sample_id=["NA", "", "007"])
    write_split(samples, tmp_path / "split.csv", class_names=["a", "b"], salt=None)
    assert read_split(samples, tmp_path / "split.csv", salt=None).tolist() == ["train", "val", "test"]


def test_samples_that_the_file_does_not_name_are_left_out(written):
    samples, path = written("salt")
    more = pd.concat([make_samples(5).assign(sample_id=list("abcde")), samples], ignore_index=True)
    split = read_split(more, path, salt="salt")
    assert split.index.tolist() == list(range(5, 65))


@pytest.mark.parametrize("salt", ["another", None])
def test_split_of_other_data_or_another_salt(written, salt):
    samples, path = written("salt")
    with pytest.raises(DataError, match=r"to hold all 60 samples of .*split.csv, but 60 are not there: .*CXR_ID_SALT"):
        read_split(samples, path, salt=salt)


def test_data_that_lack_samples_of_the_file(written):
    samples, path = written(None)
    with pytest.raises(DataError, match="but 2 are not there: s000000, s000001; use the data"):
        read_split(samples[2:], path, salt="salt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a split with the columns sample_id and split in .*split.csv, but got: .*No such file"),
        ("sample_id,part\na,train\n", "expected a split with the columns sample_id and split"),
        ("sample_id,split\na,train\na,val\n", r"but 1 are repeated \(a\)"),
        ("sample_id,split\na,train\nb,\n", "these are no parts: ''; mend"),
        ("sample_id,split\na,train\nb,holdout\n", "these are no parts: 'holdout'; mend or rewrite"),
    ],
    ids=["absent", "columns", "repeated", "blank", "unknown part"],
)
def test_files_that_are_no_split(tmp_path, content, message):
    if content is not None:
        (tmp_path / "split.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_split(make_samples(2), tmp_path / "split.csv", salt=None)
