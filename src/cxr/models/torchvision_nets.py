"""The DenseNets of torchvision with their ImageNet weights. Knows nothing of other sources of nets."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from cxr.errors import ConfigError
from cxr.imaging.preprocess import InputContract
from cxr.models.arguments import check_choice, checked_path, checked_rate
from cxr.models.download import fetch
from cxr.models.head import Classifier, make_configured_head, normalized_contract, pool_features
from cxr.models.weights import State, load_into, read_state, subtree

ARCHITECTURES = ("densenet121", "densenet161", "densenet169", "densenet201")
REMEDY = "name its place by net.weights_path=..., or start from random weights by net.pretrained=false"


def build_torchvision_densenet(
    num_classes: int,
    *,
    architecture: str = "densenet121",
    pretrained: bool = False,
    weights_path: str | None = None,
    in_channels: int = 3,
    drop_rate: float = 0.0,
    head: Mapping[str, Any] | None = None,
) -> Classifier:
    """Build a DenseNet of torchvision with a new head (Huang et al. 2017, https://arxiv.org/abs/1608.06993).

    Args:
        num_classes: Number of logits.
        architecture: densenet121, densenet161, densenet169 or densenet201.
        pretrained: Load the ImageNet weights; the contract then carries the mean and std that their metadata state.
        weights_path: Where the file of these weights lies; None looks in torch's hub folder and downloads it there.
        in_channels: 3, or 1: the kernels of the first layer are then summed over the colours, which for a grey image
            gives what three equal channels give, and the contract has the averaged mean and std.
        drop_rate: Dropout after every dense layer, in [0, 1).
        head: hidden, activation and dropout of `make_head`; None for a single linear layer.

    Raises:
        ConfigError: An argument lies outside its range.
        WeightsError: The weights are absent, cannot be fetched, or do not fit.
    """
    from torchvision import models

    check_choice("net.architecture", architecture, ARCHITECTURES)
    check_choice("net.pretrained", pretrained, (True, False))
    path = checked_path(weights_path)
    if path is not None and not pretrained:
        raise ConfigError("expected net.pretrained=true with net.weights_path, got false; set it or drop the path")
    densenet = models.get_model(architecture, drop_rate=checked_rate("drop_rate", drop_rate))
    features: nn.Sequential = densenet.features
    _set_channels(features, in_channels)
    contract = InputContract(channels=in_channels, size=None)
    if pretrained:
        weights = models.get_model_weights(architecture).DEFAULT
        _load_pretrained(features, weights.url, path, in_channels)
        normalization = weights.transforms()
        contract = normalized_contract(in_channels, normalization.mean, normalization.std)
    return Classifier(
        pool_features(features), make_configured_head(densenet.classifier.in_features, num_classes, head), contract
    )


def _set_channels(features: nn.Sequential, in_channels: int) -> None:
    check_choice("net.in_channels", in_channels, (1, 3))
    if in_channels == 1:
        first = cast(nn.Conv2d, features.get_submodule("conv0"))
        first.in_channels = 1
        first.weight = nn.Parameter(first.weight.detach().sum(dim=1, keepdim=True))


def _load_pretrained(features: nn.Module, url: str, path: Path | None, in_channels: int) -> None:
    if path is None:
        path = fetch(url, Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name, REMEDY)
    state = subtree(_modern_names(read_state(path)), "features.")
    if in_channels == 1 and "conv0.weight" in state:
        state["conv0.weight"] = state["conv0.weight"].sum(dim=1, keepdim=True)
    load_into(features, state, str(path))


def _modern_names(state: State) -> State:
    """The published files name the layers of a dense layer `norm.1`; the modules are called `norm1`."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name): state[name] for name in state}
