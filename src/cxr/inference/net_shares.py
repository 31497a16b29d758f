"""Which nets speak of a class, and how loudly: for those who look inside a model. Knows nothing of files."""

from dataclasses import dataclass

from cxr.inference.ensemble_predictor import EnsemblePredictor
from cxr.inference.net_predictor import NetPredictor
from cxr.inference.predictor import Predictor


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
