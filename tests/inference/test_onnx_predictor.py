"""Engines on bundles whose graphs are made by hand: logits are a linear function of the mean of each image."""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax

from cxr.errors import ConfigError, MissingExtraError, WeightsError
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import Fitted, load_bundle, write_bundle, write_ensemble
from cxr.inference.combine import Rule
from cxr.inference.description import DESCRIPTION, read_files
from cxr.inference.engines import ENGINES, GRAPHS, open_predictor
from cxr.inference.intake import Told
from cxr.inference.net_predictor import NetPredictor
from cxr.inference.onnx_bundle import find_nets, write_exported
from cxr.inference.onnx_predictor import OnnxPredictor
from cxr.inference.verdict import judge
from cxr.models.build import build_net
from cxr.scaling import Scaling

NAMES = ["a", "b", "c"]
NET = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}
PREPROCESS = Preprocess(size=(32, 48))
WEIGHTS = np.array([[4.0, -1.0, 2.0]], dtype=np.float32)
IMAGES = [np.random.default_rng(seed).random((40, 60)).astype(np.float32) ** (seed + 1) for seed in range(5)]
TEMPERATURE = 2.0


def mean_graph(weights=WEIGHTS, size=(32, 48)):
    """From images to `embedding`, the mean of each, and `logits`, that times the weights."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "weights"], ["logits"]),
    ]
    shapes = {"images": ["batch", 1, *size], "logits": ["batch", weights.shape[1]], "embedding": ["batch", 1]}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    inputs, outputs = [values.pop("images")], list(values.values())
    graph = helper.make_graph(nodes, "mean", inputs, outputs, [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def expected_probs(weights=WEIGHTS, temperature=TEMPERATURE):
    means = np.array([PREPROCESS(image).mean() for image in IMAGES])
    return softmax(means[:, None] * weights / temperature, axis=1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "bundle"
    fitted = Fitted(Scaling(TEMPERATURE), None, {"rule": "risk <= 0.05", "threshold": 0.99})
    write_bundle(folder, build_net(num_classes=3, **NET), NET, NAMES, PREPROCESS, {"run": "x"}, fitted=fitted)
    return folder


@pytest.fixture(scope="module")
def exported(plain):
    """The bundle with a graph for each engine, that of `int8` with other weights."""
    folder = plain.parent / "exported"
    graphs = {GRAPHS["onnx"]: mean_graph(), GRAPHS["int8"]: mean_graph(-WEIGHTS)}
    write_exported(read_files(plain) | graphs, folder, {"parity": {"largest": 0.0}})
    return folder


def test_a_graph_answers_with_temperature_names_and_abstention_of_the_bundle(exported):
    predictor = open_predictor(exported)
    assert isinstance(predictor, OnnxPredictor)
    found = predictor.score(IMAGES)
    np.testing.assert_allclose(found.probs, expected_probs(), atol=1e-6)
    assert (predictor.class_names, predictor.calibrated, predictor.extras) == (NAMES, True, {"run": "x"})
    assert [verdict.abstained for verdict in judge(predictor, found, [Told("pa")] * 5)] == [True] * 5
    assert np.isnan(found.unlike).all()


def test_each_engine_runs_its_own(exported, plain):
    np.testing.assert_allclose(open_predictor(exported, "int8").predict_pixels(IMAGES), expected_probs(-WEIGHTS),
                               atol=1e-6)  # fmt: skip
    torch_probs = load_bundle(plain).predict_pixels(IMAGES)
    for predictor in (open_predictor(exported, "torch"), open_predictor(plain)):
        assert isinstance(predictor, NetPredictor)
        np.testing.assert_array_equal(predictor.predict_pixels(IMAGES), torch_probs)


def test_embeddings_come_from_the_graph_also_of_no_image(exported):
    predictor = open_predictor(exported, threads=1)
    stored = PREPROCESS.store_all(IMAGES)
    embeddings, probs = predictor.embed_stored(stored)
    np.testing.assert_allclose(embeddings[:, 0], stored.mean(axis=(1, 2)) / 255, atol=1e-6)
    np.testing.assert_allclose(probs, expected_probs(), atol=1e-6)
    embeddings, probs = predictor.embed_stored(stored[:0])
    assert (embeddings.shape, probs.shape) == ((0, 1), (0, 3))


def test_threads_are_those_that_were_asked_for(exported):
    predictor = open_predictor(exported, "onnx", threads=2)
    assert predictor.session.get_session_options().intra_op_num_threads == 2


def test_a_net_that_was_not_exported_is_told_with_the_remedy(plain, exported, tmp_path):
    with pytest.raises(WeightsError, match=r"expected model.onnx in .* for the engine onnx, .* cxr export RUN, or"):
        open_predictor(plain, "onnx")
    files = {name: content for name, content in read_files(exported).items() if name != GRAPHS["int8"]}
    write_exported(files, tmp_path / "bundle", {})
    with pytest.raises(WeightsError, match="engine int8, but there is none; make it by cxr export RUN --int8, or"):
        open_predictor(tmp_path / "bundle", "int8")


def test_what_is_no_engine_or_no_number_of_threads(exported):
    with pytest.raises(ConfigError, match=f"expected one of the engines {', '.join(ENGINES)}, got 'tflite'"):
        open_predictor(exported, "tflite")
    with pytest.raises(ConfigError, match="expected 1 or more threads, got 0; leave it out"):
        open_predictor(exported, threads=0)


def test_an_ensemble_runs_by_the_graphs_of_its_members_and_is_sealed_throughout(plain, tmp_path):
    write_ensemble(tmp_path / "both", [plain, plain], Rule("soft", {"weights": [3, 1]}), NAMES, {})
    files = read_files(tmp_path / "both")
    assert find_nets(files) == ["members/0/", "members/1/"]
    for place, weights in zip(find_nets(files), (WEIGHTS, -WEIGHTS), strict=True):
        files[f"{place}{GRAPHS['onnx']}"] = mean_graph(weights)
    write_exported(files, tmp_path / "exported", {})
    found = open_predictor(tmp_path / "exported", "onnx").predict_pixels(IMAGES)
    np.testing.assert_allclose(found, 0.75 * expected_probs() + 0.25 * expected_probs(-WEIGHTS), atol=1e-6)
    open_predictor(tmp_path / "exported" / "members" / "1", "onnx")

    with (tmp_path / "exported" / "members" / "1" / GRAPHS["onnx"]).open("ab") as file:
        file.write(b"x")
    with pytest.raises(WeightsError, match=r"expected .*members/1/model.onnx with SHA-256"):
        open_predictor(tmp_path / "exported")


def test_what_was_measured_and_the_versions_stand_in_the_description(exported):
    told = json.loads((exported / DESCRIPTION).read_text())["export"]
    assert told["parity"] == {"largest": 0.0}
    assert set(told["versions"]) == {"cxr-lab", "torch", "onnx", "onnxruntime"}


def test_a_graph_of_other_outputs_is_refused(exported, tmp_path):
    model = onnx.load_from_string(mean_graph())
    del model.graph.output[1]
    write_exported(read_files(exported), tmp_path / "bundle", {})
    with pytest.raises(WeightsError, match="expected an ONNX model from images to logits, embedding, got one from"):
        write_exported(read_files(exported) | {GRAPHS["onnx"]: model.SerializeToString()}, tmp_path / "bundle", {})
    assert open_predictor(tmp_path / "bundle").class_names == NAMES


def test_an_absent_runtime_is_told(exported, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime is not installed; .*cxr-lab\[export\]"):
        open_predictor(exported, "onnx")


@pytest.mark.parametrize("name", ["../outside", "/outside", "members/../../outside"])
def test_a_description_that_names_files_elsewhere_is_refused(plain, tmp_path, name):
    bundle = shutil.copytree(plain, tmp_path / "bundle")
    description = json.loads((bundle / DESCRIPTION).read_text())
    (bundle / DESCRIPTION).write_text(json.dumps(description | {"sha256": {name: "0"}}))
    with pytest.raises(WeightsError, match="to name files in its folder, got .*outside"):
        read_files(bundle)


def test_the_engine_imports_no_torch(exported):
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from cxr.inference.engines import open_predictor\n"
        f"predictor = open_predictor(Path({str(exported)!r}))\n"
        "print(predictor.predict_pixels([np.zeros((9, 9), np.float32)]).shape, {'torch', 'timm'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "(1, 3) set()"
