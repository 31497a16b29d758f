import numpy as np
import pandas as pd
import pytest

from cxr.data.readers import make_merged_samples
from cxr.data.samples import make_samples
from cxr.data.splits import make_groups
from cxr.data.views import filter_views
from cxr.errors import ConfigError, DataError


def source(findings=(), report=None, classes=None, finding_targets=None, **columns):
    """A dataset with samples 0, 1, ... of patients that have the same names in every dataset."""
    count = len(findings) or len(next(iter(columns.values())))
    table = pd.DataFrame(
        {"sample_id": [f"{n}" for n in range(count)], "image_path": [f"/{n}.png" for n in range(count)]}
    )
    table["patient_id"] = [f"p{n}" if n else None for n in range(count)]
    if findings:
        table["finding"] = list(findings)
    for name, values in columns.items():
        table[name] = values
    table.attrs["report"] = {} if report is None else report
    return {"reader": lambda: table, "classes": classes, "finding_targets": finding_targets, "batch_size": 32}


def test_ids_of_different_datasets_cannot_collide():
    merged = make_merged_samples({"a": source("xy", study_id=["s", " "]), "b": source("xyx")})
    assert merged["sample_id"].tolist() == ["a/0", "a/1", "b/0", "b/1", "b/2"]
    assert merged["patient_id"].dropna().tolist() == ["a/p1", "b/p1", "b/p2"]
    assert merged["study_id"].dropna().tolist() == ["a/s"]
    assert merged["source"].tolist() == ["a", "a", "b", "b", "b"]
    assert make_groups(merged).is_unique


def test_findings_are_mapped_to_common_ones_or_left_out():
    merged = make_merged_samples(
        {
            "children": source(
                ["normal", "virus", "bacteria"],
                classes={"normal": "normal", "virus": "pneumonia", "bacteria": "pneumonia"},
            ),
            "adults": source(["0", "1", "2"], classes={0: "normal", 1: "covid", 2: None}),
            "others": source(["normal"]),
        }
    )
    assert merged["finding"].tolist() == ["normal", "pneumonia", "pneumonia", "normal", "covid", "normal"]
    assert make_samples(merged, None)[1] == ["covid", "normal", "pneumonia"]


def test_what_a_dataset_calls_its_sources_is_kept_aside():
    merged = make_merged_samples({"a": source("xy", source=["rsna", "cohen"]), "b": source("x")})
    assert merged["source"].tolist() == ["a", "a", "b"]
    assert merged["source_within"].tolist()[:2] == ["rsna", "cohen"]


def test_reports_are_kept_by_dataset():
    merged = make_merged_samples({"a": source("xy", report={"odd": 2}), "b": source("x")})
    assert merged.attrs["report"] == {"a: odd": 2}


def test_targets_that_a_dataset_does_not_have_are_not_stated():
    merged = make_merged_samples({"a": source(target_edema=[1, 0]), "b": source(target_mass=[0.0, 1.0, np.nan])})
    np.testing.assert_equal(merged["target_edema"].to_numpy(), [1, 0, np.nan, np.nan, np.nan])
    np.testing.assert_equal(merged["target_mass"].to_numpy(), [np.nan, np.nan, 0, 1, np.nan])
    samples, names = make_samples(merged, None)
    assert names == ["edema", "mass"]
    assert samples["sample_id"].tolist() == ["a/0", "a/1", "b/0", "b/1"]


def test_findings_become_targets():
    merged = make_merged_samples(
        {
            "a": source(target_edema=[1, 0], target_pneumonia=[np.nan, 0]),
            "b": source(
                ["normal", "virus", "both", "odd"],
                finding_targets={"normal": [], "virus": ["pneumonia"], "both": ["pneumonia", "covid"], "odd": None},
            ),
        }
    )
    assert merged["sample_id"].tolist() == ["a/0", "a/1", "b/0", "b/1", "b/2"]
    np.testing.assert_equal(merged["target_pneumonia"].to_numpy(), [np.nan, 0, 0, 1, 1])
    np.testing.assert_equal(merged["target_covid"].to_numpy(), [np.nan, np.nan, 0, 0, 1])
    np.testing.assert_equal(merged["target_edema"].to_numpy(), [1, 0, np.nan, np.nan, np.nan])


def test_an_official_part_of_one_dataset_alone_is_told(caplog):
    make_merged_samples({"a": source("xy", split=["train", "test"]), "b": source("xy")})
    assert "the test part is the official one of a alone: it says nothing about the other datasets" in caplog.text
    caplog.clear()
    make_merged_samples({name: source("xy", split=["train", "test"]) for name in "ab"})
    assert caplog.text == ""


def test_each_dataset_keeps_its_own_view_filter():
    views = ["PA", "LL", "LL"]
    merged = make_merged_samples(
        {
            "strict": source("xyx", study_id=["s", "s", "t"], view_position=views) | {"view_filter": "frontal"},
            "single": source("xyx", study_id=["s", "s", "t"]) | {"view_filter": "single_image_study"},
            "all": source("xyx", study_id=["s", "s", "t"], view_position=views) | {"view_filter": "none"},
        }
    )
    samples, _ = make_samples(merged, None)
    kept, counts = filter_views(samples, "none")
    assert kept["sample_id"].tolist() == ["all/0", "all/1", "all/2", "single/2", "strict/0"]
    assert sum(counts.values()) == 9
    assert filter_views(samples, "frontal")[0]["sample_id"].tolist() == ["all/0", "single/2", "strict/0"]


def test_fractions_that_play_no_part_are_told(caplog):
    children = source("xy") | {"fractions": [0.8, 0.1, 0.1]}
    make_merged_samples({"children": children}, fractions=[0.8, 0.1, 0.1])
    assert caplog.text == ""
    make_merged_samples({"children": children}, fractions=[0.7, 0.1, 0.2])
    assert "data.sources.children.fractions plays no part: data.fractions=[0.7, 0.1, 0.2] divides all" in caplog.text


@pytest.mark.parametrize(
    ("sources", "error", "message"),
    [
        ({}, ConfigError, r"data.sources is empty; .*\+data@data.sources.children=chest_xray"),
        (
            {"a": source("xy") | {"view_filter": "nonsense"}},
            ConfigError,
            "expected data.sources.a.view_filter to be one of none, frontal, single_image_study, but got 'nonsense'",
        ),
        ({"a": source("xy") | {"limit": 5}}, ConfigError, "limit for all merged .* got data.sources.a.limit=5; set d"),
        (
            {"a": source("xy") | {"split_file": "s.csv"}},
            ConfigError,
            "data.sources.a.split_file=s.csv; set data.split_",
        ),
        ({"a": source("xy") | {"on_bad_file": "skip"}}, ConfigError, "data.sources.a.on_bad_file=skip; set data.on_"),
        ({"a": source("xy") | {"leak_gate": "off"}}, ConfigError, "data.sources.a.leak_gate=off; set data.leak_gate"),
        (
            {"a": source("xy", classes={"x": "x", "y": "y"}, finding_targets={"x": [], "y": ["y"]})},
            ConfigError,
            "expected classes or finding_targets for data.sources.a, but got both",
        ),
        ({"a": source("xyz", classes={"x": "x"})}, DataError, "data.sources.a to map every finding .* but y, z is not"),
        (
            {"a": source("xyz", finding_targets={"x": []})},
            DataError,
            "data.sources.a to map every finding .* but y, z is",
        ),
        (
            {"a": source(target_t=[1, 0], classes={"x": "y"})},
            DataError,
            "expected findings to map in data.sources.a, but",
        ),
        (
            {"a": source(target_t=[1, 0]), "b": source("xy")},
            DataError,
            "expected targets in every dataset or in none, but b has none; give it `finding_targets",
        ),
    ],
)
def test_what_cannot_be_merged(sources, error, message):
    with pytest.raises(error, match=message):
        make_merged_samples(sources)
