"""`cxr explain` on a small run on phantoms."""

import json
import re
import shutil

import pandas as pd
import pytest

from cxr.cli import main
from cxr.evaluation.predictions import read_predictions
from cxr.inference.saliency import METHODS
from cxr.parsers.explain import SALIENCY_METHODS
from cxr.training.fit import fit

pytestmark = pytest.mark.filterwarnings("ignore:the test part has")


@pytest.fixture(scope="module")
def run(compose_run, tmp_path_factory):
    """A small run that has boxes."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    fit(compose_run(folder))
    return folder


def test_the_command_knows_the_methods():
    assert list(METHODS) == list(SALIENCY_METHODS)


def test_a_run_becomes_pictures_scores_and_a_page(run, tmp_path, capsys):
    assert main(["explain", str(run), "--images", "20", "--each", "2", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("the maps:")
    assert shown[-1] == f"page: {tmp_path}/explain.html"
    pictures = sorted(path.name for path in (tmp_path / "gallery").iterdir())
    assert set(pictures) <= {f"{kind}_0{i}.png" for kind in ("errors", "uncertain", "correct") for i in (1, 2)}
    assert len(pictures) >= 3
    localisation = json.loads((tmp_path / "localisation.json").read_text())
    assert set(localisation["scores"]) == {"map", "centre", "others"}
    assert len(localisation["rows"]) == localisation["boxed"] > 0
    assert localisation["classes"] == ["positive"]
    assert set(localisation["gains"]) == {"centre", "others"}
    pointing = localisation["scores"]["map"]["pointing"]
    assert pointing["low"] <= pointing["value"] <= pointing["high"]
    sanity = json.loads((tmp_path / "sanity.json").read_text())
    assert sanity["images"] == 16
    assert sanity["state"] in ("passed", "failed", "undecided")
    page = (tmp_path / "explain.html").read_text()
    assert page.count("data:image/png;base64,") == len(pictures)
    assert all(f'id="{name}"' in page for name in ("errors", "uncertain", "correct", "localisation", "sanity"))
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_what_is_written_names_no_file_and_no_raw_id(run, lab):
    assert main(["explain", str(run), "--images", "8", "--each", "1", "--part", "val"]) == 0
    folder = run / "explain" / "val_gradcam"
    raw = pd.read_csv(next((lab / "data").glob("*/phantom_truth.csv")), dtype=str)
    text = "".join(path.read_text() for path in folder.glob("*.*"))
    known = set(read_predictions(run / "predictions_val.csv")[0]["sample_id"])
    rows = json.loads((folder / "localisation.json").read_text())["rows"]
    assert {row["sample_id"] for row in rows} <= known
    assert not any(
        value in text for column in ("image_id", "study_id", "patient_id") for value in raw[column] if len(value) > 8
    )
    assert str(lab) not in text


@pytest.mark.slow
def test_the_report_of_the_run_shows_the_scores(run, copy, capsys):
    assert main(["explain", str(copy), "--images", "20", "--each", "1"]) == 0
    assert main(["evaluate", str(copy)]) == 0
    page, words = (copy / "report.html").read_text(), capsys.readouterr().out
    assert 'href="#localisation"' in page
    pointing = float(re.search(r"the maps: +pointing ([\d.]+)", words)[1])
    section = page[page.index('<section id="localisation">') : page.index('<section id="training">')]
    assert f"<b>{pointing:.3f}</b>" in section
    assert "Grad-CAM (Selvaraju et al. 2017) on test" in section
    stored = json.loads((copy / "metrics.json").read_text())["evaluation"]["explanations"]
    assert stored[0]["localisation"]["scores"]["map"]["pointing"]["value"] == pytest.approx(pointing, abs=5e-4)
    assert "rows" not in stored[0]["localisation"]


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run that may be spoilt."""
    return shutil.copytree(run, tmp_path / "copy")


def told(capsys, *words):
    assert main(["explain", *map(str, words)]) == 1
    return capsys.readouterr().err


def test_without_boxes_the_rest_is_there(copy, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("cxr.data.readers.siim._BOXES_CSV", "no such file")
    assert main(["explain", str(copy), "--images", "8", "--each", "1"]) == 0
    assert capsys.readouterr().out.startswith("localisation: not measured, no image has boxes")
    folder = copy / "explain" / "test_gradcam"
    assert not (folder / "localisation.json").exists()
    assert "The dataset has no boxes for these images" in (folder / "explain.html").read_text()


def test_a_folder_that_is_no_run_is_told(tmp_path, capsys):
    assert "expected a run folder with config.yaml" in told(capsys, tmp_path)


def test_a_part_without_predictions_is_told(copy, capsys):
    (copy / "predictions_test.csv").unlink()
    assert "expected predictions_test.csv in" in told(capsys, copy)


def test_a_target_of_a_run_without_targets_is_told(copy, capsys):
    assert "expected no --target for a run with one class per image, got edema" in told(
        capsys, copy, "--target", "edema"
    )


@pytest.mark.parametrize("word", ["data.roots=1", "data.root"])
def test_an_override_of_nothing_is_told(copy, capsys, word):
    assert "expected values of the run's config, such as data.root=PATH" in told(capsys, copy, word)


def test_too_few_images_are_told(copy, capsys):
    assert "expected --images of 2 or more, got 1" in told(capsys, copy, "--images", "1")


def test_a_place_that_cannot_be_written_is_told(copy, capsys):
    assert "choose another --out" in told(capsys, copy, "--out", copy / "config.yaml")


def test_other_data_are_told(copy, capsys, monkeypatch):
    monkeypatch.setenv("CXR_ID_SALT", "another salt")
    assert re.search(r"expected the images of \d+ predictions in the dataset, but \d+ are not", told(capsys, copy))


def test_another_net_than_the_predictions_are_of_is_told(copy, capsys):
    path = copy / "predictions_test.csv"
    table = pd.read_csv(path, dtype={"sample_id": str})
    table[["prob_0", "prob_1"]] = table[["prob_1", "prob_0"]].to_numpy() * 0 + [0.01, 0.99]
    table.to_csv(path, index=False)
    assert "expected the images that the run was evaluated on, but the probabilities differ" in told(capsys, copy)


@pytest.mark.slow
def test_a_run_with_several_targets_explains_one(targets_run):
    assert main(["explain", str(targets_run), "--target", "left side", "--images", "8", "--each", "1"]) == 0
    folder = targets_run / "explain" / "test_left_side_gradcam"
    page = (folder / "explain.html").read_text()
    assert "what speaks for left side" in page
    assert "what speaks for no left side" not in page


@pytest.mark.slow
def test_a_run_with_several_targets_must_be_told_which(targets_run, capsys):
    assert "expected --target to be one of left side, right side, got None" in told(capsys, targets_run)
