import copy
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cxr.errors import ConfigError, ImageError
from cxr.imaging.preprocess import InputContract, Preprocess
from cxr.inference.net_predictor import NetPredictor
from cxr.inference.saliency import METHODS, LogOdds, find_cam_layer, make_maps
from cxr.models.build import BUILDERS, build_net
from cxr.models.head import Classifier

SIZE = (64, 48)
NETS = MappingProxyType(
    {
        "custom_cnn": {"filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 6, "dense_units": 8},
        "timm": {"architecture": "resnet18", "in_channels": 1},
        "torchvision_densenet": {"in_channels": 1},
        "xrv_densenet121": {},
    }
)
SMALL = {"name": "custom_cnn", **NETS["custom_cnn"]}
VIT = {"name": "timm", "architecture": "vit_tiny_patch16_224", "img_size": 32, "in_channels": 1}


def make_predictor(net, size=SIZE, classes=3, multilabel=False, precision="uint8"):
    contract = net.input_contract if isinstance(net, Classifier) else InputContract(channels=1)
    preprocess = Preprocess(size=size, precision=precision, low=contract.low, high=contract.high)
    names = [f"class {k}" for k in range(classes)]
    return NetPredictor(class_names=names, multilabel=multilabel, net=net.eval(), preprocess=preprocess)


def build(name, classes=3, **arguments):
    torch.manual_seed(0)
    return build_net(name, classes, **arguments)


def draw_stored(predictor, count=3):
    images = np.random.default_rng(0).random((count, *predictor.preprocess.size), dtype=np.float32)
    return np.stack([predictor.preprocess.store(image) for image in images])


def test_every_builder_is_tested():
    assert set(NETS) == set(BUILDERS) - {"rad_dino"}  # a transformer, which has no map


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_maps_of_every_net_are_as_large_as_its_input(name, method):
    predictor = make_predictor(build(name, **NETS[name]))
    before = {key: tensor.clone() for key, tensor in predictor.net.state_dict().items()}
    maps = make_maps(predictor, draw_stored(predictor), [0, 1, 2], method, batch_size=2)
    assert (maps.shape, maps.dtype) == ((3, *SIZE), np.float32)
    assert maps.min() >= 0
    assert set(maps.max(axis=(1, 2)).tolist()) <= {0.0, 1.0}
    assert maps.std(axis=(1, 2)).max() > 0
    assert all(torch.equal(tensor, before[key]) for key, tensor in predictor.net.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_maps_whatever_the_batches(method):
    predictor = make_predictor(build(**SMALL))
    stored = draw_stored(predictor)
    maps = make_maps(predictor, stored, [0, 1, 2], method, batch_size=2)
    assert maps.shape == (3, *SIZE)
    np.testing.assert_allclose(maps, make_maps(predictor, stored, [0, 1, 2], method, batch_size=3), atol=1e-3)
    assert make_maps(predictor, stored[:0], [], method).shape == (0, *SIZE)
    assert not np.allclose(maps[0], make_maps(predictor, stored[:1], [1], method)[0], atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_a_vision_transformer_is_explained_without_a_map(method):
    predictor = make_predictor(build(**VIT), size=(32, 32))
    assert make_maps(predictor, draw_stored(predictor, 1), [1], method).max() == 1


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_a_vision_transformer_has_no_map(method):
    predictor = make_predictor(build(**VIT), size=(32, 32))
    with pytest.raises(ConfigError, match="expected a net that ends in a map .* choose the method occlusion"):
        make_maps(predictor, draw_stored(predictor, 1), [1], method)


LAYERS = {
    "custom_cnn": ({"pool": 2}, "backbone.dropout4"),
    "torchvision_densenet": ({}, "backbone.relu"),
    "timm": ({"architecture": "resnet18", "pretrained": False}, "backbone.layer4"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_is_the_last_before_the_pooling(name):
    arguments, expected = LAYERS[name]
    net = build(name, **arguments).eval()
    names = {module: name for name, module in net.named_modules()}
    assert names[find_cam_layer(net, (128, 96))] == expected


@pytest.mark.parametrize(
    ("architecture", "has_map"), [("coatnet_nano_rw_224", True), ("swin_tiny_patch4_window7_224", False)]
)
def test_a_net_with_attention_has_a_map_if_it_keeps_its_places_in_rows_and_columns(architecture, has_map):
    net = build("timm", architecture=architecture).eval()
    if has_map:
        assert sum(parameter.numel() for parameter in find_cam_layer(net, (224, 224)).parameters()) > 0
    else:
        with pytest.raises(ConfigError, match="choose the method occlusion"):
            find_cam_layer(net, (224, 224))


def reference_cam(net, images, label, plus_plus):
    """Both methods by the formulas of their papers, pixel by pixel, for convolutions, ReLU, mean and a linear layer."""
    features = net.backbone[:-2](images).detach().requires_grad_()
    logits = net.head(net.backbone[-2:](features))
    others = torch.stack([logits[0, k] for k in range(3) if k != label])
    (gradient,) = torch.autograd.grad(logits[0, label] - torch.log(torch.exp(others).sum()), features)
    total = torch.zeros(features.shape[2:])
    for k in range(features.shape[1]):
        weight = 0.0
        for i, j in np.ndindex(*features.shape[2:]):
            g = gradient[0, k, i, j].item()
            if not plus_plus:
                weight += g
                continue
            denominator = 2 * g**2 + sum(features[0, k].flatten().tolist()) * g**3
            weight += (g**2 / denominator if denominator != 0 else 0.0) * max(g, 0.0)
        total += weight * features[0, k].detach()
    full = functional.interpolate(total.relu()[None, None], SIZE, mode="bilinear", align_corners=False)[0, 0]
    return (full / full.max()).numpy()


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
@pytest.mark.parametrize("label", [0, 2])
def test_the_maps_are_those_of_the_formulas(method, label):
    torch.manual_seed(3)
    features = nn.Sequential(nn.Conv2d(1, 3, 8, 8), nn.ReLU(inplace=True), nn.Conv2d(3, 5, 3, padding=1), nn.ReLU())
    backbone = nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = Classifier(backbone, nn.Linear(5, 3), InputContract(channels=1))
    predictor = make_predictor(net)
    stored = draw_stored(predictor, 1)
    expected = reference_cam(net, torch.from_numpy(predictor.preprocess.finish(stored)), label, method == "gradcam++")
    np.testing.assert_allclose(make_maps(predictor, stored, [label], method)[0], expected, atol=1e-4)


class Corner(nn.Module):
    """A net whose class 1 is the brightness of the upper left quarter alone."""

    def forward(self, images):
        brightness = images[:, :, :32, :24].mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(brightness), 20 * brightness], dim=1)


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_attributions_lie_where_the_net_looks(method):
    net = Classifier(Corner(), nn.Identity(), InputContract(channels=1))
    predictor = make_predictor(net, classes=2)
    image = np.zeros((1, *SIZE), np.uint8)
    image[0, 12:20, 8:16] = 255
    image[0, 40:60, 30:44] = 255
    (found,) = make_maps(predictor, image, [1], method)
    assert found[12:20, 8:16].mean() > 0.5
    assert found[40:].max() < 0.01


def test_log_odds_are_those_of_the_probabilities():
    net = build(**SMALL).eval()
    images = torch.rand(4, 1, *SIZE)
    probs = net(images).softmax(dim=1)
    torch.testing.assert_close(LogOdds(net, multilabel=False)(images), torch.log(probs / (1 - probs)))
    torch.testing.assert_close(LogOdds(net, multilabel=True)(images), net(images))


def test_in_place_activations_change_no_map():
    net = build("timm", architecture="resnet18", in_channels=1)
    apart = copy.deepcopy(net)
    inplace = [module for module in apart.modules() if getattr(module, "inplace", False)]
    assert inplace
    for module in inplace:
        module.inplace = False
    stored = draw_stored(make_predictor(net))
    for method in ("gradcam", "gradcam++"):
        maps = [make_maps(make_predictor(one), stored, [0, 1, 2], method) for one in (net, apart)]
        np.testing.assert_array_equal(*maps)
    assert all(module.inplace for module in net.modules() if isinstance(module, nn.ReLU))


def test_nothing_for_the_class_gives_an_empty_map():
    predictor = make_predictor(Classifier(Corner(), nn.Identity(), InputContract(channels=1)), classes=2)
    assert make_maps(predictor, np.zeros((1, *SIZE), np.uint8), [1], "integrated_gradients").max() == 0


def test_what_cannot_be_explained_is_told():
    predictor = make_predictor(build(**SMALL))
    stored = draw_stored(predictor)
    with pytest.raises(ConfigError, match="expected a method among gradcam, .*, got 'lime'; choose one of these"):
        make_maps(predictor, stored, [0, 0, 0], "lime")
    with pytest.raises(ConfigError, match=r"expected stored images of size \[64, 48\], got \[48, 64\]"):
        make_maps(predictor, np.zeros((2, 48, 64), np.uint8), [0, 0])
    with pytest.raises(ConfigError, match=r"expected a class from 0 to 2 for each of 3 images, got \[0, 3, 0\]"):
        make_maps(predictor, stored, [0, 3, 0])
    with pytest.raises(ConfigError, match=r"for each of 3 images, got \[0\]; give one index per image"):
        make_maps(predictor, stored, [0])
    with pytest.raises(ImageError, match="expected stored images of type uint8, but got uint16"):
        make_maps(predictor, stored.astype(np.uint16), [0, 1, 2])
    with pytest.raises(ConfigError, match="expected a net of backbone and head, got Flatten; load it from a bundle"):
        make_maps(make_predictor(nn.Flatten()), stored, [0, 1, 2])
