"""Random streams and identifiers that depend on a seed and a key alone. Knows nothing of phantoms."""

import hashlib
import uuid

import numpy as np


def stream(seed: int, *key: str | int) -> np.random.Generator:
    """A random stream of its own for each key, the same in every process."""
    return np.random.default_rng(list(_digest(seed, *key)))


def make_uid(seed: int, *key: str | int) -> str:
    """A DICOM UID below 2.25, from a UUID made of the seed and the key (PS3.5 B.2)."""
    return f"2.25.{uuid.UUID(bytes=_digest(seed, *key)[:16], version=4).int}"


def _digest(seed: int, *key: str | int) -> bytes:
    return hashlib.sha256("/".join(["cxr phantom", str(seed), *map(str, key)]).encode()).digest()
