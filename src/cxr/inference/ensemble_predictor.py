"""A predictor made of predictors, each with its own preprocessing and scaling. Knows nothing of files.

Members are asked with pixels, so that those of other sizes, normalisers or kinds each see what they were made for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr.errors import ConfigError
from cxr.imaging.preprocess import Preprocess, Stored
from cxr.inference.combine import ONE_VS_REST, Rule, order_classes, to_logits
from cxr.inference.predictor import Predictor, Scores


@dataclass(frozen=True, kw_only=True)
class EnsemblePredictor(Predictor):
    """Images to probabilities by several predictors and a rule.

    The scaling is of the logarithms of what the rule gives.

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

    @property
    def preprocesses(self) -> tuple[Preprocess, ...]:
        """See `Predictor.preprocesses`; what several members share is there once."""
        return tuple(dict.fromkeys(one for member in self.members for one in member.preprocesses))

    def score_stored(self, stored: Sequence[Stored]) -> Scores:
        """See `Predictor.score_stored`; the most unlike of what the members find, inverted where one says so."""
        images = dict(zip(self.preprocesses, stored, strict=True))
        scored = [member.score_stored([images[one] for one in member.preprocesses]) for member in self.members]
        orders = order_classes(self.rule.name, self.class_names, [member.class_names for member in self.members])
        tables = [found.probs[:, order] for found, order in zip(scored, orders, strict=True)]
        unlike = np.fmax.reduce([found.unlike for found in scored])
        inverted = np.logical_or.reduce([found.inverted for found in scored])
        return Scores(self.to_probs(to_logits(self.rule(np.stack(tables)))), unlike, inverted)

    def shares(self, label: int) -> list[float]:
        """How much each member says of a class: its weight in a soft vote; of one-against-the-rest its own net all."""
        if self.rule.name in ONE_VS_REST:
            return [float(index == label) for index in range(len(self.members))]
        weights = np.asarray(self.rule.settings.get("weights", np.ones(len(self.members))), dtype=np.float64)
        return [float(share) for share in weights / weights.sum()]


def list_members(predictor: Predictor) -> list[Predictor]:
    """Everything that is asked for one image: a model itself, or the members of an ensemble, members of members too."""
    if not isinstance(predictor, EnsemblePredictor):
        return [predictor]
    return [one for member in predictor.members for one in list_members(member)]
