"""Which layers of a net keep loaded weights, which of them learn, when, and how fast.

Knows nothing of training loops, configs or files. A net is a `Classifier`, its layers are the modules of its backbone
in the order in which they are registered: in the nets of this project that of the forward pass. The head comes after.
A layer is named as `backbone.named_modules` names it (``layer2``, ``blocks.3``, ``features.denseblock2``), and
``backbone`` is the last one.
"""

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import nn

from cxr.errors import ConfigError
from cxr.models.head import Classifier
from cxr.models.weights import load_into

HEAD = "head"
OWN_STAGES = {
    "stem": r"^features\.(?:conv|norm)0",
    "blocks": [
        (r"^(?:block|features\.(?:denseblock|transition))(\d+)", None),
        (r"^features\.norm5", (99999,)),  # timm's mark for: belongs to the stage before
    ],
}
"""The stages of the nets that are not timm's, in the words of timm's `group_matcher`."""


@dataclass(frozen=True)
class Stage:
    """A part of a net that is thawed at once and learns at one rate.

    Attributes:
        name: Its last layer as `layers_upto` takes it, or ``head``.
        modules: Full names of its modules that hold tensors of their own or hold no modules.
    """

    name: str
    modules: tuple[str, ...]


@dataclass(frozen=True)
class Tuning:
    """What of a net learns, when and how fast.

    Attributes:
        frozen: Full names of the modules that never learn.
        learning: Full names of the parameters that do, once it is their turn.
        stages: Those that hold any of them, in forward order, the head last; none where nothing depends on stages.
        unfreeze_every: Epochs after which one more stage learns, from the head down; None lets all learn at once.
        layer_decay: Ratio of the learning rates of a stage and of the one after it; None gives all the same.
    """

    frozen: frozenset[str]
    learning: frozenset[str]
    stages: tuple[Stage, ...] = ()
    unfreeze_every: int | None = None
    layer_decay: float | None = None

    def frozen_in(self, epoch: int) -> frozenset[str]:
        """Full names of the modules that do not learn in `epoch`, counted from 0 (ULMFiT's gradual unfreezing)."""
        if self.unfreeze_every is None:
            return self.frozen
        waiting = self.stages[: max(0, len(self.stages) - 1 - epoch // self.unfreeze_every)]
        return self.frozen.union(*(stage.modules for stage in waiting))

    def apply(self, net: Classifier, epoch: int) -> None:
        """Make `net`, which is in training mode, ready for `epoch`.

        A module that does not learn is in evaluation mode: batch norm keeps its statistics, dropout drops nothing.
        """
        frozen = self.frozen_in(epoch)
        for name, parameter in net.named_parameters():
            if name in self.learning:
                parameter.requires_grad = _owner(name) not in frozen
        hold_still(net, frozen)

    def groups(self, net: Classifier) -> list[Any]:
        """What an optimiser is given: the parameters that learn, now or in a later epoch.

        With `layer_decay` a group per stage, the head first, whose ``lr_scale`` is ``layer_decay ** stages after it``:
        discriminative learning rates (Howard & Ruder 2018, https://arxiv.org/abs/1801.06146, who divide by 2.6), also
        used by BEiT (Bao et al. 2022, https://arxiv.org/abs/2106.08254). Unlike timm's `param_groups_layer_decay`,
        weight decay stays the same for all parameters.
        """
        parameters = {name: one for name, one in net.named_parameters() if name in self.learning}
        if self.layer_decay is None:
            return list(parameters.values())
        return [
            {
                "params": [one for name, one in parameters.items() if _owner(name) in stage.modules],
                "lr_scale": self.layer_decay**distance,
            }
            for distance, stage in enumerate(reversed(self.stages))
        ]


def make_tuning(
    net: Classifier,
    freeze_upto: str | None = None,
    unfreeze_every: int | None = None,
    layer_decay: float | None = None,
) -> Tuning:
    """Freeze `net` up to and including a layer, and plan how the rest learns.

    Args:
        net: Its parameters that need no gradient already are left alone.
        freeze_upto: A layer of the backbone, or None.
        unfreeze_every: As in `Tuning`.
        layer_decay: As in `Tuning`, in (0, 1].

    Raises:
        ConfigError: The net has no such layer.
    """
    frozen = frozenset() if freeze_upto is None else layers_upto(net, freeze_upto, "transfer.freeze_upto")
    for name, parameter in net.named_parameters():
        if _owner(name) in frozen:
            parameter.requires_grad = False
    learning = frozenset(name for name, parameter in net.named_parameters() if parameter.requires_grad)
    if unfreeze_every is None and layer_decay is None:
        return Tuning(frozen, learning)
    owners = {_owner(name) for name in learning}
    stages = tuple(stage for stage in find_stages(net) if owners.intersection(stage.modules))
    return Tuning(frozen, learning, stages, unfreeze_every, layer_decay)


def layers_upto(net: Classifier, layer: str, key: str) -> frozenset[str]:
    """Return the full names of the modules up to and including a layer.

    Args:
        net: Backbone and head.
        layer: A layer of the backbone.
        key: What to call it in the message.

    Raises:
        ConfigError: There is no such layer; lists near names and the stages.
    """
    names = [name for name, _ in net.backbone.named_modules(prefix="backbone")]
    full = layer if layer == "backbone" else f"backbone.{layer}"
    inside = [i for i, name in enumerate(names) if f"{name}.".startswith(f"{full}.")]
    if not inside:
        raise ConfigError(
            f"expected {key} to name a layer of this net, got {layer!r}; {_known_layers(net, layer, names)}"
        )
    return frozenset(names[: inside[-1] + 1])


def find_stages(net: Classifier) -> list[Stage]:
    """Divide a net into stages in forward order, as timm groups the layers of its nets, the head last."""
    number_of = _stage_numbers(net.backbone)
    numbers = sorted(set(number_of.values()))
    members = [[name for name, number in number_of.items() if number == wanted] for wanted in numbers]
    owners = [name for name in number_of if _holds_tensors(net.get_submodule(name))]
    stages = [Stage(_stage_name(names, owners), tuple(names)) for names in members]
    return [*stages, Stage(HEAD, tuple(_parts(net.head, HEAD)))]


def hold_still(net: nn.Module, frozen: Collection[str]) -> None:
    """Put every module of which all parts are among `frozen` into evaluation mode."""
    for name, module in net.named_modules():
        if frozen and all(part in frozen for part in _parts(module, name)):
            module.training = False


def take_weights(net: Classifier, source: Classifier, with_head: bool, origin: str) -> bool:
    """Load the backbone of `source` into `net`, and its head where it fits.

    Args:
        net: Is changed.
        source: Another net with the same backbone.
        with_head: Whether the two heads answer the same question.
        origin: What to call `source` in the message.

    Returns:
        Whether the head was taken.

    Raises:
        WeightsError: The backbones differ; says in which tensors.
    """
    load_into(net.backbone, source.backbone.state_dict(), f"the backbone of {origin}")
    fits = with_head and _shapes(net.head) == _shapes(source.head)
    if fits:
        net.head.load_state_dict(source.head.state_dict())
    return fits


def redraw_after(net: Classifier, layer: str, fresh: Classifier) -> None:
    """Keep the weights of `net` up to and including a layer, and take those of `fresh` for what comes after.

    Args:
        net: Is changed.
        layer: A layer of the backbone.
        fresh: The same net, with weights drawn at random as its architecture draws them.

    Raises:
        ConfigError: The net has no such layer.
    """
    kept = layers_upto(net, layer, "transfer.pretrained_upto")
    loaded, drawn = net.state_dict(), fresh.state_dict()
    net.load_state_dict({name: (loaded if _owner(name) in kept else drawn)[name] for name in loaded})


def _known_layers(net: Classifier, layer: str, names: list[str]) -> str:
    layers = [name.removeprefix("backbone.") for name in names]
    near = difflib.get_close_matches(layer, layers, n=3)
    hint = f"near it are {', '.join(near)}; " if near else ""
    stages = ", ".join(stage.name for stage in find_stages(net)[:-1])
    return f"{hint}choose one of its stages {stages}, a layer inside one, or backbone"


def _stage_numbers(backbone: Any) -> dict[str, int]:
    """Full name of each part of a backbone -> stage; what has no parameters goes with what stands before it."""
    from timm.models import group_parameters

    matcher = backbone.group_matcher(coarse=True) if hasattr(backbone, "group_matcher") else OWN_STAGES
    grouped = group_parameters(backbone, matcher, reverse=True)
    known = {f"backbone.{_owner(name)}".removesuffix("."): number for name, number in grouped.items()}
    numbers: dict[str, int] = {}
    number = 0
    for part in _parts(backbone, "backbone"):
        number = known.get(part, number)
        numbers[part] = number
    return numbers


def _stage_name(names: list[str], owners: list[str]) -> str:
    """The largest layer that ends with the last tensors of a stage and holds no others than the stage's."""
    path = [name for name in names if name in owners][-1].split(".")
    layers = [".".join(path[:depth]) for depth in range(2, len(path) + 1)]
    strangers = [name for name in owners if name not in names]
    whole = [layer for layer in layers if not any(f"{name}.".startswith(f"{layer}.") for name in strangers)]
    name = whole[0].removeprefix("backbone.") if whole else "backbone"
    return ".".join(path[1:]) if name == HEAD else name  # of two heads, the net's own is called so


def _parts(module: nn.Module, prefix: str) -> list[str]:
    """Full names of the modules that hold tensors of their own, or hold no modules."""
    named = module.named_modules(prefix=prefix)
    return [name for name, one in named if _holds_tensors(one) or next(one.children(), None) is None]


def _holds_tensors(module: nn.Module) -> bool:
    return bool([*module.parameters(recurse=False), *module.buffers(recurse=False)])


def _owner(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
