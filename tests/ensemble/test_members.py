import numpy as np
import pandas as pd
import pytest

from cxr.ensemble.members import POOLED, align, read_recipe, read_run
from cxr.errors import ConfigError, DataError
from cxr.evaluation.predictions import read_predictions


def spoil(path, change):
    table = pd.read_csv(path, dtype={"sample_id": str, "patient_id": str})
    change(table).to_csv(path, index=False)


def test_members_are_brought_into_one_order_of_rows_and_classes(make_run):
    plain = make_run("a", seed=1)
    turned = make_run("b", seed=2, names=["ill", "well"])
    spoil(turned / "predictions_val.csv", lambda table: table.iloc[::-1])
    rows = align([read_run(plain, "a"), read_run(turned, "b")])
    assert set(rows) == {"val", "test"}
    first, _ = read_predictions(plain / "predictions_val.csv")
    second, _ = read_predictions(turned / "predictions_val.csv")
    second = second.set_index("sample_id").loc[first["sample_id"]]
    np.testing.assert_array_equal(rows["val"].target, first["target"])
    np.testing.assert_array_equal(rows["val"].probs[1], second[["prob_1", "prob_0"]])


def test_only_parts_that_all_have_are_combined(make_run):
    members = [read_run(make_run("a"), "a"), read_run(make_run("b", parts=("val",)), "b")]
    assert set(align(members)) == {"val"}


def test_a_recipe_is_its_pooled_predictions_and_all_its_nets(make_recipe):
    recipe = read_recipe(make_recipe("cv"), "cv")
    assert [bundle.parent.name for bundle in recipe.bundles] == ["fold_0", "fold_1", "fold_2"]
    assert len(align([recipe])[POOLED].table) == 90


def test_runs_on_other_rows_are_refused(make_run, samples):
    swapped = samples.assign(split=samples["split"].replace({"val": "train", "train": "val"}))
    members = [read_run(make_run("a"), "a"), read_run(make_run("b", samples=swapped), "b")]
    with pytest.raises(
        DataError, match=r"the same rows of val in all members, but a and b differ in 100, such as s040"
    ):
        align(members)


def test_recipes_on_other_folds_are_refused(make_recipe):
    other = np.arange(90) // 2 % 3
    members = [read_recipe(make_recipe("a"), "a"), read_recipe(make_recipe("b", fold_of=other), "b")]
    with pytest.raises(
        DataError, match=r"the same rows of oof in all members, .*; combine .* recipes on the same folds"
    ):
        align(members)


def test_runs_on_other_labels_are_refused(make_run):
    first, second = make_run("a"), make_run("b")
    spoil(second / "predictions_test.csv", lambda table: table.assign(target=1 - table["target"]))
    with pytest.raises(DataError, match="expected one truth for each image, but a and b have other classes for 80"):
        align([read_run(first, "a"), read_run(second, "b")])


def test_runs_of_other_classes_are_refused_by_name(make_run):
    members = [read_run(make_run("a"), "a"), read_run(make_run("b"), "b")]
    other = read_run(make_run("c"), "c")
    members.append(type(other)("c", other.runs, ["well", "dead"], other.tables))
    with pytest.raises(
        ConfigError, match="c: expected members of the classes well, ill, in any order, got one of well"
    ):
        align(members)


def test_rows_that_a_net_learnt_are_refused(make_run, make_recipe):
    run = make_run("a")
    spoil(run / "split.csv", lambda table: table.assign(split=table["split"].replace("test", "train")))
    with pytest.raises(DataError, match="part test of .*a, but 80 rows are not in that part of its split"):
        read_run(run, "a")
    recipe = make_recipe("cv")
    spoil(recipe / "predictions_oof.csv", lambda table: table.assign(run="fold_0", fold=0).astype({"fold": int}))
    with pytest.raises(DataError, match="part test of .*fold_0, but 60 rows are not in that part of its split"):
        read_recipe(recipe, "cv")


def test_a_run_without_its_split_is_refused(make_run):
    run = make_run("a")
    (run / "split.csv").unlink()
    with pytest.raises(DataError, match=r"expected the split of the run in .*; without it nobody knows what it learnt"):
        read_run(run, "a")


def test_a_run_with_several_targets_is_refused(make_run):
    run = make_run("a", parts=())
    (run / "predictions_val_edema.csv").write_text("")
    with pytest.raises(DataError, match="expected runs with one class per image, but .* has several targets"):
        read_run(run, "a")
