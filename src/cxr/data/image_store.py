"""Where stored images come from: what every store can do, and the store that keeps nothing.

`ImageCache` and `UncachedImages` are the two `ImageStore`s, so whoever reads images does not know whether they were
decoded before. Knows nothing of labels, splits or torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cxr.data.decoding import StoredArray, decode_file, decode_files
from cxr.errors import ImageError
from cxr.imaging.preprocess import Preprocess

Rows = NDArray[np.int64]


class StoredImages(Protocol):
    """The stored images of one list of files, in its order. Can be sent to other processes."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, rows: Rows) -> StoredArray:
        """(N, h, w) uint8 or uint16, a copy, for the (N,) positions `rows` in the list."""


class ImageStore(Protocol):
    """Where stored images come from."""

    @property
    def stored_fingerprint(self) -> str:
        """Of the preprocessing that makes a stored image."""

    def build(self, paths: Sequence[str], hashes: Sequence[str]) -> dict[str, str]:
        """Make every image ready that can be; return path -> error of those that cannot."""

    def open(self, paths: Sequence[str], hashes: Sequence[str]) -> StoredImages:
        """The images of these files, all of which `build` found good."""


class UncachedImages:
    """Decodes every image each time it is asked for: `data.cache=false`.

    Args:
        preprocess: What makes a stored image of pixels.
        workers: Number of processes of `build`; None is one per usable core.
    """

    def __init__(self, preprocess: Preprocess, workers: int | None = None) -> None:
        self.stored_fingerprint = preprocess.stored_fingerprint
        self._preprocess = preprocess
        self._workers = workers

    def build(self, paths: Sequence[str], hashes: Sequence[str]) -> dict[str, str]:
        """Decode every file once to find the bad ones; return path -> error. Keeps nothing."""
        del hashes
        batches = decode_files(list(dict.fromkeys(paths)), self._preprocess, self._workers)
        return {path: decoded.error for batch in batches for path, decoded in batch if decoded.error is not None}

    def open(self, paths: Sequence[str], hashes: Sequence[str]) -> StoredImages:
        """The images of these files."""
        del hashes
        return _DecodedImages(self._preprocess, tuple(paths))


@dataclass(frozen=True)
class _DecodedImages:
    preprocess: Preprocess
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Rows) -> StoredArray:
        return np.stack([self._decode(self.paths[row]) for row in rows])

    def _decode(self, path: str) -> StoredArray:
        decoded = decode_file(path, self.preprocess)
        if decoded.content is None:
            raise ImageError(f"{decoded.error} (it was good when the data were read: the file has changed)")
        return decoded.content
