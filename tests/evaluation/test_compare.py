import numpy as np
import pandas as pd
import pytest

from cxr.errors import DataError
from cxr.evaluation.compare import compare
from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.statistics.corrections import holm
from cxr.evaluation.statistics.delong import delong_difference
from cxr.evaluation.statistics.paired import mcnemar, paired_differences

from .statistics.made_up import NAMES, make_table

PAIR = NAMES[:2]
METRICS = ["auroc", "accuracy", "mcc"]


def make_runs(rows=150, patients=150, classes=2, skills=(1.0, 1.5, 1.1)):
    return {
        f"run {letter}": (make_table(classes, rows, patients, seed=seed, skill=skill), NAMES[:classes])
        for seed, (letter, skill) in enumerate(zip("ABC", skills, strict=True))
    }


def answers(runs, name):
    table, names = runs[name]
    return table[[f"prob_{k}" for k in range(len(names))]].to_numpy()


def test_differences_are_those_of_the_paired_bootstrap():
    runs = make_runs(rows=200, patients=80)
    found = compare(runs, METRICS)
    target, groups = runs["run A"][0]["target"], runs["run A"][0]["patient_id"]
    assert (found.reference, found.rows, found.patients) == ("run A", 200, 80)
    assert [(one.recipe, one.metric) for one in found.results] == [(run, metric) for run in runs for metric in METRICS]
    for one in found.results:
        own = classification_metrics(target, answers(runs, one.recipe), PAIR)
        assert one.value.value == pytest.approx(own[one.metric])
        assert one.value.low < one.value.value < one.value.high
        if one.recipe == "run A":
            assert one.difference is None
            assert one.test is None
            continue
        expected = paired_differences(target, answers(runs, one.recipe), answers(runs, "run A"), groups, PAIR, METRICS)
        assert one.difference.value == pytest.approx(expected[one.metric].value)
        assert one.difference.standard_error == pytest.approx(expected[one.metric].standard_error)
        assert one.difference.p_value == pytest.approx(expected[one.metric].p_value)


def test_p_values_are_corrected_for_all_comparisons():
    found = [one for one in compare(make_runs(), METRICS).results if one.difference is not None]
    assert [one.p_holm for one in found] == pytest.approx(holm([one.difference.p_value for one in found]))
    delong = [one.test for one in found if one.test.name == "DeLong"]
    assert [test.p_holm for test in delong] == pytest.approx(holm([test.p_value for test in delong]))
    assert len(delong) == 2


def test_second_tests_are_made_where_each_patient_has_one_row():
    runs = make_runs()
    found = {(one.recipe, one.metric): one.test for one in compare(runs, METRICS).results}
    target, first, second = runs["run A"][0]["target"].to_numpy(), answers(runs, "run B"), answers(runs, "run A")
    gap = delong_difference(target == 1, first[:, 1], second[:, 1])
    auroc = found["run B", "auroc"]
    assert (auroc.p_value, auroc.low, auroc.high) == pytest.approx((gap.p_value, gap.low, gap.high))
    pairs = mcnemar(first.argmax(axis=1) == target, second.argmax(axis=1) == target)
    accuracy = found["run B", "accuracy"]
    assert (accuracy.name, accuracy.p_value) == ("McNemar", pairs.p_value)
    assert accuracy.note == f"only run B right: {pairs.only_first}, only run A right: {pairs.only_second}"
    assert found["run B", "mcc"].name == ""


def test_of_several_classes_delong_tests_each_against_the_rest():
    runs = make_runs(classes=3)
    found = {(one.recipe, one.metric): one.test for one in compare(runs, ["auroc", "auroc/Typical"]).results}
    gap = delong_difference(
        runs["run A"][0]["target"].to_numpy() == 1, answers(runs, "run B")[:, 1], answers(runs, "run A")[:, 1]
    )
    assert found["run B", "auroc/Typical"].p_value == pytest.approx(gap.p_value)
    assert found["run B", "auroc"].name == ""


def test_second_tests_say_why_they_were_not_made():
    several = compare(make_runs(rows=200, patients=80), METRICS).results[-2].test
    assert (several.name, several.note) == (
        "McNemar",
        "not made: patients have several rows, which it takes for independent",
    )
    assert np.isnan([several.p_value, several.p_holm]).all()
    runs = make_runs()
    for table, _ in runs.values():
        table["target"] = [1] + [0] * 149
    alone = compare(runs, ["auroc"]).results[-1].test
    assert alone.note == "not made: it needs two cases and two others"
    pooled = compare(make_runs(), ["auroc"], recipes={"one": ["run A", "run C"], "other": ["run B"]}).results[-1].test
    assert pooled.note == "not made: a recipe has several runs"


def test_runs_of_one_recipe_are_pooled():
    runs = make_runs()
    recipes = {"plain": ["run A", "run C"], "better": ["run B"]}
    found = compare(runs, ["auroc"], recipes=recipes, reference="better")
    plain, better = found.results
    values = [
        classification_metrics(runs[name][0]["target"], answers(runs, name), PAIR)["auroc"] for name in recipes["plain"]
    ]
    assert (plain.runs, better.runs) == (2, 1)
    assert (plain.value.value, plain.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert np.isnan(better.sd)
    assert plain.value.low < plain.value.value < plain.value.high
    assert plain.value.method == "patient bootstrap, seeds"
    assert plain.difference.value == pytest.approx(np.mean(values) - better.value.value)
    assert plain.difference.method == "paired patient bootstrap, seeds"


def test_runs_that_scatter_widen_the_interval_of_their_recipe():
    alike, scattered = make_runs(skills=(1.2, 1.2, 1.2)), make_runs(skills=(0.3, 1.2, 2.5))
    widths = []
    for runs in (alike, scattered):
        value = compare(runs, ["auroc"], recipes={"a": ["run A", "run C"], "b": ["run B"]}).results[0].value
        widths.append(value.high - value.low)
    assert widths[1] > 1.5 * widths[0]


def test_the_order_of_rows_does_not_matter():
    runs = make_runs(rows=160, patients=80)
    shuffled = dict(runs)
    shuffled["run B"] = (runs["run B"][0].sample(frac=1, random_state=0), PAIR)
    pd.testing.assert_frame_equal(compare(runs, METRICS).to_frame(), compare(shuffled, METRICS).to_frame())


def test_a_frame_holds_what_was_found():
    found = compare(make_runs(), METRICS)
    frame = found.to_frame()
    assert len(frame) == 9
    first, other = frame.iloc[0], frame.iloc[4]
    result = found.results[4]
    assert (first["recipe"], first["difference_method"], first["test"]) == ("run A", "the reference", "")
    assert np.isnan(first["difference"])
    assert (other["recipe"], other["metric"], other["k"], other["n"]) == ("run B", "accuracy", result.value.k, 150)
    assert (other["difference"], other["difference_low"], other["smallest"], other["p_holm"]) == (
        result.difference.value,
        result.difference.low,
        result.difference.smallest,
        result.p_holm,
    )
    assert (other["test"], other["test_p"], other["test_note"]) == ("McNemar", result.test.p_value, result.test.note)


def change(column, value):
    def apply(table):
        table = table.copy()
        table.loc[3, column] = value
        return table

    return apply


@pytest.mark.parametrize(
    ("mend", "names", "message"),
    [
        (lambda table: table.iloc[1:], PAIR, r"1 missing in run B, first \['s0000'\]; compare runs of one test"),
        (change("sample_id", "x"), PAIR, r"1 missing in run B, first \['s0003'\]"),
        (
            change("patient_id", "x"),
            PAIR,
            r"expected the same patient_id in run A and run B, got others for \['s0003'\]",
        ),
        (change("study_id", None), PAIR, r"expected the same study_id in run A and run B, got others for \['s0003'\]"),
        (lambda table: table.assign(target=1 - table["target"]), PAIR, "expected the same target in run A and run B"),
        (
            lambda table: pd.concat([table, table.assign(run="again")]),
            PAIR,
            r"expected each sample once in run B, got \['s0000'",
        ),
        (
            lambda table: table,
            PAIR[::-1],
            r"expected the classes \['Negative', 'Typical'\] of run A, got \['Typical', 'Negative'\] in run B; give "
            "tables that name their columns one order by --classes",
        ),
        (lambda table: table, ["Negative", "Other"], r"got \['Negative', 'Other'\] in run B; compare runs alike"),
        (lambda table: table.drop(columns="prob_1"), PAIR, "expected one prob_ column for each class"),
    ],
    ids=[
        "row missing",
        "other row",
        "other patient",
        "no study",
        "other target",
        "twice",
        "other order of classes",
        "other classes",
        "no scores",
    ],
)
def test_runs_that_do_not_match_are_refused(mend, names, message):
    runs = make_runs()
    runs["run B"] = (mend(runs["run B"][0]), names)
    with pytest.raises(DataError, match=message):
        compare(runs, METRICS)


def test_a_row_too_many_is_said_to_be_missing_in_the_first():
    runs = make_runs()
    runs["run A"] = (runs["run A"][0].iloc[1:], PAIR)
    with pytest.raises(DataError, match=r"1 missing in run A, first \['s0000'\]"):
        compare(runs, METRICS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "run X"}, r"expected a reference among \['run A', 'run B', 'run C'\], got 'run X'"),
        ({"recipes": {"one": ["run A", "run B"]}}, "in one recipe, got"),
        ({"recipes": {"one": ["run A", "run B", "run C"], "two": []}}, "in one recipe, got"),
    ],
)
def test_unknown_names_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        compare(make_runs(), METRICS, **options)


def test_one_run_is_nothing_to_compare():
    with pytest.raises(DataError, match=r"expected two or more runs to compare, got \['run A'\]"):
        compare({"run A": make_runs()["run A"]}, METRICS)
