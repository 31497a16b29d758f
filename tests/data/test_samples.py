import numpy as np
import pandas as pd
import pytest

from cxr.data.samples import count_classes, label_columns, list_first, make_samples, require_every_class, target_names
from cxr.errors import DataError


def make_raw(findings=("b", "a", "b"), **columns):
    ids = [f"s{index}" for index in range(len(findings))][::-1]
    paths = [f"/data/{name}.png" for name in ids]
    return pd.DataFrame({"sample_id": ids, "image_path": paths, "finding": list(findings), **columns})


def test_identity_mapping_sorts_samples_and_classes():
    samples, class_names = make_samples(make_raw(), None)
    assert class_names == ["a", "b"]
    assert samples["sample_id"].tolist() == ["s0", "s1", "s2"]
    assert samples["label"].tolist() == [1, 0, 1]
    assert samples["label"].dtype == "int64"
    assert samples.index.tolist() == [0, 1, 2]


def test_classes_are_numbered_by_first_appearance():
    samples, class_names = make_samples(make_raw(["x", "y", "z"]), {"z": "pos", "x": "neg", "y": "pos"})
    assert class_names == ["pos", "neg"]
    assert dict(zip(samples["finding"], samples["label"], strict=True)) == {"x": 1, "y": 0, "z": 0}


def test_finding_mapped_to_none_is_left_out():
    samples, class_names = make_samples(make_raw(["x", "y", "z"]), {"x": "one", "y": "two", "z": None})
    assert class_names == ["one", "two"]
    assert set(samples["finding"]) == {"x", "y"}


def test_keys_of_the_mapping_may_be_numbers():
    samples, class_names = make_samples(make_raw(["0", "1", "0"]), {0: "negative", 1: "positive"})
    assert class_names == ["negative", "positive"]
    assert sorted(samples["label"]) == [0, 0, 1]


def test_blank_ids_are_missing_and_numbers_become_text():
    samples, _ = make_samples(make_raw(patient_id=[7, None, 7], study_id=[" A ", "", "  "]), None)
    patients = samples.set_index("sample_id")["patient_id"]
    assert patients["s0"] == patients["s2"] == "7.0"  # pandas reads a column of numbers with gaps as float
    assert patients.isna()["s1"]
    assert samples["study_id"].dropna().tolist() == ["A"]


def test_further_columns_pass_through_and_the_raw_table_stays():
    raw = make_raw(d_prime=[1.0, 2.0, 3.0])
    before = raw.copy()
    samples, _ = make_samples(raw, None)
    assert samples["d_prime"].tolist() == [3.0, 2.0, 1.0]
    pd.testing.assert_frame_equal(raw, before)


def test_missing_columns_are_named():
    with pytest.raises(DataError, match="but image_path, finding is missing; the table has sample_id, x"):
        make_samples(pd.DataFrame({"sample_id": ["a"], "x": [1]}), None)


def test_empty_table():
    with pytest.raises(DataError, match="expected a table with samples, but it has no rows"):
        make_samples(make_raw([]), None)


def test_all_problems_come_in_one_report():
    raw = make_raw(["a", "a", "b", "odd", None], split=["train", "holdout", "test", None, "val"])
    raw["sample_id"] = ["s", "s", None, "t", "u"]
    raw.loc[3, "image_path"] = "relative.png"
    raw.loc[4, "image_path"] = " "
    with pytest.raises(DataError) as caught:
        make_samples(raw, {"a": "a", "b": "b"})
    for problem in (
        "1 x no sample_id",
        "1 x no image_path (sample_id): u",
        "1 x no finding (sample_id): u",
        "1 x sample_id more than once: s",
        "1 x image_path that is not absolute: relative.png",
        "or to null to leave it out): odd",
        "1 x split other than train, val, test: holdout",
    ):
        assert problem in str(caught.value)


def test_only_the_first_ten_of_many_are_listed():
    raw = make_raw([f"f{index:02d}" for index in range(25)])
    with pytest.raises(DataError, match=r"25 x finding .*: f00, .*, f09 and 15 more"):
        make_samples(raw, {"a": "a"})


def test_declared_class_without_samples():
    samples, class_names = make_samples(make_raw(), {"a": "a", "b": "b", "c": "ghost"})
    expected = "every class in the dataset, but class ghost has none; the findings left are a, b"
    with pytest.raises(DataError, match=expected):
        require_every_class(samples, class_names, "the dataset")
    require_every_class(samples, class_names[:2], "the dataset")


def test_single_class():
    samples, class_names = make_samples(make_raw(["a", "a"]), None)
    with pytest.raises(DataError, match="expected at least 2 classes in the dataset, but got a"):
        require_every_class(samples, class_names, "the dataset")


@pytest.mark.parametrize(("values", "text"), [([], "none"), ([1, 2], "1, 2"), ([1, 2, 3, 4], "1, 2, 3 and 1 more")])
def test_list_first(values, text):
    assert list_first(values, limit=3) == text


NAN = float("nan")


def make_targets(**targets):
    ids = [f"s{index}" for index in range(len(next(iter(targets.values()))))]
    return pd.DataFrame({"sample_id": ids, "image_path": [f"/data/{name}.png" for name in ids]}).assign(
        **{f"target_{name}": values for name, values in targets.items()}
    )


def test_a_table_with_targets_has_them_as_classes_and_no_label():
    raw = make_targets(edema=[1, 0, None, None], mass=["0", None, "1", None], effusion=[True, False, True, None])
    samples, class_names = make_samples(raw, None)
    assert class_names == target_names(samples) == ["edema", "mass", "effusion"]
    assert "label" not in samples
    assert samples["sample_id"].tolist() == ["s0", "s1", "s2"]
    np.testing.assert_equal(samples[label_columns(samples)].to_numpy(), [[1, 0, 1], [0, NAN, 0], [NAN, 1, 1]])
    assert (samples[label_columns(samples)].dtypes == "float64").all()
    assert count_classes(samples, class_names) == {"edema": 1, "mass": 1, "effusion": 2}


def test_the_finding_of_a_table_with_targets_is_the_rarest_positive_one():
    raw = make_targets(common=[1, 1, 1, 0, 0], rare=[1, 0, 0, 0, NAN]).assign(finding="whatever the dataset says")
    assert make_samples(raw, None)[0]["finding"].tolist() == ["rare", "common", "common", *["no positive target"] * 2]


def test_a_single_target_is_enough():
    assert make_samples(make_targets(mass=[0, 1]), None)[1] == ["mass"]


def test_all_problems_of_targets_come_in_one_report():
    raw = make_targets(edema=[1, 1, 1, NAN], mass=[0, 0, 0, NAN], odd=[-1, 1, 0, 0], word=["yes", 1, 0, "?"])
    raw.loc[1, "image_path"] = "relative.png"
    with pytest.raises(DataError) as caught:
        make_samples(raw, None)
    for problem in (
        "1 x image_path that is not absolute: relative.png",
        "2 x target other than 1, 0 or nothing (sample_id); write nothing where a target is not stated: s0, s3",
        "1 x target that is never positive (1): mass",
        "1 x target that is never negative (0): edema",
    ):
        assert problem in str(caught.value)


def test_targets_and_a_mapping_of_findings_are_too_much():
    with pytest.raises(
        DataError, match="expected data.classes=null for a table with the targets mass, but got a mapping"
    ):
        make_samples(make_targets(mass=[0, 1]), {"a": "b"})


def test_every_target_must_have_a_positive_sample_where_that_is_asked():
    samples, class_names = make_samples(make_targets(mass=[0, 1, 0], edema=[0, 1, 1]), None)
    require_every_class(samples, class_names, "a part")
    with pytest.raises(
        DataError, match="every class in a part, but class mass has none; the findings left are edema, no"
    ):
        require_every_class(samples.iloc[[0, 2]], class_names, "a part")
