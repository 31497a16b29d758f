"""What serves: images to a table of calibrated probabilities, whatever computes them.

Knows nothing of torch, of nets, or of how a predictor is stored.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cxr.imaging.preprocess import Preprocess, Stored
from cxr.scaling import UNSCALED, Scaling, expit

if TYPE_CHECKING:
    import pandas as pd

Pixels = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Probs = Floats


@dataclass(frozen=True)
class Scores:
    """What a predictor finds in N images.

    Attributes:
        probs: (N, K) probabilities.
        unlike: (N,) how unlike the training images each is: above 1 it is hardly of their kind; nan where not known.
        inverted: (N,) whether it looks like a negative of theirs.
    """

    probs: Probs
    unlike: Floats
    inverted: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Predictor(ABC):
    """Images to probabilities.

    Attributes:
        class_names: The K names in order.
        multilabel: Whether the K answers are independent of each other, or one class excludes the others.
        scaling: Of its logits.
        calibrated: Whether the scaling was fitted; if not, a probability is no frequency.
        operating_point: What evaluation chose: with two classes the point, else class or target -> point; None before.
        abstention: From which confidence on an answer is given, chosen on validation; None where it was not.
        extras: What the training run recorded, as plain values.
    """

    class_names: list[str]
    multilabel: bool = False
    scaling: Scaling = UNSCALED
    calibrated: bool = False
    operating_point: Mapping[str, Any] | None = None
    abstention: Mapping[str, Any] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    @abstractmethod
    def preprocesses(self) -> tuple[Preprocess, ...]:
        """What stores an image for this predictor: one, or of an ensemble each different one of its members."""

    @abstractmethod
    def score_stored(self, stored: Sequence[Stored]) -> Scores:
        """Predict at least one image, all at once.

        Args:
            stored: For each of `preprocesses` the (N, h, w) that it stores of the same N images.

        Raises:
            ImageError: The images are of another type than it stores.
        """

    def score(self, images: Sequence[Pixels]) -> Scores:
        """Predict at least one image in memory, all at once.

        Args:
            images: N arrays (H, W) in [0, 1], bright = dense, of any sizes.

        Raises:
            ImageError: An array is no such image.
        """
        return self.score_stored([one.store_all(images) for one in self.preprocesses])

    def predict_pixels(self, images: Sequence[Pixels]) -> Probs:
        """The (N, K) probabilities of `score`; N may be 0."""
        return self.score(images).probs if len(images) > 0 else np.zeros((0, len(self.class_names)))

    def predict(self, paths: Sequence[Path | str], batch_size: int = 16) -> "pd.DataFrame":
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
        import pandas as pd

        from cxr.imaging.image import read_pixels

        starts = range(0, len(paths), batch_size)
        batches = [self.score([read_pixels(path) for path in paths[i : i + batch_size]]) for i in starts]
        probs = np.concatenate([np.zeros((0, len(self.class_names))), *(batch.probs for batch in batches)])
        unlike = np.concatenate([np.zeros(0), *(batch.unlike for batch in batches)])
        identity = {"image_path": [str(path) for path in paths], "prediction": [self.name(row) for row in probs]}
        scores = {f"prob_{k}": column for k, column in enumerate(probs.T)}
        return pd.DataFrame({**identity, **scores, "unlike_training": unlike})

    def to_probs(self, logits: npt.NDArray[np.floating[Any]]) -> Probs:
        """(N, K) probabilities of logits (N, K), computed in float64."""
        return expit(self.scaling.scale(logits)) if self.multilabel else self.scaling.to_probs(logits)

    def name(self, probs: Floats) -> str:
        """The answer of (K,) probabilities: the most probable class, or of independent ones all of at least 0.5."""
        if not self.multilabel:
            return self.class_names[int(probs.argmax())]
        positive = [name for name, prob in zip(self.class_names, probs, strict=True) if prob >= 0.5]
        return "; ".join(positive) if positive else "none"
