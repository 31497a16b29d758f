import numpy as np
import pandas as pd
import pytest
import yaml

from cxr.cli import main
from cxr.commands.compare import name_sources, pool_recipes, read_source
from cxr.errors import DataError
from cxr.evaluation.predictions import make_predictions, write_predictions

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
    names = name_sources(runs)
    assert list(names) == ["demo a", "demo bb", "other"]
    assert pool_recipes(names) == {"demo": ["demo a", "demo bb"], "other": ["other"]}


def test_the_same_run_twice_is_refused(make_run):
    run = make_run("demo", "a")
    with pytest.raises(DataError, match="expected different runs, got demo a more than once"):
        name_sources([run, run])


def test_a_run_without_test_predictions_is_told(tmp_path):
    with pytest.raises(DataError, match=r"expected predictions_test.csv in .*, but there is none"):
        read_source(tmp_path, None)
