"""Which nets speak of a class, how loudly, and what they look at together. Knows nothing of files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

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


def average_maps(nets: Sequence[NetShare], make: Callable[[NetShare], NDArray[np.float32]]) -> NDArray[np.float32]:
    """The maps of several nets by their shares.

    Args:
        nets: At least one.
        make: A net -> (..., h, w) not below 0, of all nets in the same frame.

    Returns:
        (..., h, w), the highest value of each map 1, or all 0.
    """
    whole = reduce(np.add, (np.float32(one.share) * make(one) for one in nets))
    highest = whole.max(axis=(-2, -1), keepdims=True)
    return np.divide(whole, highest, out=np.zeros_like(whole), where=highest > 0)
