"""Logits to probabilities. Numpy alone: importing scipy takes longer than predicting an image."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def softmax(logits: npt.NDArray[np.floating[Any]]) -> Floats:
    """(N, K) probabilities of classes that exclude each other, from logits (N, K)."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def expit(logits: npt.NDArray[np.floating[Any]]) -> Floats:
    """(N, K) probabilities of independent answers, from logits (N, K)."""
    return np.exp(-np.logaddexp(0, -logits, dtype=np.float64))
