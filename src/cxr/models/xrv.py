"""The chest X-ray DenseNet121 of torchxrayvision. Knows nothing of other sources of nets.

Only the feature layers of torchxrayvision's class are used: not its classifier, and not its `op_threshs`, which would
turn logits into rescaled probabilities.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from cxr.errors import ConfigError, require_extra
from cxr.imaging.preprocess import InputContract
from cxr.models.arguments import check_choice, checked_path, checked_rate
from cxr.models.download import fetch
from cxr.models.head import Classifier, make_configured_head, pool_features
from cxr.models.weights import load_into, read_converted, subtree

WEIGHTS = {
    "all": "all",
    "rsna": "rsna",
    "nih": "nih",
    "padchest": "pc",
    "pc": "pc",
    "chexpert": "chex",
    "chex": "chex",
    "mimic_nb": "mimic_nb",
    "mimic_ch": "mimic_ch",
}
"""The seven weight sets: by the name of their data (two also by their short one), what torchxrayvision calls them."""

PICKLED_CLASSES = (
    "torchxrayvision.models.DenseNet",
    "torchxrayvision.models._DenseBlock",
    "torchxrayvision.models._DenseLayer",
    "torchxrayvision.models._Transition",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.pooling.AvgPool2d",
    "torch.nn.modules.pooling.MaxPool2d",
)
"""What the weights files hold: each is a whole module that torch.save pickled."""

REMEDY = "name its place by net.weights_path=..., or start from random weights by net.weights=null"


def build_xrv_densenet121(
    num_classes: int,
    *,
    weights: str | None = None,
    weights_path: str | None = None,
    drop_rate: float = 0.0,
    head: Mapping[str, Any] | None = None,
) -> Classifier:
    """Build torchxrayvision's DenseNet121 with a new head (Cohen et al. 2022, https://arxiv.org/abs/2111.00595).

    It takes one channel in [-1024, 1024]: 224 x 224 with weights, which were trained at that size, any size without.

    Args:
        num_classes: Number of logits.
        weights: all, rsna, nih, padchest (or pc), chexpert (or chex), mimic_nb or mimic_ch; None starts from random
            weights.
        weights_path: Where the file of these weights lies; None looks in torchxrayvision's own cache folder and
            downloads it there.
        drop_rate: Dropout after every dense layer, in [0, 1).
        head: hidden, activation and dropout of `make_head`; None for a single linear layer.

    Raises:
        ConfigError: An argument lies outside its range.
        MissingExtraError: torchxrayvision is not installed.
        WeightsError: The weights are absent, cannot be fetched, or do not fit.
    """
    check_choice("net.weights", weights, [*WEIGHTS, None])
    path = checked_path(weights_path)
    if path is not None and weights is None:
        raise ConfigError("expected net.weights to name the set in net.weights_path, got null; name it, e.g. all")
    xrv = _import_torchxrayvision()
    if weights is not None and path is None:
        path = _cached_file(xrv, WEIGHTS[weights])
    densenet = xrv.models.DenseNet(drop_rate=checked_rate("drop_rate", drop_rate))
    features: nn.Sequential = densenet.features
    if path is not None:
        load_into(features, subtree(read_converted(path, PICKLED_CLASSES), "features."), str(path))
    return Classifier(
        pool_features(features),
        make_configured_head(densenet.classifier.in_features, num_classes, head),
        InputContract(channels=1, size=None if path is None else (224, 224), low=-1024.0, high=1024.0),
    )


def _import_torchxrayvision() -> ModuleType:
    """Import torchxrayvision without the process-wide warnings filter that it installs."""
    require_extra("torchxrayvision", "xrv")
    with warnings.catch_warnings():
        import torchxrayvision
    return torchxrayvision


def _cached_file(xrv: ModuleType, name: str) -> Path:
    url = xrv.models.model_urls[name]["weights_url"]
    path = Path(xrv.utils.get_cache_dir()) / Path(url).name
    if path.with_name(f"{path.name}.safetensors").is_file():
        return path
    return fetch(url, path, REMEDY)
