import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from cxr.classical.convert import to_onnx
from cxr.classical.families import FAMILIES, Rows, fit_model
from cxr.errors import ConfigError, WeightsError
from cxr.imaging.preprocess import Preprocess
from cxr.inference import features as kinds
from cxr.inference.bundle import load_bundle, write_bundle
from cxr.inference.classical_predictor import ClassicalPredictor, open_model, write_classical
from cxr.inference.features import Features
from cxr.models.build import build_net
from cxr.scaling import Scaling

NAMES = ["normal", "covid", "viral"]
PREPROCESS = Preprocess(size=(32, 40))
IMAGES = [np.random.default_rng(seed).random((50, 60)).astype(np.float32) for seed in range(30)]
STORED = np.stack([PREPROCESS.store(image) for image in IMAGES])


def fit(features, stored=STORED):
    table = features(stored)
    model = fit_model("svm", FAMILIES["svm"].first, Rows(table, np.arange(30) % 3, np.arange(30)), 1, 0)
    return model, to_onnx(model, table.shape[1])


def write(folder, features, graph=None, **rest):
    graph = fit(features)[1] if graph is None else graph
    write_classical(folder, graph, "svm", FAMILIES["svm"].first, features, NAMES, {"run": "svm_0"}, **rest)


@pytest.mark.parametrize(
    "features",
    [Features(kinds.PIXELS, PREPROCESS), Features(kinds.DESCRIPTORS, PREPROCESS, ("brightness", "texture"))],
    ids=["pixels", "descriptors"],
)
def test_a_bundle_answers_as_the_model_that_was_fitted(tmp_path, features):
    model, graph = fit(features)
    write(tmp_path / "bundle", features, graph)
    predictor = load_bundle(tmp_path / "bundle")
    assert isinstance(predictor, ClassicalPredictor)
    found = predictor.score(IMAGES)
    np.testing.assert_allclose(found.probs, model.predict_proba(features(STORED)), atol=1e-6)
    assert np.isnan(found.unlike).all()
    assert not found.inverted.any()
    assert (predictor.class_names, predictor.calibrated, predictor.extras) == (NAMES, False, {"run": "svm_0"})


def test_pixels_are_those_of_the_image_row_by_row():
    table = Features(kinds.PIXELS, PREPROCESS)(STORED)
    np.testing.assert_allclose(table.reshape(30, 32, 40), STORED / 255, atol=1e-6)


def test_a_temperature_divides_the_logarithms(tmp_path):
    features, point = Features(kinds.PIXELS, PREPROCESS), {"threshold": 0.3, "positive_class": "covid"}
    write(tmp_path / "plain", features)
    write(tmp_path / "fitted", features, scaling=Scaling(2.0), operating_point=point)
    plain, fitted = (load_bundle(tmp_path / name) for name in ("plain", "fitted"))
    roots = np.sqrt(plain.predict_pixels(IMAGES))
    np.testing.assert_allclose(fitted.predict_pixels(IMAGES), roots / roots.sum(axis=1, keepdims=True))
    assert (fitted.calibrated, fitted.operating_point) == (True, point)


def test_the_net_of_an_embedding_lies_in_the_bundle(tmp_path):
    torch.manual_seed(0)
    arguments = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}
    net = build_net(num_classes=2, **arguments).eval()
    write_bundle(tmp_path / "net", net, arguments, ["a", "b"], PREPROCESS, {})
    embedder = load_bundle(tmp_path / "net")
    features = Features(kinds.EMBEDDING, PREPROCESS, (), embedder)
    model, graph = fit(features)
    write(tmp_path / "bundle", features, graph, net=tmp_path / "net")
    found = load_bundle(tmp_path / "bundle").predict_pixels(IMAGES)
    np.testing.assert_allclose(found, model.predict_proba(embedder.embed_stored(STORED)[0]), atol=1e-5)

    (tmp_path / "bundle" / "net" / "bundle.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"expected .*net/bundle.json with SHA-256"):
        load_bundle(tmp_path / "bundle")


def test_pixels_need_no_torch(tmp_path):
    write(tmp_path / "bundle", Features(kinds.PIXELS, PREPROCESS))
    Image.fromarray((IMAGES[0] * 255).astype(np.uint8)).save(tmp_path / "image.png")
    code = (
        "import sys; from pathlib import Path\n"
        "from cxr.inference.engines import open_predictor\n"
        f"predictor = open_predictor(Path({str(tmp_path / 'bundle')!r}))\n"
        f"table = predictor.predict([{str(tmp_path / 'image.png')!r}])\n"
        "print(len(table), sorted({'torch', 'sklearn', 'optuna'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "1 []"


def test_nothing_in_a_bundle_is_pickled(tmp_path):
    write(tmp_path / "bundle", Features(kinds.PIXELS, PREPROCESS))
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == ["bundle.json", "model.onnx"]
    onnx.checker.check_model(onnx.load(tmp_path / "bundle" / "model.onnx"))
    assert json.loads((tmp_path / "bundle" / "bundle.json").read_text())["kind"] == "classical"


def test_a_damaged_graph(tmp_path):
    write(tmp_path / "bundle", Features(kinds.PIXELS, PREPROCESS))
    with (tmp_path / "bundle" / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(WeightsError, match=r"expected .*model.onnx with SHA-256"):
        load_bundle(tmp_path / "bundle")


def test_what_is_no_graph():
    with pytest.raises(WeightsError, match="expected an ONNX model, got: .*; write the bundle again"):
        open_model(b"nothing")


def test_a_graph_of_other_names():
    from skl2onnx import to_onnx as convert

    table = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    graph = convert(LogisticRegression().fit(table, np.arange(20) % 2), table[:1]).SerializeToString()
    with pytest.raises(
        WeightsError, match=r"expected an ONNX model from features to probabilities, got one from \['X'\]"
    ):
        open_model(graph)


def test_a_graph_of_other_features_is_refused_before_it_replaces_anything(tmp_path):
    graph = fit(Features(kinds.DESCRIPTORS, PREPROCESS, ("texture",)))[1]
    with pytest.raises(WeightsError, match="that takes these features and knows 3 classes, got: "):
        write(tmp_path / "bundle", Features(kinds.PIXELS, PREPROCESS), graph)
    assert not (tmp_path / "bundle").exists()


def test_a_graph_of_other_classes(tmp_path):
    features = Features(kinds.PIXELS, PREPROCESS)
    model = fit_model("knn", FAMILIES["knn"].first, Rows(features(STORED), np.arange(30) % 2, np.arange(30)), 1, 0)
    with pytest.raises(WeightsError, match="knows 3 classes, got 2"):
        write(tmp_path / "bundle", features, to_onnx(model, 1280))


@pytest.mark.parametrize(
    ("kind", "descriptors", "net"),
    [("pixels", ("texture",), None), ("descriptors", (), None), ("embedding", (), None), ("words", (), None)],
)
def test_features_that_contradict_themselves(kind, descriptors, net):
    with pytest.raises(ConfigError, match=f"got kind '{kind}', descriptors"):
        Features(kind, PREPROCESS, descriptors, net)


def test_features_of_several_channels():
    with pytest.raises(ConfigError, match="expected one channel to make features of, got preprocess.channels=3"):
        Features(kinds.PIXELS, Preprocess(channels=3))
