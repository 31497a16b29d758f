"""`cxr stress` on a small run on phantoms."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.cli import main
from cxr.commands.stress import choose_target
from cxr.evaluation.predictions import read_predictions
from cxr.imaging.stress import STRESSES
from cxr.training.fit import fit

pytestmark = [pytest.mark.filterwarnings("ignore:the test part has"), pytest.mark.slow]


@pytest.fixture(scope="module")
def run(compose_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    fit(compose_run(folder))
    return folder


def test_a_run_becomes_a_table_and_figures(run, capsys):
    assert main(["stress", str(run), "--part", "test", "--images", "24"]) == 0
    shown = capsys.readouterr().out.splitlines()
    folder = run / "stress" / "test"
    table = pd.read_csv(folder / "stress.csv")
    assert len(shown) == 1 + len(STRESSES) + 1
    assert shown[-1] == f"tables and figures: {folder}"
    assert [tuple(row) for row in table[["change", "strength"]].to_numpy()[1:]] == [
        (one.kind, one.strength) for one in STRESSES
    ]
    assert set(table["n"]) == {24}
    assert table["auroc"].between(0, 1).all()
    with Image.open(folder / "stress_auroc.png") as figure:
        assert min(figure.size) > 300


def test_without_change_the_run_says_what_it_said(run, tmp_path):
    predictions, names = read_predictions(run / "predictions_val.csv")
    assert main(["stress", str(run), "--images", str(len(predictions)), "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "stress.csv")
    accuracy = predictions["target"].to_numpy() == predictions[["prob_0", "prob_1"]].to_numpy().argmax(axis=1)
    per_class = [accuracy[predictions["target"] == k].mean() for k in range(len(names))]
    assert table.loc[0, "balanced_accuracy"] == pytest.approx(sum(per_class) / 2)


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main(["stress", str(tmp_path)]) == 1
    assert "expected a run folder with config.yaml" in capsys.readouterr().err


def test_of_several_targets_one_is_asked_for(targets_run, capsys):
    assert main(["stress", str(targets_run), "--target", "left side", "--images", "40"]) == 0
    table = pd.read_csv(targets_run / "stress" / "val_left_side" / "stress.csv")
    predictions, names = read_predictions(targets_run / "predictions_val_left_side.csv")
    assert names[-1] == "left side"
    assert table.loc[0, "n"] == min(40, len(predictions))
    assert table["auroc"].between(0, 1).all()
    assert main(["stress", str(targets_run)]) == 1
    assert "expected --target to be one of left side, right side, got None" in capsys.readouterr().err


def test_yes_to_a_target_is_its_own_column():
    probs = np.array([[0.9, 0.2], [0.4, 0.7]])
    np.testing.assert_allclose(choose_target(probs, ["a", "b"], "b"), [[0.8, 0.2], [0.3, 0.7]])
    assert choose_target(probs, ["a", "b"], None) is probs
