"""The dictionary from names to nets. Knows nothing of configs, training or files other than weights.

A net is named by a key of `BUILDERS` and plain arguments (JSON values), never by a dotted path, so that a bundle can
be rebuilt without running anything it contains.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from cxr.errors import ConfigError
from cxr.models.arguments import check_arguments, check_positive
from cxr.models.custom_cnn import build_custom_cnn
from cxr.models.head import Classifier
from cxr.models.rad_dino import build_rad_dino
from cxr.models.timm_nets import build_timm
from cxr.models.torchvision_nets import build_torchvision_densenet
from cxr.models.xrv import build_xrv_densenet121

BUILDERS: dict[str, Callable[..., Classifier]] = {
    "custom_cnn": build_custom_cnn,
    "rad_dino": build_rad_dino,
    "timm": build_timm,
    "torchvision_densenet": build_torchvision_densenet,
    "xrv_densenet121": build_xrv_densenet121,
}

WEIGHTLESS = {"weights": None, "pretrained": False, "weights_path": None}


def build_net(name: str, num_classes: int, **arguments: Any) -> Classifier:
    """Build the net that a config or bundle names.

    Args:
        name: A key of `BUILDERS`.
        num_classes: Number of logits K.
        arguments: Plain values for that builder, documented there.

    Returns:
        A net (B, C, H, W) -> (B, K) logits, with the attribute `input_contract`.

    Raises:
        ConfigError: The name or an argument is unknown, missing, or outside its range.
        WeightsError: Weights that the arguments ask for are absent or do not fit.
        MissingExtraError: The net needs an optional dependency.
    """
    if name not in BUILDERS:
        raise ConfigError(f"expected net.name to be one of {', '.join(BUILDERS)}, got '{name}'; choose one of these")
    parameters = dict(inspect.signature(BUILDERS[name]).parameters)
    del parameters["num_classes"]
    check_arguments(f"the net {name}", arguments, list(parameters))
    missing = [key for key, value in parameters.items() if value.default is value.empty and key not in arguments]
    if missing:
        raise ConfigError(f"expected the net {name} to have {', '.join(missing)}, got none; set net.{missing[0]}=...")
    check_positive("num_classes", num_classes)
    return BUILDERS[name](num_classes, **arguments)


def without_weights(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments under which the same net is built with no weights read: for a state that is loaded after."""
    return {key: WEIGHTLESS.get(key, value) for key, value in arguments.items()}


def count_parameters(net: nn.Module) -> dict[str, int]:
    """Count parameters: `total`, `trainable` (they require a gradient) and `frozen`."""
    trainable = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in net.parameters())
    return {"total": total, "trainable": trainable, "frozen": total - trainable}
