"""A predictor that is one torch net. Knows nothing of training, configs, or how images are labelled."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from cxr.imaging.preprocess import Preprocess, Stored
from cxr.inference.outliers import OutlierScorer
from cxr.inference.predictor import Floats, Pixels, Predictor, Probs


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

    def score(self, images: Sequence[Pixels]) -> tuple[Probs, Floats]:
        """See `Predictor.score`."""
        stored = np.array([self.preprocess.store(image) for image in images], dtype=self.preprocess.precision)
        unlike = np.full(len(images), np.nan) if self.outliers is None else self.outliers.score(stored)
        return self._predict_stored(stored), unlike

    @torch.inference_mode()
    def _predict_stored(self, stored: Stored) -> Probs:
        batch = torch.from_numpy(self.preprocess.finish(stored))
        logits: torch.Tensor = self.net(batch.to(self.device))
        return self.to_probs(logits.double().cpu().numpy())
