"""A predictor that is one torch net. Knows nothing of training, configs, or how images are labelled."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cxr.errors import ConfigError
from cxr.inference.embedding import Embeddings, Logits, OneNet
from cxr.models.head import Classifier
from cxr.models.views import SeveralViews


@dataclass(frozen=True, kw_only=True)
class NetPredictor(OneNet):
    """Images to probabilities by a torch net.

    Attributes:
        net: (B, C, H, W) -> (B, K) logits, in eval mode on `device`.
        device: Where the net lies.
    """

    net: nn.Module
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))

    @torch.inference_mode()
    def ask(self, images: npt.NDArray[np.float32]) -> Logits:
        """See `OneNet.ask`."""
        logits: torch.Tensor = self.net(torch.from_numpy(images).to(self.device))
        return logits.double().cpu().numpy()

    @torch.inference_mode()
    def embed(self, images: npt.NDArray[np.float32]) -> tuple[Embeddings, Logits]:
        """See `OneNet.embed`."""
        net = self.net
        if not isinstance(net, Classifier):
            raise ConfigError(f"expected a net of backbone and head, got {type(net).__name__}; load it from a bundle")
        batch = torch.from_numpy(images).to(self.device)
        features = net.backbone(batch)
        logits = net(batch) if isinstance(net, SeveralViews) else net.head(features)
        return features.float().cpu().numpy(), logits.double().cpu().numpy()
