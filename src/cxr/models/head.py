"""What all nets share: a backbone, a head, and the contract of their input. Knows nothing of any architecture."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cxr.errors import ConfigError
from cxr.imaging.preprocess import InputContract
from cxr.models.arguments import check_arguments, check_choice, check_positive, checked_rate

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class Classifier(nn.Module):
    """A backbone that turns images into features, and a head that turns features into logits.

    Args:
        backbone: (B, C, H, W) float32 -> (B, F) features.
        head: (B, F) -> (B, K) logits, neither softmax nor sigmoid applied.
        input_contract: The channels, size and value range of the images that the backbone expects.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, input_contract: InputContract) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.input_contract = input_contract

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K) of images (B, C, H, W) that are preprocessed as `input_contract` says."""
        return self.head(self.backbone(images))


def recompute_activations(net: Classifier) -> None:
    """Let a net of timm compute its activations twice instead of keeping them for the backward pass.

    Outputs and gradients stay the same, memory shrinks, time grows by up to a third (Chen et al. 2016,
    arXiv:1604.06174). Batch norm sees each batch twice, so its running statistics move twice as fast.

    Raises:
        ConfigError: The net cannot.
    """
    try:
        net.backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError):
        raise ConfigError(
            "expected a net that can compute its activations twice with grad_checkpointing=true, got one that cannot; "
            "choose another net of timm, or drop it"
        ) from None


def make_activation(name: str) -> nn.Module:
    """Return the activation called `name` in `ACTIVATIONS`; ConfigError for any other name."""
    check_choice("an activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def make_head(
    in_features: int,
    num_classes: int,
    hidden: int | None = None,
    activation: str = "relu",
    dropout: float = 0.0,
) -> nn.Sequential:
    """Make the layers that turn pooled features (B, in_features) into logits (B, num_classes).

    Args:
        in_features: Width of the pooled features.
        num_classes: Number of logits.
        hidden: Units of a dense layer before the output, followed by `activation`; None for a single linear layer.
        activation: A name in `ACTIVATIONS`.
        dropout: Probability of dropping an input of the output layer, in [0, 1).

    Raises:
        ConfigError: A value lies outside its range.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = in_features
    if hidden is not None:
        check_positive("head.hidden", hidden)
        layers["hidden"] = nn.Linear(in_features, hidden)
        layers["activation"] = make_activation(activation)
        width = hidden
    layers["dropout"] = nn.Dropout(checked_rate("head.dropout", dropout))
    output = nn.Linear(width, num_classes)
    nn.init.zeros_(output.bias)
    layers["output"] = output
    return nn.Sequential(layers)


def make_configured_head(in_features: int, num_classes: int, head: Mapping[str, Any] | None) -> nn.Sequential:
    """Make the head that the arguments `head` describe: a subset of hidden, activation and dropout."""
    arguments = {} if head is None else head
    known = list(inspect.signature(make_head).parameters)[2:]
    check_arguments("net.head", arguments, known)
    return make_head(in_features, num_classes, **arguments)


def pool_features(features: nn.Module) -> nn.Sequential:
    """Follow a feature map (B, F, h, w) by the ReLU and global average pooling of DenseNet: (B, F).

    The ReLU is not in place, so that a saliency method can keep the map before it.
    """
    return nn.Sequential(
        OrderedDict(features=features, relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    )


def normalized_contract(
    in_channels: int, mean: Sequence[float], std: Sequence[float], size: tuple[int, int] | None = None
) -> InputContract:
    """State the mean and std that weights were trained with; for one channel, their averages over the colours."""
    if in_channels == 1:
        mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
    return InputContract(channels=in_channels, size=size, mean=tuple(mean), std=tuple(std))
