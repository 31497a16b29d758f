"""What serves: images to a table of calibrated probabilities, whatever computes them.

Knows nothing of torch, of nets, or of how a predictor is stored.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, softmax

from cxr.imaging.image import read_pixels

Pixels = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Probs = Floats


@dataclass(frozen=True, kw_only=True)
class Predictor(ABC):
    """Images to probabilities.

    Attributes:
        class_names: The K names in order.
        multilabel: Whether the K answers are independent of each other, or one class excludes the others.
        temperature: Logits are divided by it.
        calibrated: Whether the temperature was fitted; if not, a probability is no frequency.
        operating_point: What evaluation chose, None before.
        extras: What the training run recorded, as plain values.
    """

    class_names: list[str]
    multilabel: bool = False
    temperature: float = 1.0
    calibrated: bool = False
    operating_point: Mapping[str, Any] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    @abstractmethod
    def score(self, images: Sequence[Pixels]) -> tuple[Probs, Floats]:
        """Predict at least one image in memory, all at once.

        Args:
            images: N arrays (H, W) in [0, 1], bright = dense, of any sizes.

        Returns:
            (N, K) probabilities, and (N,) how unlike the training images each is: above 1 it is hardly of their kind;
            nan where that is not known.

        Raises:
            ImageError: An array is no such image.
        """

    def predict_pixels(self, images: Sequence[Pixels]) -> Probs:
        """The (N, K) probabilities of `score`; N may be 0."""
        return self.score(images)[0] if len(images) > 0 else np.zeros((0, len(self.class_names)))

    def predict(self, paths: Sequence[Path | str], batch_size: int = 16) -> pd.DataFrame:
        """Predict image files; no more than a batch of them is in memory.

        Args:
            paths: N DICOM, PNG, JPEG, TIFF or BMP files.
            batch_size: Images that are predicted at once.

        Returns:
            N rows in this order: image_path, prediction (the most probable class name; where answers are independent
            all names of at least 0.5, ``; `` between them, or ``none``), prob_0 ... prob_{K-1}, and `unlike_training`
            as of `score`.

        Raises:
            ImageError: A file gives no image.
        """
        starts = range(0, len(paths), batch_size)
        batches = [self.score([read_pixels(path) for path in paths[i : i + batch_size]]) for i in starts]
        probs = np.concatenate([np.zeros((0, len(self.class_names))), *(probs for probs, _ in batches)])
        unlike = np.concatenate([np.zeros(0), *(unlike for _, unlike in batches)])
        identity = {"image_path": [str(path) for path in paths], "prediction": [self._name(row) for row in probs]}
        scores = {f"prob_{k}": column for k, column in enumerate(probs.T)}
        return pd.DataFrame({**identity, **scores, "unlike_training": unlike})

    def to_probs(self, logits: npt.NDArray[np.floating[Any]]) -> Probs:
        """(N, K) probabilities of logits (N, K), computed in float64."""
        scaled = np.asarray(logits, dtype=np.float64) / self.temperature
        probs: Probs = expit(scaled) if self.multilabel else softmax(scaled, axis=1)
        return probs

    def _name(self, probs: Floats) -> str:
        if not self.multilabel:
            return self.class_names[int(probs.argmax())]
        positive = [name for name, prob in zip(self.class_names, probs, strict=True) if prob >= 0.5]
        return "; ".join(positive) if positive else "none"
