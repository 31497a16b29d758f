"""The predictor that is one net, whatever runs it: what it makes of images that are decoded already.

Knows nothing of torch, of labels and of what the numbers are for.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr.errors import ConfigError
from cxr.imaging.preprocess import Preprocess, Stored
from cxr.inference.outliers import OutlierScorer, judge_likeness
from cxr.inference.predictor import Predictor, Probs, Scores

Embeddings = npt.NDArray[np.float32]
Logits = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class OneNet(Predictor):
    """Images to probabilities by one net.

    Attributes:
        preprocess: What turns pixels into the input of the net.
        outliers: Tells images that are unlike those of training; None where there were too few to know.
    """

    preprocess: Preprocess
    outliers: OutlierScorer | None = None

    @property
    def preprocesses(self) -> tuple[Preprocess, ...]:
        """See `Predictor.preprocesses`."""
        return (self.preprocess,)

    def score_stored(self, stored: Sequence[Stored]) -> Scores:
        """See `Predictor.score_stored`."""
        (images,) = stored
        probs = self.to_probs(self.ask(self.preprocess.finish(images)))
        return Scores(probs, *judge_likeness(self.outliers, images))

    def embed_stored(self, stored: Stored) -> tuple[Embeddings, Probs]:
        """Put stored images through the net, all at once.

        Args:
            stored: (B, h, w) what `preprocess.store` gives; B may be 0.

        Returns:
            (B, F) the input of the net's head, of one view, and (B, K) probabilities, those of `predict_pixels`.

        Raises:
            ImageError: The images are of another type than the preprocessing stores.
            ConfigError: The images are of another size, or the net has no backbone and head.
        """
        if stored.shape[1:] != self.preprocess.size:
            raise ConfigError(
                f"expected stored images of size {list(self.preprocess.size)}, got {list(stored.shape[1:])}; "
                "store them with the preprocessing of the bundle"
            )
        embeddings, logits = self.embed(self.preprocess.finish(stored))
        return embeddings, self.to_probs(logits)

    @abstractmethod
    def ask(self, images: npt.NDArray[np.float32]) -> Logits:
        """The logits (B, K) of images (B, C, H, W) that are finished by `preprocess`."""

    @abstractmethod
    def embed(self, images: npt.NDArray[np.float32]) -> tuple[Embeddings, Logits]:
        """The input of the head (B, F) and the logits (B, K) of images as of `ask`; B may be 0.

        Raises:
            ConfigError: The net has no backbone and head.
        """
