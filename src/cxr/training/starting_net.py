"""Config -> the net that training starts from: its first weights, and which of its layers learn.

Knows nothing of data or of the training loop.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cxr.errors import ConfigError
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import load_net
from cxr.inference.net_predictor import NetPredictor
from cxr.models.build import build_net, without_weights
from cxr.models.head import Classifier
from cxr.models.transfer import Tuning, make_tuning, redraw_after, take_weights
from cxr.training.building import plain

log = logging.getLogger(__name__)

UNLIKE = ("normalizer", "aspect")
"""Settings of the preprocessing that no input contract states, and that weights are used to all the same."""


def build_starting_net(config: DictConfig, class_names: list[str]) -> Classifier:
    """Build the net of a config with the weights that `transfer` says.

    Args:
        config: The composed config.
        class_names: The K names in order.

    Raises:
        ConfigError: A layer is unknown, or nothing is loaded of which a part could be kept.
        WeightsError: The weights are absent or do not fit.
    """
    arguments, transfer = plain(config.net), config.transfer
    bare = without_weights(arguments)
    if transfer.init_from is None:
        net = build_net(num_classes=len(class_names), **arguments)
    else:
        net = build_net(num_classes=len(class_names), **bare)
        start_from(net, Path(transfer.init_from), class_names, config)
    if transfer.pretrained_upto is not None:
        if transfer.init_from is None and arguments == bare:
            raise ConfigError(
                "expected loaded weights with transfer.pretrained_upto, got a net that starts at random; set "
                "transfer.init_from, or ask for the net's own weights, or drop it"
            )
        redraw_after(net, transfer.pretrained_upto, build_net(num_classes=len(class_names), **bare))
    return net


def start_from(net: Classifier, folder: Path, class_names: list[str], config: DictConfig) -> None:
    """Give `net` the weights of a run or bundle, and what these expect of images.

    Raises:
        ConfigError: The bundle is not that of one net.
        WeightsError: There is no bundle, or its backbone is another.
    """
    bundle = folder / "bundle" if (folder / "bundle").is_dir() else folder
    source = load_net(bundle)
    assert isinstance(source.net, Classifier)  # what build_net makes
    whole = take_weights(net, source.net, source.class_names == class_names, str(bundle))
    net.input_contract = replace(source.net.input_contract, size=net.input_contract.size)
    log.info("starting from %s: %s", bundle, _tell_head(source, class_names, whole))
    _tell_preprocessing(source.preprocess, plain(config.preprocess))


def build_tuning(config: DictConfig, net: Classifier) -> Tuning:
    """Freeze the net and plan how the rest learns, as `transfer` says.

    Raises:
        ConfigError: A layer is unknown.
    """
    transfer = config.transfer
    tuning = make_tuning(net, transfer.freeze_upto, transfer.unfreeze_every, transfer.layer_decay)
    if transfer.unfreeze_every is not None:
        names = ", ".join(stage.name for stage in reversed(tuning.stages))
        log.info("stages that join in, one more every %d epochs: %s", transfer.unfreeze_every, names)
    return tuning


def check_devices(config: DictConfig, devices: int) -> None:
    """Raise ConfigError where layers would join in after the devices agreed which ones they share."""
    if config.transfer.unfreeze_every is not None and devices > 1:
        raise ConfigError(
            f"expected one device with transfer.unfreeze_every, got {devices}; set trainer.devices=1, or use "
            "transfer.layer_decay instead"
        )


def _tell_head(source: NetPredictor, class_names: list[str], whole: bool) -> str:
    if whole:
        return "its backbone and its head"
    if source.class_names == class_names:
        return "its backbone; the head has other layers and starts at random"
    return (
        f"its backbone; the head starts at random, since its classes are {', '.join(source.class_names)} "
        f"and those of this run {', '.join(class_names)}"
    )


def _tell_preprocessing(before: Preprocess, now: dict[str, Any]) -> None:
    for name in UNLIKE:
        if getattr(before, name) != now[name]:
            log.warning(
                "the weights are used to preprocess.%s=%s, this run has %s", name, getattr(before, name), now[name]
            )
