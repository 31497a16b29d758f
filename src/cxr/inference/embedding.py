"""What the net of a bundle makes of images that are decoded already: embeddings and probabilities in one pass.

Knows nothing of labels and of what the numbers are for.
"""

import numpy as np
import numpy.typing as npt
import torch

from cxr.errors import ConfigError
from cxr.imaging.preprocess import Stored
from cxr.inference.net_predictor import NetPredictor
from cxr.inference.predictor import Probs
from cxr.models.head import Classifier
from cxr.models.views import SeveralViews

Embeddings = npt.NDArray[np.float32]


@torch.inference_mode()
def embed_stored(predictor: NetPredictor, stored: Stored) -> tuple[Embeddings, Probs]:
    """Put stored images through a net, all at once.

    Args:
        predictor: Of a bundle.
        stored: (B, h, w) what `predictor.preprocess.store` gives; B may be 0.

    Returns:
        (B, F) the input of the net's head, of one view, and (B, K) probabilities, those of `predict_pixels`.

    Raises:
        ImageError: The images are of another type than the bundle's preprocessing stores.
        ConfigError: The images are of another size, or the net has no backbone and head.
    """
    net = predictor.net
    if not isinstance(net, Classifier):
        raise ConfigError(f"expected a net of backbone and head, got {type(net).__name__}; load it from a bundle")
    if stored.shape[1:] != predictor.preprocess.size:
        raise ConfigError(
            f"expected stored images of size {list(predictor.preprocess.size)}, got {list(stored.shape[1:])}; "
            "store them with the preprocessing of the bundle"
        )
    batch = torch.from_numpy(predictor.preprocess.finish(stored)).to(predictor.device)
    features = net.backbone(batch)
    logits = net(batch) if isinstance(net, SeveralViews) else net.head(features)
    return features.float().cpu().numpy(), predictor.to_probs(logits.double().cpu().numpy())
