import numpy as np
import pandas as pd
import pytest

from cxr.errors import DataError
from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.statistics.intervals import exact_proportion
from cxr.evaluation.statistics.subgroups import measure_subgroups, name_groups

from .made_up import NAMES, make_table

PAIR = NAMES[:2]


def cell(found, group, metric, name):
    return found[(found["group"] == group) & (found["metric"] == metric)][name].item()


def test_every_group_is_measured_on_its_own_rows():
    table = make_table(classes=4, rows=300, patients=120)
    found = measure_subgroups(table, NAMES, ["sex", "view_position"], ["auroc", "accuracy"])
    assert found[["column", "group", "metric"]].to_numpy().tolist() == [
        [column, group, metric]
        for column, groups in (("sex", "FM"), ("view_position", ("AP", "PA")))
        for group in groups
        for metric in ("auroc", "accuracy")
    ]
    for row in found.itertuples():
        part = table[table[row.column] == row.group]
        rest = table[table[row.column] != row.group]
        values = [
            classification_metrics(rows["target"], rows[[f"prob_{k}" for k in range(4)]], NAMES)[row.metric]
            for rows in (part, rest)
        ]
        assert (row.images, row.patients) == (len(part), part["patient_id"].nunique())
        assert (row.value, row.gap) == pytest.approx((values[0], values[0] - values[1]))
        assert row.low < row.value < row.high
        assert row.gap_low < row.gap < row.gap_high
        assert row.hidden == ""
    assert cell(found, "F", "accuracy", "n") == (table["sex"] == "F").sum()
    assert pd.isna(cell(found, "F", "auroc", "n"))


def test_a_planted_gap_is_found_and_none_is_where_there_is_none():
    table = make_table(rows=600, patients=300, skill=2.0)
    worse = table["sex"] == "M"
    table.loc[worse, ["prob_0", "prob_1"]] = table.loc[worse, ["prob_1", "prob_0"]].to_numpy()
    found = measure_subgroups(table, PAIR, ["sex", "view_position"], ["auroc"])
    assert cell(found, "M", "auroc", "gap_high") < -0.5
    assert cell(found, "F", "auroc", "gap") == -cell(found, "M", "auroc", "gap")
    assert cell(found, "PA", "auroc", "gap_low") < 0 < cell(found, "PA", "auroc", "gap_high")


def test_patients_in_both_groups_are_drawn_together():
    """The same answers in both views: no gap in any sample, though each view alone varies."""
    once = make_table(rows=100, patients=100)
    table = pd.concat(
        [once.assign(view_position="PA"), once.assign(view_position="AP", sample_id=once["sample_id"] + "b")]
    )
    found = measure_subgroups(table, PAIR, ["view_position"], ["auroc"])
    assert set(found["gap"]) == {0}
    assert set(found["gap_method"]) == {"every bootstrap sample gives the same value"}
    assert (found["high"] - found["low"] > 0.05).all()


def test_small_groups_are_told_but_not_measured():
    table = make_table(rows=100, patients=100)
    table["source"] = ["a"] * 81 + ["b"] * 19
    found = measure_subgroups(table, PAIR, ["source"], ["accuracy"])
    assert found[["group", "images", "patients", "hidden"]].to_numpy().tolist() == [
        ["a", 81, 81, "fewer than 20 patients in all other groups"],
        ["b", 19, 19, "fewer than 20 patients"],
    ]
    assert found[["value", "low", "high", "k", "n", "gap"]].isna().all(axis=None)
    shown = measure_subgroups(table, PAIR, ["source"], ["accuracy"], least=19)
    assert set(shown["hidden"]) == {""}
    assert shown["value"].notna().all()


def test_the_only_group_has_no_gap():
    table = make_table().assign(source="a")
    found = measure_subgroups(table, PAIR, ["source"], ["accuracy"])
    assert cell(found, "a", "accuracy", "value") > 0.5
    assert np.isnan(cell(found, "a", "accuracy", "gap"))
    assert cell(found, "a", "accuracy", "gap_method") == "the only group"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            [0, 17.9, 18, 39, 40, 60, 79.5, 80, 101],
            ["0-17", "0-17", "18-39", "18-39", "40-59", "60-79", "60-79", "80+", "80+"],
        ),
        ([np.nan, -1, 5], ["not stated", "not stated", "0-17"]),
        (["F", " F ", "", None, "  "], ["F", "F", "not stated", "not stated", "not stated"]),
        ([True, False], ["True", "False"]),
    ],
    ids=["ages", "no age", "text", "yes or no"],
)
def test_groups_are_named(values, expected):
    assert name_groups(pd.Series(values, name="age")).tolist() == expected


def test_few_numbers_are_codes_and_many_are_ages():
    codes = pd.Series([0, 1, 1, np.nan], name="ward")
    assert name_groups(codes).tolist() == ["0", "1", "1", "not stated"]
    assert name_groups(pd.Series(range(11), name="years")).tolist() == ["0-17"] * 11


def test_bands_stand_in_order_and_what_is_not_stated_last():
    table = make_table(rows=400, patients=400)
    table.loc[:30, "age"] = np.nan
    found = measure_subgroups(table, PAIR, ["age"], ["accuracy"])
    assert found["group"].tolist() == ["0-17", "18-39", "40-59", "60-79", "80+", "not stated"]
    assert found["images"].sum() == 400


def test_underdiagnosis_is_the_share_of_the_diseased_that_are_called_healthy():
    table = make_table(rows=300, patients=300)
    found = measure_subgroups(table, PAIR, ["sex"], ["underdiagnosis", "sensitivity"])
    for sex in "FM":
        missed, caught = (cell(found, sex, name, "value") for name in ("underdiagnosis", "sensitivity"))
        assert missed == pytest.approx(1 - caught)
        assert cell(found, sex, "underdiagnosis", "low") == pytest.approx(1 - cell(found, sex, "sensitivity", "high"))
        assert cell(found, sex, "underdiagnosis", "gap") == pytest.approx(-cell(found, sex, "sensitivity", "gap"))
        diseased = table[(table["sex"] == sex) & (table["target"] == 1)]
        assert cell(found, sex, "underdiagnosis", "n") == len(diseased)
        assert cell(found, sex, "underdiagnosis", "k") == (diseased["prob_1"] < 0.5).sum()


def test_underdiagnosis_is_measured_at_the_operating_point():
    table = make_table(rows=300, patients=300)
    found = measure_subgroups(table, PAIR, ["sex"], ["underdiagnosis"], threshold=0.2)
    diseased = table[(table["sex"] == "F") & (table["target"] == 1)]
    assert cell(found, "F", "underdiagnosis", "k") == (diseased["prob_1"] < 0.2).sum()
    never = measure_subgroups(table, PAIR, ["sex"], ["underdiagnosis"], threshold=0.0)
    assert cell(never, "F", "underdiagnosis", "high") == exact_proportion(0, len(diseased)).high


@pytest.mark.parametrize(
    ("classes", "columns", "metrics", "message"),
    [
        (2, ["sex", "ward"], ["auroc"], r"expected subgroup columns of the table, got \['ward'\]"),
        (2, ["sex"], ["auc"], r"expected names of metrics, got \['auc'\]"),
        (3, ["sex"], ["underdiagnosis"], "expected two classes for underdiagnosis, got 3"),
    ],
)
def test_what_cannot_be_measured_is_refused(classes, columns, metrics, message):
    with pytest.raises(DataError, match=message):
        measure_subgroups(make_table(classes), NAMES[:classes], columns, metrics)
