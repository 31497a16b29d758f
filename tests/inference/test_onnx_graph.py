"""Every net of the project as a graph, held against torch on seeded images."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from cxr.entry import prepare_environment
from cxr.errors import MissingExtraError
from cxr.imaging.preprocess import Preprocess
from cxr.inference.onnx_graph import make_graph
from cxr.models.build import BUILDERS, WEIGHTLESS, build_net
from cxr.models.views import VIEWS, SeveralViews

CONFIGS = Path(__file__).parents[2] / "configs"
NETS = sorted(path.stem for path in (CONFIGS / "net").glob("*.yaml"))
SIZES = {"rad_dino": (56, 42), "coatnet": (64, 96), "xrv_densenet121": (224, 224)}
DEEPER = ("densenet161", "densenet169", "densenet201")
"""The same parts as densenet121, more of them."""
SMALL = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}


def describe_net(name):
    """The arguments of a net's config without weights, for small images of other proportions where it takes them."""
    size = SIZES.get(name, (64, 48))
    prepare_environment()
    words = [f"net={name}", f"preprocess.size=[{size[0]},{size[1]}]", "paths.output_dir=somewhere", "run_name=name"]
    with initialize_config_dir(str(CONFIGS)):
        config = compose("train", [*words, *(["net.architecture=resnet18"] if name == "timm" else [])])
    OmegaConf.resolve(config)
    arguments = OmegaConf.to_container(config.net)
    return {key: WEIGHTLESS.get(key, value) for key, value in arguments.items()}, size


def make_net(arguments, classes=3):
    """A net whose statistics of batches are none of the starting values, so that one that is left out is seen."""
    torch.manual_seed(0)
    rest = dict(arguments)
    net = build_net(rest.pop("name"), classes, **rest).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net


def ask(graph, images):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["logits", "embedding"], {"images": images})


def draw(count, channels, size):
    return np.random.default_rng(count).standard_normal((count, channels, *size), dtype=np.float32)


def check_answers(graph, net, channels, size):
    for count in (1, 3):
        images = draw(count, channels, size)
        with torch.inference_mode():
            logits, embedding = net(torch.from_numpy(images)), net.backbone(torch.from_numpy(images))
        found = ask(graph, images)
        np.testing.assert_allclose(found[0], logits, atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(found[1], embedding, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.verify if name in DEEPER else pytest.mark.slow) for name in NETS]
)
def test_every_net_of_a_config_answers_as_torch_does(name):
    arguments, size = describe_net(name)
    net = make_net(arguments)
    channels = net.input_contract.channels
    graph = make_graph(net, Preprocess(size=size, channels=channels))
    check_answers(graph, net, channels, size)


@pytest.mark.slow
def test_every_builder_is_among_the_configs():
    assert {describe_net(name)[0]["name"] for name in NETS} == set(BUILDERS)


@pytest.mark.slow
@pytest.mark.parametrize("multilabel", [False, True], ids=["classes", "targets"])
def test_several_views_are_one_graph_that_looks_at_each_view_once(multilabel):
    net = make_net(SMALL)
    views = SeveralViews(net, "light", multilabel).eval()
    graph = make_graph(views, Preprocess(size=(32, 48)))
    check_answers(graph, views, 1, (32, 48))
    layers = sum(isinstance(module, nn.Conv2d) for module in net.modules())
    counted = Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)
    assert counted["Conv"] == layers * len(VIEWS["light"])


@pytest.mark.slow
def test_the_graph_is_plain_and_the_net_is_left_as_it_was():
    net = make_net(SMALL).half()
    graph = onnx.load_from_string(make_graph(net, Preprocess(size=(32, 48))))
    onnx.checker.check_model(graph, full_check=True)
    assert {node.domain for node in graph.graph.node} == {""}
    shapes = {
        value.name: [axis.dim_param if axis.dim_param else axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*graph.graph.input, *graph.graph.output]
    }
    assert shapes == {
        "images": ["batch", 1, 32, 48],
        "logits": ["batch", 3],
        "embedding": ["batch", SMALL["filters_4"]],
    }
    assert next(net.parameters()).dtype == torch.float16


def test_an_absent_exporter_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(MissingExtraError, match=r"onnxscript is not installed; .*cxr-lab\[export\]"):
        make_graph(make_net(SMALL), Preprocess(size=(32, 48)))
