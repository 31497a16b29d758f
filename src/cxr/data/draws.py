"""Random numbers of single images as a function of (seed, epoch, key) alone. Knows nothing of what they are for."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def draw_numbers(
    seed: int, epoch: int, key: NDArray[np.int64], names: Sequence[str], first: int = 0
) -> dict[str, Floats]:
    """Numbers for each image of a batch.

    Args:
        seed: The run's seed.
        epoch: The epoch.
        key: (B,) what names a draw of an image.
        names: What the numbers are called.
        first: Place of the first of them among all numbers of an image; what is drawn at other places is independent.

    Returns:
        name -> (B,) uniform in [-1, 1).
    """
    state = _mix(_mix(_mix(_to_words([seed])) + _to_words([epoch])) + key.astype(np.uint64))
    places = _to_words(range(first, first + len(names)))
    words = dict(zip(names, _mix(state + places[:, None] * GOLDEN_GAMMA), strict=True))
    return {name: (word >> np.uint64(11)) * 2.0**-52 - 1 for name, word in words.items()}


def _to_words(numbers: Iterable[int]) -> Words:
    return np.array([number % 2**64 for number in numbers], dtype=np.uint64)


def _mix(state: Words) -> Words:
    """The step of SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195), modulo 2^64 as arrays wrap."""
    state = state + GOLDEN_GAMMA
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
