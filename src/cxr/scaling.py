"""Logits to probabilities, the same in tables, bundles and graphs. Numpy alone: importing scipy takes longer than
predicting an image. Knows nothing of how a scaling is fitted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Logits = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scaling:
    """What is done to logits before they become probabilities.

    Attributes:
        temperature: They are divided by it.
        bias: One number per class, added after that; None adds nothing.
    """

    temperature: float = 1.0
    bias: tuple[float, ...] | None = None

    def scale(self, logits: Logits) -> Floats:
        """(N, K) scaled logits of (N, K) logits, in float64."""
        scaled = np.asarray(logits, dtype=np.float64) / self.temperature
        return scaled if self.bias is None else scaled + np.array(self.bias)

    def to_probs(self, logits: Logits) -> Floats:
        """(N, K) probabilities of classes that exclude each other."""
        return softmax(self.scale(logits))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for `from_dict`."""
        return {"temperature": self.temperature, "bias": None if self.bias is None else list(self.bias)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Scaling":
        """What `to_dict` gave; a bias may be absent.

        Raises:
            ValueError: The temperature is not above 0, or a number is none.
        """
        temperature, bias = values["temperature"], values.get("bias")
        if not isinstance(temperature, int | float) or not 0 < temperature < np.inf:
            raise ValueError(f"temperature {temperature!r}")
        if bias is None:
            return cls(float(temperature))
        if not isinstance(bias, list) or not all(isinstance(one, int | float) for one in bias):
            raise ValueError(f"bias {bias!r}")
        return cls(float(temperature), tuple(map(float, bias)))


UNSCALED = Scaling()


def scaling_to_json(scaling: Scaling | None) -> dict[str, Any]:
    """`Scaling.to_dict`, with nulls where none was fitted."""
    return {"temperature": None, "bias": None} if scaling is None else scaling.to_dict()


def softmax(logits: Logits) -> Floats:
    """(N, K) probabilities of classes that exclude each other, from logits (N, K)."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def expit(logits: Logits) -> Floats:
    """(N, K) probabilities of independent answers, from logits (N, K)."""
    return np.exp(-np.logaddexp(0, -logits, dtype=np.float64))
