"""Stored images with labels as a torch dataset that is read batch by batch, and the order of an epoch.

Knows nothing of where stored images come from, of preprocessing on the device, or of Lightning. A key names one draw of
one image: key = row + occurrence * number of images, so that an image drawn twice in an epoch is augmented twice.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from cxr.data.image_store import StoredImages
from cxr.data.sampling import epoch_order
from cxr.errors import DataError

Batch = dict[str, torch.Tensor]
ROWS_AT_ONCE = 1024


class ImageDataset(Dataset[Batch]):
    """Stored images and labels by key.

    Give it to a `DataLoader` with `collate_fn=keep_batch`, since it collates by itself: one gather for a batch.

    Args:
        images: The stored images.
        labels: (N,) class indices, or (N, K) targets, in the same order.

    Raises:
        DataError: Images and labels differ in number.
    """

    def __init__(self, images: StoredImages, labels: NDArray[Any]) -> None:
        if len(images) != len(labels):
            raise DataError(f"expected one label for each of {len(images)} images, got {len(labels)} labels")
        self._images = images
        self._labels = labels
        self._resident: torch.Tensor | None = None

    def keep_on(self, device: torch.device) -> None:
        """Hold every stored image in the memory of `device`, where batches are gathered from now on."""
        chunks = np.array_split(np.arange(len(self)), -(-len(self) // ROWS_AT_ONCE))
        first = self._read(chunks[0][:1])
        resident = torch.empty((len(self), *first.shape[1:]), dtype=first.dtype, device=device)
        for rows in chunks:
            resident[rows[0] : rows[-1] + 1] = self._read(rows)
        self._resident = resident

    @property
    def stored_bytes(self) -> int:
        """What `keep_on` would take."""
        return len(self) * self._read(np.zeros(1, dtype=np.int64)).nbytes

    def __len__(self) -> int:
        return len(self._labels)

    def __getitems__(self, keys: Sequence[int]) -> Batch:
        """The batch of these keys.

        Returns:
            image (B, h, w) stored values: uint8, or for 16-bit storage float32, which holds them exactly and is
            quicker to make than int32 (torch itself has few operations on uint16); label (B,) or (B, K) as given;
            key (B,) int64.
        """
        key = np.asarray(keys, dtype=np.int64)
        rows = key % len(self)
        return {
            "image": self._gather(rows),
            "label": torch.from_numpy(self._labels[rows]),
            "key": torch.from_numpy(key),
        }

    def _gather(self, rows: NDArray[np.int64]) -> torch.Tensor:
        if self._resident is None:
            return self._read(rows)
        return self._resident[torch.from_numpy(rows).to(self._resident.device, non_blocking=True)]

    def _read(self, rows: NDArray[np.int64]) -> torch.Tensor:
        stored = self._images[rows]
        return torch.from_numpy(stored.astype(np.float32) if stored.dtype == np.uint16 else stored)

    def __getitem__(self, key: int) -> Batch:
        """One sample: image (h, w), label () and key ()."""
        return {name: values[0] for name, values in self.__getitems__([key]).items()}


def keep_batch(batch: Any) -> Any:
    """The collate function of a dataset that collates by itself."""
    return batch


class EpochSampler(Sampler[int]):
    """The keys of an epoch, a function of (seed, epoch) alone.

    Lightning calls `set_epoch` before each epoch, also through its wrapper for several processes.

    Args:
        labels: (N,) class indices of the dataset's images; (N, K) targets can only be taken as they come, by "none".
        mode: "none", "downsample", "oversample" or "weighted", as in `cxr.data.sampling.epoch_order`.
        seed: The run's seed.
    """

    def __init__(self, labels: NDArray[Any], mode: str, seed: int) -> None:
        self._labels = labels
        self._mode = mode
        self._seed = seed
        self._epoch = 0
        self._length = len(self._order(0))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return iter(self._order(self._epoch).tolist())

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return epoch_order(self._labels, self._mode, self._seed, epoch)
