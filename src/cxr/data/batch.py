"""Stored images to a net's input, a batch at a time, on whatever device the batch is.

Knows nothing of datasets, caches or nets. The arithmetic is that of `Preprocess.finish`, with its own two arrays.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxr.data.augment_policy import Augment
from cxr.imaging.preprocess import Preprocess


class BatchTransform:
    """The last step of preprocessing, with augmentation before it in training.

    Args:
        preprocess: Gives the value range and channels; complete, that is without `mean="weights"`.
        augment: What is done to training images, or None.
    """

    def __init__(self, preprocess: Preprocess, augment: Augment | None = None) -> None:
        scale, offset = preprocess.scale_offset
        self._scale, self._offset = torch.from_numpy(_as_column(scale)), torch.from_numpy(_as_column(offset))
        self._white = float(np.iinfo(preprocess.precision).max)
        self._augment = None if augment is None or augment.is_identity else augment

    def __call__(self, image: torch.Tensor, key: torch.Tensor, epoch: int, training: bool) -> torch.Tensor:
        """Make the input of a net.

        Args:
            image: (B, h, w) stored values, of whatever type carries them.
            key: (B,) int64, what each image's draw depends on.
            epoch: The epoch, likewise.
            training: Whether to augment.

        Returns:
            (B, C, h, w) float32 on the device of `image`, in the value range of `preprocess`.
        """
        pixels = image.unsqueeze(1).to(torch.float32)
        if training and self._augment is not None:
            pixels = self._augment(pixels / self._white, key, epoch).mul_(self._white)
        self._scale, self._offset = self._scale.to(image.device), self._offset.to(image.device)
        return (pixels * self._scale).add_(self._offset)


def _as_column(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)
