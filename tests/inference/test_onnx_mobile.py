"""The one file for phones, and the graph of integers, from a graph that is made by hand."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit, softmax

from cxr.errors import ConfigError
from cxr.imaging.preprocess import Preprocess
from cxr.inference.onnx_int8 import quantise
from cxr.inference.onnx_mobile import make_mobile, open_mobile
from cxr.inference.onnx_predictor import OnnxPredictor
from cxr.inference.onnx_session import open_session
from cxr.scaling import Scaling

PREPROCESS = Preprocess(size=(16, 12), mean=(0.5,), std=(0.25,))
IMAGES = np.random.default_rng(0).standard_normal((6, 1, 16, 12), dtype=np.float32)


def conv_graph(filters=32, norm_first=False):
    """From images over one convolution to `embedding`, the largest values, and `logits`."""
    draws = np.random.default_rng(1)
    kernels = draws.standard_normal((filters, 1, 3, 3), dtype=np.float32)
    weights = draws.standard_normal((filters, 3), dtype=np.float32)
    statistics = {"scale": 1.5, "shift": 0.5, "mean": 0.2, "variance": 0.7}
    norm = [
        helper.make_node("BatchNormalization", ["images", *statistics], ["normed"], name="norm", epsilon=0.1),
        helper.make_node("Relu", ["normed"], ["bent"], name="bend"),
    ]
    nodes = [
        *(norm if norm_first else []),
        helper.make_node("Conv", ["bent" if norm_first else "images", "kernels"], ["filtered"], name="conv"),
        helper.make_node("Relu", ["filtered"], ["positive"], name="relu"),
        helper.make_node("GlobalMaxPool", ["positive"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["embedding"], name="flatten"),
        helper.make_node("MatMul", ["embedding", "weights"], ["logits"], name="head"),
    ]
    shapes = {"images": ["batch", 1, 16, 12], "logits": ["batch", 3], "embedding": ["batch", filters]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    tensors = [numpy_helper.from_array(kernels, "kernels"), numpy_helper.from_array(weights, "weights")]
    if norm_first:
        tensors += [numpy_helper.from_array(np.float32([one]), name) for name, one in statistics.items()]
    graph = helper.make_graph(nodes, "conv", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def kinds_of_nodes(graph):
    return {node.op_type for node in onnx.load_from_string(graph).graph.node}


def make_predictor(graph, **rest):
    session = open_session(graph, ["images"], ["logits"], 1, "export")
    return OnnxPredictor(class_names=["a", "b", "ü"], preprocess=PREPROCESS, session=session, **rest)


def logits_of(graph):
    return make_predictor(graph).ask(IMAGES).astype(np.float64)


@pytest.mark.parametrize(("multilabel", "last"), [(False, lambda x: softmax(x, axis=1)), (True, expit)])
def test_the_file_gives_calibrated_probabilities(multilabel, last):
    graph = conv_graph()
    content = make_mobile(graph, make_predictor(graph, scaling=Scaling(2.0, (0.5, 0.0, -0.5)), multilabel=multilabel))
    np.testing.assert_allclose(open_mobile(content)(IMAGES), last(logits_of(graph) / 2.0 + [0.5, 0.0, -0.5]), atol=2e-3)


def test_weights_take_half_of_the_room_and_little_is_lost():
    graph = conv_graph(filters=4096)
    content = make_mobile(graph, make_predictor(graph))
    assert 0.45 < len(content) / len(graph) < 0.55
    narrow = {tensor.name: tensor.data_type for tensor in onnx.load_from_string(content).graph.initializer}
    assert narrow == {"kernels_16_bits": TensorProto.FLOAT16, "weights_16_bits": TensorProto.FLOAT16,
                      "temperature": TensorProto.FLOAT, "bias": TensorProto.FLOAT}  # fmt: skip


def test_all_that_a_program_must_know_is_in_the_file():
    graph, point = conv_graph(), {"threshold": 0.3, "positive_class": "b"}
    content = make_mobile(graph, make_predictor(graph, scaling=Scaling(1.5), operating_point=point))
    told = {one.key: json.loads(one.value) for one in onnx.load_from_string(content).metadata_props}
    assert told["class_names"] == ["a", "b", "ü"]
    assert (told["temperature"], told["operating_point"], told["use"]) == (1.5, point, "research only")
    assert Preprocess.from_dict(told["preprocess"]) == PREPROCESS
    stored = np.array([[0, 255]], dtype=np.uint8)
    finished = stored * np.array(told["scale"]) + np.array(told["offset"])
    np.testing.assert_allclose(finished, PREPROCESS.finish(stored)[0], atol=1e-6)
    assert [one.name for one in onnx.load_from_string(content).graph.output] == ["probabilities"]


def test_a_net_that_is_too_large_is_told_with_its_size():
    large, small = conv_graph(filters=450_000), conv_graph()
    with pytest.raises(ConfigError, match=r"at most 10 MB for --mobile, got 10\.8 MB with 16 bits .*net=mobilenet"):
        make_mobile(large, make_predictor(small))


@pytest.mark.filterwarnings("ignore")
def test_integers_say_nearly_the_same():
    graph = conv_graph()
    made = quantise(graph, [IMAGES[:3], IMAGES[3:]])
    kinds = {tensor.data_type for tensor in onnx.load_from_string(made).graph.initializer if np.prod(tensor.dims) > 32}
    assert kinds == {TensorProto.INT8}
    plain, found = logits_of(graph), logits_of(made)
    assert 0 < np.abs(found - plain).max() < 0.1 * np.ptp(plain)


@pytest.mark.filterwarnings("ignore")
def test_a_norm_before_a_product_is_in_integers_too():
    graph = conv_graph(norm_first=True)
    made = quantise(graph, [IMAGES[:3], IMAGES[3:]])
    assert "BatchNormalization" in kinds_of_nodes(graph)
    assert "BatchNormalization" not in kinds_of_nodes(made)
    plain, found = logits_of(graph), logits_of(made)
    assert 0 < np.abs(found - plain).max() < 0.1 * np.ptp(plain)


def test_the_scale_is_that_of_all_batches():
    graph = conv_graph()
    both = logits_of(quantise(graph, [IMAGES[:3], 10 * IMAGES[3:]]))
    last = logits_of(quantise(graph, [10 * IMAGES[3:], IMAGES[:3]]))
    np.testing.assert_array_equal(both, last)
    assert not np.array_equal(both, logits_of(quantise(graph, [IMAGES[:3]])))
