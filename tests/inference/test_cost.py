import pytest
import torch
from torch import nn

from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import load_bundle, write_bundle
from cxr.inference.cost import measure_cost
from cxr.models.build import build_net

NET = {"name": "custom_cnn", "filters_1": 4, "filters_2": 8, "filters_3": 4, "filters_4": 4, "dense_units": 8}


@pytest.fixture
def predictor(tmp_path):
    net = build_net(num_classes=3, **NET)
    write_bundle(tmp_path / "bundle", net, NET, ["a", "b", "c"], Preprocess(size=(32, 48)), {})
    return load_bundle(tmp_path / "bundle")


def count_by_hand(net, image):
    """Two for each multiplication and its addition, layer by layer."""
    found = []

    def note(layer, _, output):
        each = layer.in_features if isinstance(layer, nn.Linear) else layer.weight[0].numel()
        found.append(2 * output.numel() * each)

    handles = [layer.register_forward_hook(note) for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    net(image)
    for handle in handles:
        handle.remove()
    return sum(found)


def test_operations_are_those_of_the_layers(predictor):
    assert measure_cost(predictor, repeats=1).gflops * 1e9 == count_by_hand(predictor.net, torch.zeros(1, 1, 32, 48))


def test_size_is_that_of_the_weights_on_disk(predictor, tmp_path):
    cost = measure_cost(predictor, repeats=1)
    assert cost.parameters == sum(parameter.numel() for parameter in predictor.net.parameters())
    stored = (tmp_path / "bundle" / "model.safetensors").stat().st_size / 1e6
    assert stored * 0.5 < cost.megabytes < stored
    assert cost.latency_ms > 0
