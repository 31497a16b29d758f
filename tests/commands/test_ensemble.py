"""`cxr ensemble` on small runs on phantoms, and what the other commands make of its folder."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from cxr.cli import main
from cxr.commands.ensemble import parse_weights, read_members
from cxr.errors import ConfigError, DataError
from cxr.evaluation.predictions import read_predictions
from cxr.inference.bundle import load_bundle
from cxr.training.fit import fit

pytestmark = pytest.mark.filterwarnings("ignore:the test part has")


@pytest.fixture(scope="module")
def runs(compose_run, tmp_path_factory):
    """Two small runs on one split whose nets take images of other sizes and proportions."""
    folder = tmp_path_factory.mktemp("runs")
    fit(compose_run(folder / "first"))
    other = ["preprocess.size=[48,40]", "preprocess.aspect=crop", "seed=1"]
    fit(compose_run(folder / "second", *other, f"data.split_file={folder}/first/split.csv"))
    return [folder / "first", folder / "second"]


@pytest.fixture(scope="module")
def made(runs):
    """The folder of their ensemble."""
    folder = runs[0].parent / "both"
    assert main(["ensemble", *map(str, runs), "--weights", "3,1", "--out", str(folder)]) == 0
    return folder


def test_an_ensemble_says_of_images_what_its_tables_say(made, runs, lab):
    raw = pd.read_csv(runs[0] / "split.csv", dtype=str)
    table, names = read_predictions(made / "predictions_test.csv")
    assert set(table["sample_id"]) == set(raw.loc[raw["split"] == "test", "sample_id"])
    own = [read_predictions(run / "predictions_test.csv")[0].set_index("sample_id") for run in runs]
    probs = [one.loc[table["sample_id"], "prob_1"] for one in own]
    np.testing.assert_allclose(np.exp(table["logit_1"]), np.average(probs, axis=0, weights=[3, 1]))
    assert load_bundle(made / "bundle").class_names == names
    assert (made / "report.html").exists()


def test_an_ensemble_is_explained_like_a_run(made, tmp_path, capsys):
    assert main(["explain", str(made), "--images", "8", "--each", "1", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"page: {tmp_path}/explain.html"
    assert "The maps are means of those of 2 nets by their shares" in (tmp_path / "explain.html").read_text()
    assert json.loads((tmp_path / "sanity.json").read_text())["images"] == 8


def test_an_ensemble_is_evaluated_and_compared_like_a_run(made, runs, tmp_path, capsys):
    assert main(["evaluate", str(made), "--out", str(tmp_path / "again")]) == 0
    assert main(["compare", str(made), str(runs[0]), "--out", str(tmp_path / "compared")]) == 0
    assert "soft ensemble of first, second" in capsys.readouterr().out
    assert (tmp_path / "again" / "report.html").exists()


def test_an_ensemble_may_be_a_member(made, runs, tmp_path, capsys):
    assert main(["ensemble", str(made), str(runs[1]), "--rule", "majority", "--out", str(tmp_path / "more")]) == 0
    assert "member: soft ensemble of first, second both" in capsys.readouterr().out


def test_what_cannot_be_combined_is_told(runs, tmp_path, capsys):
    assert main(["ensemble", str(runs[0]), "--out", str(tmp_path / "one")]) == 1
    assert "error: expected two or more runs" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()


@pytest.fixture
def plan(tmp_path):
    """plan(name): a finished plan without runs."""

    def made(name):
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"config": {"plan": {"name": name}}}))
        (tmp_path / "runs.csv").write_text("run\nclass_0\n")
        return tmp_path

    return made


def test_a_plan_of_another_kind_is_refused(plan):
    with pytest.raises(ConfigError, match="expected runs, plan=cv or plan=seeds, but .* is of plan=ovr"):
        list(read_members(plan("ovr")))


def test_a_plan_that_is_not_finished_is_refused(plan):
    folder = plan("cv")
    (folder / "runs.csv").unlink()
    with pytest.raises(DataError, match=r"expected a finished plan, but .* has no runs.csv; continue it"):
        list(read_members(folder))


def test_weights_are_words_or_numbers():
    assert (parse_weights(None), parse_weights("fit"), parse_weights("0.5,2")) == (None, "fit", [0.5, 2.0])
    with pytest.raises(ConfigError, match=r"expected --weights to be 'fit' or numbers such as 0.5,0.3,0.2, got 'best'"):
        parse_weights("best")
