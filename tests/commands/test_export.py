"""`cxr export` on small runs on phantoms: what leaves is what was tested, or nothing leaves."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from cxr.cli import main
from cxr.commands.export_images import read_batches, read_told
from cxr.commands.export_loss import check_parity, measure_loss
from cxr.commands.run_images import read_config
from cxr.errors import DataError, WeightsError
from cxr.evaluation.predictions import read_predictions
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import load_bundle, write_bundle
from cxr.inference.bundle_folder import find_bundle
from cxr.inference.engines import open_predictor
from cxr.inference.ensemble_predictor import EnsemblePredictor
from cxr.inference.onnx_mobile import open_mobile
from cxr.inference.onnx_predictor import OnnxPredictor
from cxr.training.fit import fit

from ..inference.test_onnx_graph import describe_net, make_net

pytestmark = pytest.mark.filterwarnings("ignore:the test part has")


@pytest.fixture(scope="module")
def run(compose_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    fit(compose_run(folder, "tta=light", "trainer.max_epochs=1"))
    (folder / "model_card.md").write_text("# A model of phantoms\n")
    return folder


@pytest.fixture(scope="module")
def exported(run):
    """The run's export with everything that it can have."""
    assert main(["export", str(run), "--int8", "--mobile"]) == 0
    return run / "export"


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run that may be spoilt."""
    return shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("export"))


def told(capsys, *words):
    assert main(["export", *map(str, words)]) == 1
    return capsys.readouterr().err


def described(bundle):
    return json.loads((bundle / "bundle.json").read_text())


def images_of(run, part):
    """Paths and probabilities of a part of a run."""
    predictor = load_bundle(run / "bundle")
    found = read_told(run, read_config(run, []), predictor, (part,))
    return found.rows["image_path"].tolist(), found.probs


@pytest.mark.slow
def test_the_export_says_of_the_test_images_what_the_run_said(run, exported):
    paths, probs = images_of(run, "test")
    predictor = open_predictor(exported)
    assert isinstance(predictor, OnnxPredictor)
    np.testing.assert_allclose(predictor.predict(paths)[["prob_0", "prob_1"]], probs, atol=1e-4)
    parity = described(exported)["export"]["parity"]
    assert (parity["against"], parity["images"], parity["n"]) == ("predictions", "test", min(64, len(paths)))
    assert parity["largest"] < 1e-4


@pytest.mark.slow
def test_the_export_is_the_whole_bundle_and_what_it_needs(run, exported):
    before, after = described(run / "bundle"), described(exported)
    graphs = {"model.onnx", "model.int8.onnx", "mobile.onnx", "model_card.md"}
    assert set(after["sha256"]) == set(before["sha256"]) | graphs
    assert {path.name for path in exported.iterdir()} == {*after["sha256"], "bundle.json"}
    changed = {"sha256", "export"}
    assert {key: after[key] for key in after.keys() - changed} == {key: before[key] for key in before.keys() - changed}
    assert (exported / "model_card.md").read_bytes() == (run / "model_card.md").read_bytes()
    np.testing.assert_array_equal(
        open_predictor(exported, "torch").predict_pixels([np.eye(40, dtype=np.float32)]),
        load_bundle(run / "bundle").predict_pixels([np.eye(40, dtype=np.float32)]),
    )


@pytest.mark.slow
def test_what_integers_cost_is_measured_on_the_whole_validation_part(run, exported):
    paths, probs = images_of(run, "val")
    found = open_predictor(exported, "int8").predict(paths)[["prob_0", "prob_1"]].to_numpy()
    loss = described(exported)["export"]["int8"]
    assert (loss["n"], loss["images"]) == (len(paths), "val")
    assert loss["largest"] == pytest.approx(np.abs(found - probs).max(), abs=2e-4)
    assert loss["mean"] == pytest.approx(np.abs(found - probs).mean(), abs=2e-4)
    target = read_predictions(run / "predictions_val.csv")[0]["target"]
    assert loss["auroc"]["float"] == pytest.approx(roc_auc_score(target, probs[:, 1]), abs=1e-3)
    assert loss["auroc"]["export"] == pytest.approx(roc_auc_score(target, found[:, 1]), abs=1e-3)
    assert loss["largest"] > 1e-6


@pytest.mark.slow
def test_the_file_for_phones_stands_alone(run, exported):
    paths, probs = images_of(run, "test")
    content = (exported / "mobile.onnx").read_bytes()
    preprocess = load_bundle(run / "bundle").preprocess
    finished = preprocess.finish(preprocess.store_all([read_pixels(path) for path in paths[:8]]))
    np.testing.assert_allclose(open_mobile(content)(finished), probs[:8], atol=5e-3)
    props = {one.key: json.loads(one.value) for one in onnx.load_from_string(content).metadata_props}
    assert props["temperature"] == described(run / "bundle")["temperature"]


@pytest.mark.slow
def test_what_was_measured_is_printed(run, tmp_path, capsys):
    assert main(["export", str(run), "--int8", "--mobile", "--out", str(tmp_path / "new" / "bundle")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in shown] == ["parity", "mobile", "int8", "bundle"]
    assert "of the run's own probabilities on " in shown[0]
    assert "largest change of a probability" in shown[2]
    assert " MB, on " in shown[1]
    assert main(["export", str(run), "--out", str(tmp_path / "new" / "bundle")]) == 0
    assert set(described(tmp_path / "new" / "bundle")["export"]) == {"versions", "bundle", "parity"}
    assert not (tmp_path / "new" / "bundle" / "model.int8.onnx").exists()


@pytest.mark.slow
def test_other_predictions_stop_the_export_and_nothing_is_written(copy, capsys):
    table = pd.read_csv(copy / "predictions_test.csv")
    table["prob_1"] = (table["prob_1"] * 0.999).round(6)
    table["prob_0"] = 1 - table["prob_1"]
    table.to_csv(copy / "predictions_test.csv", index=False)
    before = sorted(path.name for path in copy.iterdir())
    message = told(capsys, copy)
    assert "expected probabilities within 0.0001 of the run's own predictions of test, got a difference of" in message
    assert sorted(path.name for path in copy.iterdir()) == before


@pytest.mark.slow
def test_absent_images_are_told_with_the_remedy(copy, capsys, tmp_path):
    message = told(capsys, copy, f"paths.cache_dir={tmp_path}/of_another_salt")
    assert "expected the images of the run" in message
    assert "name their folder by data.root=PATH" in message


def test_an_image_that_is_gone_is_told_with_the_remedy(tmp_path):
    with pytest.raises(DataError, match=r"expected the images of the run, .* by data.root=PATH .*gone\.png"):
        list(read_batches([str(tmp_path / "gone.png")], [Preprocess()]))


@pytest.mark.slow
def test_without_test_predictions_validation_counts(copy):
    for path in copy.glob("predictions_test*"):
        path.unlink()
    assert main(["export", str(copy)]) == 0
    parity = described(copy / "export")["export"]["parity"]
    assert (parity["against"], parity["images"]) == ("predictions", "val")


@pytest.mark.slow
def test_a_bundle_that_was_written_anew_is_not_predicted_with_by_an_older_export(copy):
    assert main(["export", str(copy)]) == 0
    assert find_bundle(copy) == copy / "export"
    told = described(copy / "bundle")
    told["extras"]["metrics"] = {"test/auroc": 0.5}
    (copy / "bundle" / "bundle.json").write_text(json.dumps(told))
    with pytest.raises(WeightsError, match=f"make it again by cxr export {copy}, or give"):
        find_bundle(copy)
    assert main(["export", str(copy)]) == 0
    assert find_bundle(copy) == copy / "export"


@pytest.mark.slow
def test_mobilenet_fits_into_a_phone(tmp_path):
    arguments, _ = describe_net("mobilenet")
    net = make_net(arguments, classes=2)
    preprocess = Preprocess(size=(224, 224), channels=net.input_contract.channels)
    write_bundle(tmp_path / "bundle", net, arguments, ["normal", "covid"], preprocess, {})
    assert main(["export", str(tmp_path / "bundle"), "--mobile", "--out", str(tmp_path / "exported")]) == 0
    content = (tmp_path / "exported" / "mobile.onnx").read_bytes()
    assert 8_000_000 < len(content) < 10_000_000
    assert described(tmp_path / "exported")["export"]["mobile"]["largest"] < 1e-3


@pytest.mark.slow
def test_a_bundle_alone_is_held_against_torch(run, tmp_path, capsys):
    assert main(["export", str(run / "bundle"), "--mobile", "--out", str(tmp_path / "bundle")]) == 0
    shown = capsys.readouterr().out
    assert "of torch's probabilities on 64 synthetic images" in shown
    assert described(tmp_path / "bundle")["export"]["parity"]["against"] == "torch"
    assert "AUROC" not in shown


@pytest.mark.slow
def test_an_ensemble_is_exported_member_by_member(run, compose_run, tmp_path, capsys):
    fit(compose_run(tmp_path / "second", "preprocess.size=[48,40]", "seed=1", f"data.split_file={run}/split.csv"))
    assert main(["ensemble", str(run), str(tmp_path / "second"), "--out", str(tmp_path / "both")]) == 0
    assert main(["export", str(tmp_path / "both"), "--int8"]) == 0
    predictor = open_predictor(tmp_path / "both" / "export", "onnx")
    assert isinstance(predictor, EnsemblePredictor)
    assert all(isinstance(member, OnnxPredictor) for member in predictor.members)
    paths, probs = images_of(tmp_path / "both", "test")
    np.testing.assert_allclose(predictor.predict(paths)[["prob_0", "prob_1"]], probs, atol=1e-4)
    open_predictor(tmp_path / "both" / "export", "int8")
    assert described(tmp_path / "both" / "export")["export"]["parity"]["against"] == "predictions"
    capsys.readouterr()
    assert "expected one net for --mobile, got an ensemble" in told(capsys, tmp_path / "both", "--mobile")


@pytest.mark.slow
def test_several_targets(compose_run, tmp_path):
    draws, rows = np.random.default_rng(0), []
    for number in range(120):
        left, right = draws.integers(0, 2, 2)
        pixels = draws.integers(0, 120, (32, 32)) + 0
        pixels[12:20, 4:12] += 130 * left
        pixels[12:20, 20:28] += 130 * right
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"path": f"{number}.png", "left": left, "right": right if number % 3 else None})
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    own = ["data=table", f"data.path={tmp_path}/table.csv", "data.root=null", "data.targets=[left,right]",
           "data.columns.finding=null", "data.batch_size=16", "loss=masked_bce", "sampler=none",
           "preprocess.normalizer=unit"]  # fmt: skip
    fit(compose_run(tmp_path / "run", *own, without=("data.cohort",)))
    assert main(["export", str(tmp_path / "run"), "--int8", "--mobile"]) == 0
    predictor = open_predictor(tmp_path / "run" / "export", "onnx")
    assert (predictor.multilabel, predictor.abstention) == (True, None)
    found = read_told(tmp_path / "run", read_config(tmp_path / "run", []), predictor, ("test",))
    stated = ~np.isnan(found.probs)
    assert 0 < stated[:, 1].sum() < stated[:, 0].sum()
    probs = predictor.predict(found.rows["image_path"].tolist())[["prob_0", "prob_1"]].to_numpy()
    np.testing.assert_allclose(probs[stated], found.probs[stated], atol=1e-4)


@pytest.mark.slow
def test_automl_is_held_against_torch_where_its_predictions_are_out_of_fold(automl_folder):
    assert main(["export", str(automl_folder)]) == 0
    parity = described(automl_folder / "export")["export"]["parity"]
    assert (parity["against"], parity["images"]) == ("torch", "val")
    assert open_predictor(automl_folder / "export", "onnx").class_names


def test_what_is_no_run_and_no_bundle(tmp_path, capsys):
    assert "expected a finished run or a bundle, but" in told(capsys, tmp_path)


def test_what_a_bundle_alone_cannot_have(tmp_path, capsys):
    (tmp_path / "bundle.json").write_text("{}")
    assert "whose images --int8 and overrides are about, but" in told(capsys, tmp_path, "--int8")


@pytest.mark.slow
def test_a_folder_of_something_else_is_not_replaced(run, tmp_path, capsys):
    (tmp_path / "letters").mkdir()
    assert "expected a new folder or a bundle to replace, but" in told(capsys, run, "--out", tmp_path / "letters")
    (tmp_path / "file").touch()
    assert "choose another --out" in told(capsys, run, "--out", tmp_path / "file" / "bundle")


def test_parity_leaves_out_what_is_not_stated_and_refuses_the_rest():
    wanted = np.array([[0.1, np.nan], [0.5, 0.2]])
    assert check_parity(wanted + 5e-5, wanted, "x") == pytest.approx(5e-5)
    with pytest.raises(WeightsError, match=r"within 0.0001 of the run, got a difference of 0.0002, so nothing is"):
        check_parity(wanted + 2e-4, wanted, "the run")
    for found, told in ((wanted, np.full((2, 2), np.nan)), (np.array([[0.1, 0.9], [0.5, np.nan]]), wanted)):
        with pytest.raises(WeightsError, match="got a difference of nan"):
            check_parity(found, told, "the run")
    with pytest.raises(WeightsError, match="got a difference of inf"):
        check_parity(np.array([[0.1, 0.9], [0.5, np.inf]]), wanted, "the run")


def test_a_loss_counts_answers_decisions_and_areas():
    point = {"threshold": 0.3, "positive_class": "b"}
    predictor = SimpleNamespace(class_names=["a", "b"], operating_point=point, name=lambda row: row.argmax())
    positive, moved = np.array([0.2, 0.4, 0.6, 0.9]), np.array([0.31, 0.25, 0.45, 0.9])
    plain, found = (np.stack([1 - column, column], axis=1) for column in (positive, moved))
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float64)
    loss = measure_loss(predictor, plain, found, targets)
    assert (loss.n, loss.other_answers, loss.other_decisions) == (4, 1, 2)
    assert (loss.largest, loss.mean) == (pytest.approx(0.15), pytest.approx(0.1025))
    assert loss.auroc == (1.0, 1.0)
    none = measure_loss(SimpleNamespace(**{**vars(predictor), "operating_point": None}), plain, found, targets * np.nan)
    assert (none.auroc, none.other_decisions) == (None, None)
