"""RAD-DINO, a vision transformer that learnt from chest X-rays alone. Knows nothing of other sources of nets.

The published file names its tensors as Hugging Face's `Dinov2Model` does; the net is timm's, so that nothing but timm
is needed. Licence of the weights: https://huggingface.co/microsoft/rad-dino.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cxr.errors import ConfigError, WeightsError
from cxr.imaging.preprocess import InputContract
from cxr.models.arguments import check_choice, checked_path
from cxr.models.head import Classifier, make_configured_head
from cxr.models.timm_nets import checked_pair
from cxr.models.weights import State, load_into, read_state

ARCHITECTURE = "vit_base_patch14_dinov2"
PATCH, SIDE = 14, 518
MEAN, STD = 0.5307, 0.2583  # with SIDE and a crop of the middle: preprocessor_config.json beside the weights
DOWNLOAD = "download model.safetensors of https://huggingface.co/microsoft/rad-dino and name it by net.weights_path=..."

NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
BLOCK_NAMES = {
    "norm1": "norm1",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "layer_scale2.lambda1": "ls2.gamma",
}


def build_rad_dino(
    num_classes: int,
    *,
    pretrained: bool = True,
    weights_path: str | None = None,
    img_size: int | Sequence[int] = SIDE,
    head: Mapping[str, Any] | None = None,
) -> Classifier:
    """Build RAD-DINO with a new head on its class token (Pérez-García et al. 2025, https://arxiv.org/abs/2401.10815).

    It takes one grey channel: the kernels of the patches, made for three equal ones, are summed over the colours.

    Args:
        num_classes: Number of logits.
        pretrained: Load the published weights; the contract then carries their mean and std.
        weights_path: The published file; it is not downloaded.
        img_size: Side or (height, width) of the images, multiples of 14. The weights were trained at 518; for other
            sizes their position embeddings are interpolated.
        head: hidden, activation and dropout of `make_head`; None for a single linear layer.

    Raises:
        ConfigError: An argument lies outside its range.
        WeightsError: The file is absent or holds other weights.
    """
    import timm

    check_choice("net.pretrained", pretrained, (True, False))
    path = checked_path(weights_path)
    if path is not None and not pretrained:
        raise ConfigError("expected net.pretrained=true with net.weights_path, got false; set it or drop the path")
    if path is None and pretrained:
        raise WeightsError(
            f"expected the weights of RAD-DINO, got net.weights_path=null; {DOWNLOAD}, or start from random weights "
            "by net.pretrained=false"
        )
    size = _checked_size(img_size)
    backbone: Any = timm.create_model(ARCHITECTURE, num_classes=0, in_chans=1, img_size=SIDE)
    contract = InputContract(channels=1, size=size)
    if path is not None:
        _load(backbone, path)
        contract = InputContract(channels=1, size=size, mean=(MEAN,), std=(STD,))
    if size != (SIDE, SIDE):
        backbone.set_input_size(img_size=size)
    return Classifier(backbone, make_configured_head(backbone.num_features, num_classes, head), contract)


def rename_dinov2(state: State) -> State:
    """Rename the tensors of Hugging Face's `Dinov2Model` as timm's vision transformer has them.

    The mask token, which serves training alone, is left out, and so is a head. Query, key and value become one tensor.
    Other names stay as they are.
    """
    renamed = {_rename(name): tensor for name, tensor in state.items() if not _joined(name)}
    for name in [name for name in state if ".attention.attention.query." in name]:
        parts = [state[name.replace("query", part)] for part in ("query", "key", "value")]
        block, kind = name.split(".")[2], name.rpartition(".")[2]
        renamed[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
    return {name: tensor for name, tensor in renamed.items() if "mask_token" not in name}


def _joined(name: str) -> bool:
    return ".attention.attention." in name


def _rename(name: str) -> str:
    start, names = "", NAMES
    if name.startswith("encoder.layer."):
        number, _, name = name.removeprefix("encoder.layer.").partition(".")
        start, names = f"blocks.{number}.", BLOCK_NAMES
    for old, new in names.items():
        if name == old or name.startswith(f"{old}."):
            return start + new + name.removeprefix(old)
    return start + name


def _load(backbone: nn.Module, path: Path) -> None:
    state = rename_dinov2(read_state(path))
    kernels = state.get("patch_embed.proj.weight")
    if kernels is not None:
        state["patch_embed.proj.weight"] = kernels.sum(dim=1, keepdim=True)
    load_into(backbone, state, str(path))


def _checked_size(img_size: int | Sequence[int]) -> tuple[int, int]:
    size = checked_pair(img_size)
    if any(side % PATCH for side in size):
        below = [max(PATCH, side // PATCH * PATCH) for side in size]
        above = [-(-side // PATCH) * PATCH for side in size]
        raise ConfigError(
            f"expected net.img_size in multiples of {PATCH}, got {list(size)}; "
            f"choose preprocess.size={below} or {above}"
        )
    return size
