"""What a run measured on its test part is what its server says of the same files."""

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from cxr.commands.explain import find_images, read_config
from cxr.evaluation.predictions import read_predictions
from cxr.imaging.image import read_pixels
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


@pytest.mark.parametrize("kind", ["dicom", "png"])
def test_the_server_says_what_the_run_measured(kind, request, make_settings):
    run = request.getfixturevalue(f"{kind}_run")
    predictions, names = read_predictions(run / "predictions_test.csv")
    rows = find_images(read_config(run, []), predictions)
    paths = [Path(path) for path in rows["image_path"]]
    with TestClient(make_app(make_settings(bundle=run / "bundle"))) as client:
        served = [
            [result["probs"][name] for name in names]
            for start in range(0, len(paths), TOGETHER)
            for result in send(client, paths[start : start + TOGETHER])
        ]
    assert len(served) == len(predictions) >= 10
    measured = predictions[[f"prob_{k}" for k in range(len(names))]]
    np.testing.assert_allclose(served, measured, atol=1e-4)


def send(client, paths):
    answer = client.post("/v1/predict", files=[("files", path.read_bytes()) for path in paths])
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]
