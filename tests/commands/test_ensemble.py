"""`cxr ensemble` on small runs on phantoms, and what the other commands make of its folder."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from cxr.cli import main
from cxr.commands.ensemble import make_ensemble, parse_weights, read_members
from cxr.errors import ConfigError, DataError
from cxr.evaluation.ledger import FILE, read_ledger
from cxr.evaluation.predictions import read_predictions, write_predictions
from cxr.inference.bundle import load_bundle
from cxr.training.fit import fit

pytestmark = [pytest.mark.filterwarnings("ignore:the test part has"), pytest.mark.slow]


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


def test_a_run_is_never_written_over(runs, made, capsys):
    assert main(["ensemble", *map(str, runs), "--out", str(runs[0])]) == 1
    assert "error: expected a new folder, but" in capsys.readouterr().err


@pytest.fixture
def plan(tmp_path):
    """plan(name): a finished plan without runs."""

    def made(name):
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"config": {"plan": {"name": name}}}))
        (tmp_path / "runs.csv").write_text("run\nclass_0\n")
        return tmp_path

    return made


@pytest.mark.parametrize("kind", ["ovr", "automl"])
def test_a_plan_of_another_kind_is_refused(plan, kind):
    folder = plan(kind)
    if kind == "automl":  # which has no runs
        (folder / "runs.csv").unlink()
    with pytest.raises(ConfigError, match=f"expected runs, plan=cv or plan=seeds, but .* is of plan={kind}"):
        list(read_members(folder))


def test_a_run_counts_once(runs):
    with pytest.raises(ConfigError, match=f"expected different runs, got {runs[0]} twice; name each once"):
        make_ensemble([runs[0], runs[1], runs[0]], "soft", None, False, False, runs[0].parent / "twice")


def test_a_plan_that_is_not_finished_is_refused(plan):
    folder = plan("cv")
    (folder / "runs.csv").unlink()
    with pytest.raises(DataError, match=r"expected a finished plan, but .* has no runs.csv; continue it"):
        list(read_members(folder))


def test_weights_are_words_or_numbers():
    assert (parse_weights(None), parse_weights("fit"), parse_weights("0.5,2")) == (None, "fit", [0.5, 2.0])
    with pytest.raises(ConfigError, match=r"expected --weights to be 'fit' or numbers such as 0.5,0.3,0.2, got 'best'"):
        parse_weights("best")


def test_snapshots_of_a_run_are_its_kept_checkpoints(runs, tmp_path, capsys):
    assert main(["ensemble", str(runs[0]), "--snapshots", "--out", str(tmp_path / "snaps")]) == 0
    kept = sorted(path.stem for path in (runs[0] / "checkpoints").glob("epoch*.ckpt"))
    assert sorted(path.name for path in (tmp_path / "snaps" / "snapshots").iterdir()) == kept
    assert len(kept) == 2
    tables = [
        read_predictions(tmp_path / "snaps" / "snapshots" / name / "predictions_test.csv")[0].set_index("sample_id")
        for name in kept
    ]
    run = read_predictions(runs[0] / "predictions_test.csv")[0].set_index("sample_id")
    margins = [(table["logit_1"] - table["logit_0"]).loc[run.index] for table in tables]
    told = run["logit_1"] - run["logit_0"]
    assert min(float((one - told).abs().max()) for one in margins) < 1e-3


def test_a_run_that_kept_one_checkpoint_has_no_snapshots(runs, tmp_path, capsys):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    next((copy / "checkpoints").glob("epoch*.ckpt")).unlink()
    assert main(["ensemble", str(copy), "--snapshots", "--out", str(tmp_path / "snaps")]) == 1
    assert "expected two or more kept checkpoints in" in capsys.readouterr().err


@pytest.fixture
def cross_validation(runs, tmp_path):
    """A finished plan=cv of one net, which learnt a part of the phantoms and left the test part of `runs` alone."""

    def made(split_file):
        folder = tmp_path / "cv"
        run = shutil.copytree(runs[0], folder / "fold_0")
        split = pd.read_csv(run / "split.csv", dtype=str)
        pool = split[split["split"] != "test"].replace({"split": {"val": "test"}})
        pool.to_csv(run / "split.csv", index=False)
        table, names = read_predictions(run / "predictions_val.csv")
        write_predictions(table.assign(run="fold_0", fold=0), names, folder / "predictions_oof.csv")
        record = {"config": {"plan": {"name": "cv"}, "data": {"split_file": split_file}}}
        (folder / "plan.yaml").write_text(yaml.safe_dump(record))
        (folder / "runs.csv").write_text("run\nfold_0\n")
        return folder

    return made


def test_folds_are_tested_on_what_is_in_none(cross_validation, runs, tmp_path, capsys):
    given = shutil.copyfile(runs[0] / "split.csv", tmp_path / "given.csv")
    folder = cross_validation(str(given))
    assert main(["ensemble", str(folder), "--test", "--out", str(tmp_path / "folds")]) == 0
    told = capsys.readouterr().out
    assert "oof/auroc: " in told
    assert "test/auroc: " in told
    found, _ = read_predictions(tmp_path / "folds" / "predictions_test.csv")
    expected, _ = read_predictions(runs[0] / "predictions_test.csv")
    together = found.set_index("sample_id").loc[expected["sample_id"]]
    np.testing.assert_allclose(together["prob_1"], expected["prob_1"], atol=1e-4)
    np.testing.assert_array_equal(together["target"], expected["target"])
    (opening,) = read_ledger(tmp_path / FILE).openings
    assert opening.run == "folds"
    metrics = json.loads((tmp_path / "folds" / "metrics.json").read_text())["metrics"]
    assert {"oof/auroc", "test/auroc"} <= set(metrics)


def test_folds_that_hold_everything_leave_nothing_to_test(cross_validation, tmp_path, capsys):
    assert main(["ensemble", str(cross_validation(None)), "--test", "--out", str(tmp_path / "folds")]) == 1
    assert "expected a test part that is in no fold" in capsys.readouterr().err
    assert not (tmp_path / "folds").exists()


def test_runs_have_been_tested_already(runs, tmp_path, capsys):
    assert main(["ensemble", *map(str, runs), "--test", "--out", str(tmp_path / "both")]) == 1
    assert "expected --test with folders of plan=cv" in capsys.readouterr().err
