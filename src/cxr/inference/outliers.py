"""Whether an image is like those that a model was trained on: a leg, a CT slice or a photograph is not.

Probabilistic PCA (Tipping and Bishop 1999) of small thumbnails, brightness and contrast taken out, so a coarse look at
what lies where. Knows nothing of the net; it cannot tell a chest with another disease from one with a known one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.errors import DataError
from cxr.imaging.preprocess import Stored

Floats = NDArray[np.float64]

SIDE = 16
COMPONENTS = 32
LEAST_IMAGES = 8 * COMPONENTS
"""Fewer training images do not show how chests differ from each other."""
SHARE_BELOW = 0.99
NEGATIVE_BELOW = -0.2
"""Correlation with the mean thumbnail. Under a mean of children's films those of adults had at least -0.19, and 95 in
100 of their negatives less than -0.21."""
_TINY = 1e-3


@dataclass(frozen=True)
class OutlierScorer:
    """Thumbnails of the training images as a Gaussian.

    Attributes:
        mean: (SIDE * SIDE,) of the thumbnails.
        components: (COMPONENTS, SIDE * SIDE) directions in which they differ most, orthonormal.
        variances: (COMPONENTS,) along these.
        rest: Variance along every other direction.
        threshold: Distance below which 99% of the validation images lie.
    """

    mean: Floats
    components: Floats
    variances: Floats
    rest: float
    threshold: float

    def score(self, stored: Stored) -> Floats:
        """How unlike the training images each image is.

        Args:
            stored: (N, h, w) as `Preprocess.store` gives them.

        Returns:
            (N,) from 0; above 1 more unlike than 99% of the validation images.
        """
        return self._distance(describe(stored)) / self.threshold

    def find_inverted(self, stored: Stored) -> NDArray[np.bool_]:
        """Which of (N, h, w) stored images look like a negative of the mean training image: (N,)."""
        described = describe(stored)
        norms = np.linalg.norm(described, axis=1) * np.linalg.norm(self.mean)
        return np.asarray(described @ self.mean < NEGATIVE_BELOW * norms)

    def _distance(self, described: Floats) -> Floats:
        centred = described - self.mean
        along = centred @ self.components.T
        rest = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return np.asarray((along**2 / self.variances).sum(axis=1) + rest / self.rest)

    def to_arrays(self) -> dict[str, Floats]:
        """The attributes as arrays, for `from_arrays`."""
        numbers = {"rest": np.array([self.rest]), "threshold": np.array([self.threshold])}
        return {"mean": self.mean, "components": self.components, "variances": self.variances, **numbers}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Floats]) -> "OutlierScorer":
        """What `to_arrays` gave.

        Raises:
            DataError: An array is absent or of another shape.
        """
        pixels = SIDE * SIDE
        shapes = {"mean": (pixels,), "components": (COMPONENTS, pixels), "variances": (COMPONENTS,)}
        shapes |= {"rest": (1,), "threshold": (1,)}
        found = {name: array.shape for name, array in arrays.items()}
        if found != shapes:
            raise DataError(f"expected the arrays {shapes} of an outlier score, got {found}; write the bundle again")
        rest, threshold = float(arrays["rest"][0]), float(arrays["threshold"][0])
        return cls(arrays["mean"], arrays["components"], arrays["variances"], rest, threshold)


def fit_outliers(train: Iterable[Stored], validation: Iterable[Stored]) -> OutlierScorer | None:
    """Fit the scorer on training images, and its threshold on validation images.

    Args:
        train: Batches (B, h, w) of stored images.
        validation: Batches of others, at least one image.

    Returns:
        The scorer, or None of fewer than LEAST_IMAGES training images.
    """
    described = np.concatenate([describe(batch) for batch in train])
    if len(described) < LEAST_IMAGES:
        return None
    ascending, directions = np.linalg.eigh(np.cov(described, rowvar=False, bias=True))
    variances, components = np.maximum(ascending[::-1], _TINY), directions.T[::-1][:COMPONENTS].copy()
    rest = float(variances[COMPONENTS:].mean())
    scorer = OutlierScorer(described.mean(axis=0), components, variances[:COMPONENTS], rest, 1.0)
    distances = np.concatenate([scorer.score(batch) for batch in validation])
    threshold = float(np.quantile(distances, SHARE_BELOW))
    return OutlierScorer(scorer.mean, scorer.components, scorer.variances, rest, threshold)


def judge_likeness(scorer: OutlierScorer | None, stored: Stored) -> tuple[Floats, NDArray[np.bool_]]:
    """How unlike the training images each of N is, and which look inverted; nan and False where there is no scorer."""
    if scorer is None:
        return np.full(len(stored), np.nan), np.zeros(len(stored), dtype=np.bool_)
    return scorer.score(stored), scorer.find_inverted(stored)


def describe(stored: Stored) -> Floats:
    """Thumbnails (N, SIDE * SIDE) of stored images (N, h, w), each of mean 0 and, unless flat, standard deviation 1."""
    small = [
        cv2.resize(image.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() for image in stored
    ]
    thumbnails = np.array(small, dtype=np.float64).reshape(len(small), SIDE * SIDE)
    spread = thumbnails.std(axis=1, keepdims=True)
    return (thumbnails - thumbnails.mean(axis=1, keepdims=True)) / np.maximum(spread, _TINY)
