"""A predictor made of predictors, each with its own preprocessing and temperature. Knows nothing of files.

Members are asked with pixels, so that those of other sizes, normalisers or kinds each see what they were made for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr.errors import ConfigError
from cxr.inference.combine import ONE_VS_REST, Rule, order_classes, to_logits
from cxr.inference.net_predictor import NetPredictor
from cxr.inference.predictor import Floats, Pixels, Predictor, Probs


@dataclass(frozen=True, kw_only=True)
class EnsemblePredictor(Predictor):
    """Images to probabilities by several predictors and a rule.

    The temperature divides the logarithms of what the rule gives.

    Attributes:
        members: At least one, of one class per image.
        rule: Makes one table of theirs.

    Raises:
        ConfigError: Members that the rule cannot combine.
    """

    members: Sequence[Predictor]
    rule: Rule

    def __post_init__(self) -> None:
        if any(member.multilabel for member in self.members):
            raise ConfigError(
                "expected members with one class per image, got one with several targets; use each by itself"
            )
        orders = order_classes(self.rule.name, self.class_names, [member.class_names for member in self.members])
        self.rule(np.full((len(orders), 1, len(orders[0]) if orders else 0), 0.5))

    def score(self, images: Sequence[Pixels]) -> tuple[Probs, Floats]:
        """See `Predictor.score`; the most unlike of what the members find."""
        scored = [member.score(images) for member in self.members]
        orders = order_classes(self.rule.name, self.class_names, [member.class_names for member in self.members])
        tables = [probs[:, order] for (probs, _), order in zip(scored, orders, strict=True)]
        unlike = np.fmax.reduce([found for _, found in scored])
        return self.to_probs(to_logits(self.rule(np.stack(tables)))), unlike

    def shares(self, label: int) -> list[float]:
        """How much each member says of a class: its weight in a soft vote; of one-against-the-rest its own net all."""
        if self.rule.name in ONE_VS_REST:
            return [float(index == label) for index in range(len(self.members))]
        weights = np.asarray(self.rule.settings.get("weights", np.ones(len(self.members))), dtype=np.float64)
        return [float(share) for share in weights / weights.sum()]


@dataclass(frozen=True)
class NetShare:
    """One net of a model.

    Attributes:
        net: The net.
        share: What it says of the class, of all members of the model together 1.
        label: Index of the class among the net's own.
    """

    net: NetPredictor
    share: float
    label: int


def find_nets(predictor: Predictor, label: int) -> list[NetShare]:
    """The nets that speak of a class, members of members too; none of what is no net.

    Args:
        predictor: Any.
        label: Index of the class.
    """
    if isinstance(predictor, NetPredictor):
        return [NetShare(predictor, 1.0, label)]
    if not isinstance(predictor, EnsemblePredictor):
        return []
    name = predictor.class_names[label]
    return [
        NetShare(found.net, share * found.share, found.label)
        for member, share in zip(predictor.members, predictor.shares(label), strict=True)
        if share > 0
        for found in find_nets(member, member.class_names.index(name))
    ]


def list_members(predictor: Predictor) -> list[Predictor]:
    """Everything that is asked for one image: a model itself, or the members of an ensemble, members of members too."""
    if not isinstance(predictor, EnsemblePredictor):
        return [predictor]
    return [one for member in predictor.members for one in list_members(member)]
