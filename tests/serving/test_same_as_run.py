"""What a run measured on its test part is what its server says of the same files, whatever the bundle holds."""

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from cxr.cli import main
from cxr.commands.explain import find_images, read_config
from cxr.evaluation.predictions import read_predictions
from cxr.imaging.image import read_pixels
from cxr.inference.bundle import Fitted, write_ensemble
from cxr.inference.combine import Rule
from cxr.inference.engines import open_predictor
from cxr.serving.app import make_app
from cxr.training.fit import fit

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TOGETHER = 8


@pytest.fixture(scope="module")
def dicom_run(compose_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "dicom"
    fit(compose_run(folder))
    return folder


@pytest.fixture(scope="module")
def png_run(dicom_run, compose_run, tmp_path_factory):
    """A run on an image folder, of the films of the other one as PNG."""
    root, folder = tmp_path_factory.mktemp("films"), dicom_run.with_name("png")
    for part in ("val", "test"):
        predictions, names = read_predictions(dicom_run / f"predictions_{part}.csv")
        for row in find_images(read_config(dicom_run, []), predictions).itertuples():
            path = root / names[row.target] / f"{row.sample_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(read_pixels(row.image_path) * 255).astype(np.uint8)).save(path)
    fit(compose_run(folder, "data=image_folder", f"data.root={root}", without=("data.cohort",)))
    return folder


@pytest.mark.parametrize("exported", [False, True], ids=["torch", "onnx"])
@pytest.mark.parametrize("kind", ["dicom", "png"])
def test_the_server_says_what_the_run_measured(kind, exported, request, make_settings):
    run = request.getfixturevalue(f"{kind}_run")
    if exported:
        assert main(["export", str(run)]) == 0
    bundle = run / ("export" if exported else "bundle")
    assert (bundle / "model.onnx").exists() is exported
    predictions, names = read_predictions(run / "predictions_test.csv")
    served = serve(make_settings(bundle=bundle), images_of(run), names)
    assert len(served) == len(predictions) >= 10
    measured = predictions[[f"prob_{k}" for k in range(len(names))]]
    np.testing.assert_allclose(served, measured, atol=1e-4)


def test_an_ensemble_is_served_as_it_predicts(dicom_run, png_run, tmp_path, make_settings):
    members = [dicom_run / "bundle", png_run / "bundle"]
    names = read_predictions(dicom_run / "predictions_test.csv")[1]
    point = {"threshold": 0.5, "positive_class": names[1]}
    write_ensemble(tmp_path / "bundle", members, Rule("soft"), names, {}, Fitted(operating_point=point))
    check_served_as_predicted(tmp_path / "bundle", images_of(dicom_run), make_settings)


def test_a_classical_model_is_served_as_it_predicts(automl_folder, dicom_run, make_settings):
    assert any(path.name == "model.onnx" for path in (automl_folder / "bundle").rglob("*"))
    check_served_as_predicted(automl_folder / "bundle", images_of(dicom_run), make_settings)


def check_served_as_predicted(bundle, paths, make_settings):
    predictor = open_predictor(bundle)
    columns = [f"prob_{k}" for k in range(len(predictor.class_names))]
    served = serve(make_settings(bundle=bundle), paths, predictor.class_names)
    np.testing.assert_allclose(served, predictor.predict(paths)[columns], atol=1e-6)


def images_of(run):
    predictions, _ = read_predictions(run / "predictions_test.csv")
    return [Path(path) for path in find_images(read_config(run, []), predictions)["image_path"]]


def serve(settings, paths, names):
    """(N, K) what a server says of files."""
    with TestClient(make_app(settings)) as client:
        return [
            [result["probs"][name] for name in names]
            for start in range(0, len(paths), TOGETHER)
            for result in send(client, paths[start : start + TOGETHER])
        ]


def send(client, paths):
    answer = client.post("/v1/predict", files=[("files", path.read_bytes()) for path in paths])
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]
