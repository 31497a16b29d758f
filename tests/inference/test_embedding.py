from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from cxr.errors import ConfigError, ImageError
from cxr.imaging.preprocess import Preprocess
from cxr.inference.net_predictor import NetPredictor
from cxr.models.build import BUILDERS, build_net
from cxr.scaling import UNSCALED, Scaling

NAMES = ["a", "b", "c"]
NETS = MappingProxyType(
    {
        "custom_cnn": {"filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 6, "pool": 2, "dense_units": 8},
        "rad_dino": {"pretrained": False, "img_size": [56, 42]},
        "timm": {"architecture": "resnet18", "in_channels": 1, "head": {"hidden": 5}},
        "torchvision_densenet": {"in_channels": 1},
        "xrv_densenet121": {},
    }
)


def make_predictor(net, precision="uint8", scaling=UNSCALED):
    contract = net.input_contract
    size = (64, 48) if contract.size is None else contract.size
    preprocess = Preprocess(size=size, precision=precision, low=contract.low, high=contract.high)
    return NetPredictor(class_names=NAMES, scaling=scaling, net=net.eval(), preprocess=preprocess)


def draw_images(count=3):
    return list(np.random.default_rng(0).random((count, 64, 48), dtype=np.float32))


def store(predictor, images):
    return np.stack([predictor.preprocess.store(image) for image in images])


def test_every_builder_is_tested():
    assert set(NETS) == set(BUILDERS)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "rad_dino")) for name in NETS])
def test_embeddings_are_what_the_head_takes(name):
    torch.manual_seed(0)
    net = build_net(name, len(NAMES), **NETS[name])
    predictor = make_predictor(net, scaling=Scaling(2.0))
    taken = []
    net.head.register_forward_hook(lambda module, inputs, output: taken.append(inputs[0].numpy().copy()))
    embeddings, probs = predictor.embed_stored(store(predictor, draw_images()))
    np.testing.assert_array_equal(embeddings, taken[0])
    assert embeddings.shape[0] == 3
    assert embeddings.std(axis=0).max() > 0
    np.testing.assert_allclose(probs, predictor.predict_pixels(draw_images()), atol=1e-9)


def test_sixteen_bits_are_as_good():
    predictor = make_predictor(build_net("custom_cnn", len(NAMES), **NETS["custom_cnn"]), precision="uint16")
    _, probs = predictor.embed_stored(store(predictor, draw_images()))
    np.testing.assert_allclose(probs, predictor.predict_pixels(draw_images()), atol=1e-9)


def test_no_images_give_no_rows():
    predictor = make_predictor(build_net("custom_cnn", len(NAMES), **NETS["custom_cnn"]))
    embeddings, probs = predictor.embed_stored(np.zeros((0, 64, 48), np.uint8))
    assert (embeddings.shape, probs.shape) == ((0, 24), (0, 3))


def test_images_of_another_preprocessing_are_refused():
    predictor = make_predictor(build_net("custom_cnn", len(NAMES), **NETS["custom_cnn"]))
    with pytest.raises(ConfigError, match=r"expected stored images of size \[64, 48\], got \[48, 64\]; store them"):
        predictor.embed_stored(np.zeros((2, 48, 64), np.uint8))
    with pytest.raises(ImageError, match="expected stored images of type uint8, but got uint16"):
        predictor.embed_stored(np.zeros((2, 64, 48), np.uint16))


def test_a_net_without_a_head_is_refused():
    net = build_net("custom_cnn", len(NAMES), **NETS["custom_cnn"])
    predictor = make_predictor(net)
    other = NetPredictor(class_names=NAMES, net=nn.Flatten(), preprocess=predictor.preprocess)
    with pytest.raises(ConfigError, match="expected a net of backbone and head, got Flatten; load it from a bundle"):
        other.embed_stored(np.zeros((2, 64, 48), np.uint8))
