import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from cxr.cli import main
from cxr.commands.compare import PLAN_FILE, list_runs, pool_recipes, read_source
from cxr.errors import DataError
from cxr.evaluation.predictions import make_predictions, read_predictions, write_predictions

NAMES = ["well", "ill"]


@pytest.fixture
def make_run(tmp_path):
    """make_run(recipe, folder, strength): a run with predictions on the same 60 test images."""

    def made(recipe, folder, strength=2.0, count=60):
        draws = np.random.default_rng(len(folder))
        label = np.arange(count) % 2
        logits = draws.normal(size=(count, 2))
        logits[np.arange(count), label] += strength
        run = tmp_path / recipe / folder
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(yaml.safe_dump({"run_name": recipe}))
        samples = pd.DataFrame({"sample_id": range(count), "label": label, "patient_id": range(count)})
        write_predictions(make_predictions(samples, logits, NAMES, "test", folder), NAMES, run / "predictions_test.csv")
        return run

    return made


def test_runs_are_compared_by_command(make_run, tmp_path, capsys):
    runs = [make_run("demo", "a"), make_run("other", "bb", 0.5)]
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "out"), "--no-costs"]) == 0
    shown = capsys.readouterr().out
    assert "| auroc | demo |" in shown
    assert "60 test images of 60 patients; differences to demo" in shown
    assert shown.splitlines()[-1] == f"comparison: {tmp_path}/out/comparison.html"
    table = pd.read_csv(tmp_path / "out" / "comparison.csv").set_index(["recipe", "metric"])
    assert table.loc[("other", "auroc"), "test"] == "DeLong"
    assert table.loc[("other", "auroc"), "difference"] < 0


def test_seeds_of_a_recipe_are_pooled(make_run, tmp_path):
    runs = [make_run("demo", "a"), make_run("demo", "bb"), make_run("other", "ccc", 0.5)]
    words = [*map(str, runs), "--pool", "--no-costs", "--out", str(tmp_path / "out")]
    assert main(["compare", *words]) == 0
    table = pd.read_csv(tmp_path / "out" / "comparison.csv").set_index(["recipe", "metric"])
    assert table.loc[("demo", "auroc"), "runs"] == 2
    assert table.loc[("demo", "auroc"), "sd"] > 0


def test_runs_with_other_test_images_are_refused(make_run, capsys):
    runs = [make_run("demo", "a"), make_run("other", "bb", count=40)]
    assert main(["compare", *map(str, runs), "--no-costs"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_names_are_as_short_as_can_be_told_apart(make_run):
    runs = [make_run("demo", "a"), make_run("demo", "bb"), make_run("other", "c")]
    found = list_runs(runs, None)
    assert [run.name for run in found] == ["demo a", "demo bb", "other"]
    assert pool_recipes(found) == {"demo": ["demo a", "demo bb"], "other": ["other"]}


def test_the_same_run_twice_is_refused(make_run):
    run = make_run("demo", "a")
    with pytest.raises(DataError, match="expected different runs, got demo a more than once"):
        list_runs([run, run], None)


def test_a_run_without_test_predictions_is_told(tmp_path):
    with pytest.raises(DataError, match=r"expected predictions_test.csv in .*, but there is none"):
        read_source(tmp_path, None)


@pytest.fixture
def make_plan(make_run, tmp_path):
    """make_plan(recipe, kind, names): a plan whose runs are there; of folds also the pooled predictions."""

    def made(recipe, kind, names):
        folder = tmp_path / recipe
        runs = [make_run(recipe, name) for name in names]
        record = {"config": {"plan": {"name": kind}}, "data": dict.fromkeys(names, "a fingerprint")}
        (folder / "plan.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
        if kind == "cv":
            tables = [read_predictions(run / "predictions_test.csv")[0] for run in runs]
            rows = [table[np.arange(60) % 2 == k % 2] for k, table in enumerate(tables)]  # two folds to a repeat
            write_predictions(pd.concat(rows), NAMES, folder / "predictions_oof.csv")
        return folder

    return made


def test_the_name_of_a_plans_record_is_that_of_plans():
    from cxr.experiments.plan import PLAN_FILE as OF_PLANS

    assert PLAN_FILE == OF_PLANS


def test_seeds_of_a_plan_are_its_runs_and_pool_to_one_recipe(make_plan, make_run, tmp_path, capsys):
    plan, run = make_plan("demo", "seeds", ["seed_0", "seed_11"]), make_run("other", "c")
    assert [one.name for one in list_runs([plan, run], None)] == ["demo seed_0", "demo seed_11", "other"]
    out = tmp_path / "out"
    assert main(["compare", str(plan), str(run), "--pool", "--no-costs", "--out", str(out)]) == 0
    table = pd.read_csv(out / "comparison.csv").set_index(["recipe", "metric"])
    assert table["runs"].groupby("recipe").first().to_dict() == {"demo": 2, "other": 1}
    assert "cross-validation" not in capsys.readouterr().out


def test_folds_of_a_plan_are_one_table(make_plan, make_run, tmp_path, capsys):
    plan, run = make_plan("demo", "cv", ["fold_0", "fold_1"]), make_run("other", "c")
    (folds,) = list_runs([plan], None)
    assert (folds.name, folds.recipe, folds.folds, len(folds.table[0])) == ("demo", "demo", True, 60)
    out = tmp_path / "out"
    assert main(["compare", str(plan), str(run), "--no-costs", "--out", str(out)]) == 0
    remark = "demo: cross-validation. Each image was answered by the net that had not seen its patient"
    assert remark in capsys.readouterr().out
    assert remark in (out / "comparison.html").read_text()


def test_each_repeat_of_a_cross_validation_is_a_run(make_plan):
    names = [f"repeat_{repeat}_fold_{fold}" for repeat in range(2) for fold in range(2)]
    plan = make_plan("demo", "cv", names)
    runs = list_runs([plan], None)
    assert [run.name for run in runs] == ["demo repeat_0", "demo repeat_1"]
    assert [run.folder.name for run in runs] == ["repeat_0_fold_0", "repeat_1_fold_0"]
    assert all(run.table[0]["sample_id"].is_unique and len(run.table[0]) == 60 for run in runs)
    assert pool_recipes(runs) == {"demo": ["demo repeat_0", "demo repeat_1"]}


def test_two_plans_of_one_recipe_stay_apart(make_plan, tmp_path):
    first = make_plan("demo", "seeds", ["seed_0", "seed_11"])
    second = shutil.copytree(first, tmp_path / "again")
    recipes = pool_recipes(list_runs([first, second], None))
    assert {name: len(runs) for name, runs in recipes.items()} == {"demo demo": 2, "demo again": 2}


def test_a_plan_that_is_not_finished_is_told(make_plan):
    plan = make_plan("demo", "cv", ["fold_0", "fold_1"])
    (plan / "predictions_oof.csv").unlink()
    with pytest.raises(DataError, match=r"expected predictions_oof.csv in .*; finish the plan with plan.folder"):
        list_runs([plan], None)


def test_automl_is_one_run_though_it_has_a_plan_s_record(make_plan, make_run):
    race = make_plan("race", "automl", ["unused"])
    for file in make_run("other", "c").glob("predictions_test.*"):
        shutil.copy(file, race)
    (race / "config.yaml").write_text(yaml.safe_dump({"run_name": "race"}))
    assert [(run.name, run.folder) for run in list_runs([race], NAMES)] == [("race", race)]
