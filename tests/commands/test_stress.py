"""`cxr stress` on a small run on phantoms."""

import pandas as pd
import pytest
from PIL import Image

from cxr.cli import main
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
