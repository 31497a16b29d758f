"""A predictor that is one torch net. Knows nothing of training, configs, or how images are labelled."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from cxr.imaging.preprocess import Preprocess, Stored
from cxr.inference.outliers import OutlierScorer, judge_likeness
from cxr.inference.predictor import Predictor, Probs, Scores


@dataclass(frozen=True, kw_only=True)
class NetPredictor(Predictor):
    """Images to probabilities by a net.

    Attributes:
        net: (B, C, H, W) -> (B, K) logits, in eval mode on `device`.
        preprocess: What turns pixels into the input of the net.
        device: Where the net lies.
        outliers: Tells images that are unlike those of training; None where there were too few to know.
    """

    net: nn.Module
    preprocess: Preprocess
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))
    outliers: OutlierScorer | None = None

    @property
    def preprocesses(self) -> tuple[Preprocess, ...]:
        """See `Predictor.preprocesses`."""
        return (self.preprocess,)

    def score_stored(self, stored: Sequence[Stored]) -> Scores:
        """See `Predictor.score_stored`."""
        (images,) = stored
        return Scores(self._predict_stored(images), *judge_likeness(self.outliers, images))

    @torch.inference_mode()
    def _predict_stored(self, stored: Stored) -> Probs:
        batch = torch.from_numpy(self.preprocess.finish(stored))
        logits: torch.Tensor = self.net(batch.to(self.device))
        return self.to_probs(logits.double().cpu().numpy())
