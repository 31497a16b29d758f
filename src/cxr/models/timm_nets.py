"""Any backbone of timm by its name. Knows nothing of other sources of nets.

timm's own loading is not used for the download: without a network it retries for most of a minute.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cxr.errors import ConfigError, WeightsError
from cxr.imaging.preprocess import InputContract
from cxr.models.arguments import check_choice, checked_path, checked_rate
from cxr.models.download import fetch
from cxr.models.head import Classifier, make_configured_head, normalized_contract
from cxr.models.weights import State, read_state

REMEDY = "name its place by net.weights_path=..., or start from random weights by net.pretrained=false"
STRIDE = 32  # of the last feature map of the hybrid nets, whose sizes are therefore multiples of it


def build_timm(
    num_classes: int,
    *,
    architecture: str,
    pretrained: bool = False,
    weights_path: str | None = None,
    in_channels: int = 3,
    img_size: int | Sequence[int] | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    head: Mapping[str, Any] | None = None,
) -> Classifier:
    """Build a timm backbone with a new head.

    Args:
        num_classes: Number of logits.
        architecture: A name that `timm.list_models()` knows, with or without the tag of its weights: "resnet18",
            "vit_tiny_patch16_224", "densenet121.tv_in1k".
        pretrained: Load the weights of that tag (the architecture's first without one); the contract then carries the
            mean and std that timm states for them.
        weights_path: Where the file of these weights lies; None looks in the caches of Hugging Face and of torch's hub
            and downloads it into the latter.
        in_channels: 3, or 1: timm then sums the kernels of the first layer over the colours, and the contract has the
            averaged mean and std.
        img_size: Side or (height, width) of the images, for architectures whose parameters depend on it (position
            embeddings are interpolated, hybrid nets take multiples of 32); the others take any size. None is the size
            the architecture was made for.
        drop_rate: Dropout before the head, in [0, 1); None leaves the architecture's own.
        drop_path_rate: Stochastic depth, in [0, 1); None leaves the architecture's own.
        head: hidden, activation and dropout of `make_head`; None for a single linear layer.

    Raises:
        ConfigError: An argument lies outside its range, or the architecture has no such option.
        WeightsError: The weights are absent, cannot be fetched, or do not fit.
    """
    check_choice("net.pretrained", pretrained, (True, False))
    path = checked_path(weights_path)
    if path is not None and not pretrained:
        raise ConfigError("expected net.pretrained=true with net.weights_path, got false; set it or drop the path")
    check_choice("net.in_channels", in_channels, (1, 3))
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    options: dict[str, Any] = {name: checked_rate(name, rate) for name, rate in rates.items() if rate is not None}
    options["in_chans"] = in_channels
    described = _describe(architecture)
    asked, size = None if img_size is None else checked_pair(img_size), None
    if described.fixed_input_size:
        size = described.input_size[1:] if asked is None else asked
        if size != described.input_size[1:]:
            _check_size(architecture, options, size)
            options["img_size"] = size
    if pretrained:
        backbone = _create_pretrained(architecture, described, path, options)
        contract = normalized_contract(in_channels, described.mean, described.std, size)
    else:
        backbone = _create(architecture, num_classes=0, **options)
        contract = InputContract(channels=in_channels, size=size)
    _leave_out_dense_layers(backbone)
    return Classifier(backbone, make_configured_head(_feature_count(backbone), num_classes, head), contract)


def _describe(architecture: str) -> Any:
    """Return timm's record of an architecture and its weights."""
    import timm

    name, _, tag = str(architecture).partition(".")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"choose e.g. {', '.join(near)}" if near else "list them with timm.list_models()"
        raise ConfigError(f"expected net.architecture to be a timm model, got '{architecture}'; {hint}")
    if tag and architecture not in timm.list_pretrained(f"{name}.*"):
        known = ", ".join(timm.list_pretrained(f"{name}.*"))
        raise ConfigError(f"expected the weights of {name} to be one of {known}, got '{tag}'; choose one of these")
    return timm.get_pretrained_cfg(architecture)


def _create(architecture: str, **options: Any) -> nn.Module:
    import timm

    try:
        net: nn.Module = timm.create_model(architecture, **options)
    except TypeError as error:
        raise ConfigError(f"expected options that {architecture} has, got {error}; set that option to null") from error
    return net


def _leave_out_dense_layers(backbone: Any) -> None:
    """Take the two dense layers of VGG away: 120 of its 138 million parameters, which pooled features do not need."""
    from timm.models import VGG

    if isinstance(backbone, VGG):
        backbone.pre_logits = nn.Identity()
        backbone.head_hidden_size = backbone.num_features


def _feature_count(backbone: Any) -> int:
    """Width of the pooled features; some backbones have a dense layer between pooling and classifier."""
    return int(getattr(backbone, "head_hidden_size", backbone.num_features))


def checked_pair(img_size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width); ConfigError for what is neither a side nor a pair of them."""
    pair = (img_size, img_size) if isinstance(img_size, int) else img_size
    if not (isinstance(pair, Sequence) and len(pair) == 2 and all(type(side) is int and side > 0 for side in pair)):
        raise ConfigError(
            f"expected net.img_size to be null, a side or [height, width], got {img_size!r}; give whole numbers above 0"
        )
    return pair[0], pair[1]


def _check_size(architecture: str, options: Mapping[str, Any], size: tuple[int, int]) -> None:
    """Raise ConfigError unless an architecture that is made for one size can be made for `size`; name what is near."""
    if _takes(architecture, options, size):
        return
    below = tuple(max(STRIDE, side // STRIDE * STRIDE) for side in size)
    above = tuple(-(-side // STRIDE) * STRIDE for side in size)
    near = [list(pair) for pair in dict.fromkeys((below, above)) if _takes(architecture, options, pair)]
    hint = f"choose preprocess.size={' or '.join(map(str, near))}, or " if near else "choose "
    raise ConfigError(
        f"expected a size that {architecture} can take, got {size[0]}x{size[1]}; "
        f"{hint}net.img_size=null with the size it was made for"
    )


def _takes(architecture: str, options: Mapping[str, Any], size: tuple[int, ...]) -> bool:
    """Whether an architecture made for `size` takes images of it, tried without memory for weights."""
    try:
        with torch.device("meta"), torch.no_grad():
            net = _create(architecture, num_classes=0, img_size=size, **options).eval()
            net(torch.zeros(1, options["in_chans"], *size))
    except (RuntimeError, ValueError, AssertionError):
        return False
    return True


def _create_pretrained(architecture: str, described: Any, path: Path | None, options: Mapping[str, Any]) -> nn.Module:
    path = _find_weights(architecture, described) if path is None else path
    state = read_state(path)
    classifiers = (described.classifier,) if isinstance(described.classifier, str) else described.classifier
    state |= _classifier_of(_create(architecture, **options), classifiers)  # it is replaced anyway: any width will do
    overlay = {"state_dict": state, "custom_load": False, "label_offset": 0}
    try:
        backbone = _create(architecture, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:600]
        raise WeightsError(f"expected {path} to hold the weights of {architecture}, got {reason}; {REMEDY}") from error
    backbone.reset_classifier(0)  # type: ignore[operator]
    return backbone


def _classifier_of(net: nn.Module, classifiers: Sequence[str] | None) -> State:
    prefixes = tuple(f"{name}." for name in classifiers or ())
    return {name: tensor for name, tensor in net.state_dict().items() if name.startswith(prefixes)}


def _find_weights(architecture: str, described: Any) -> Path:
    import huggingface_hub

    if described.hf_hub_id is None:
        import timm

        known = ", ".join(timm.list_pretrained(f"{architecture.split('_')[0]}*")[:8])
        raise WeightsError(
            f"expected weights for {architecture}, timm has none; choose one that has, e.g. {known}, "
            "or net.pretrained=false"
        )
    name = described.hf_hub_filename or "model.safetensors"
    cached = huggingface_hub.try_to_load_from_cache(described.hf_hub_id, name)
    if isinstance(cached, str):
        return Path(cached)
    repository = Path(described.hf_hub_id).name
    target = Path(torch.hub.get_dir()) / "checkpoints" / f"{repository}{Path(name).suffix}"
    return fetch(huggingface_hub.hf_hub_url(described.hf_hub_id, name), target, REMEDY)
