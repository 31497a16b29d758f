"""Batches whose images are mixed in pairs: mixup and CutMix, on whatever device the batch is.

Knows nothing of losses or nets. The draw of a batch is a function of (seed, epoch, its first key) alone.
"""

from dataclasses import dataclass

import numpy as np
import torch

from cxr.data.augment import check_magnitudes
from cxr.data.dataset import Batch

LIMITS = {"mixup": (10.0, "a number from 0 to 10"), "cutmix": (10.0, "a number from 0 to 10")}
STREAM = 0x6D6978  # keeps these draws apart from others made of seed and epoch


@dataclass(frozen=True)
class Mixing:
    """Each image gets a part of the one before it in the batch; one share for the whole batch, from Beta(a, a).

    Attributes:
        mixup: a of mixup, a weighted mean of two images (Zhang et al. 2018, arXiv:1710.09412); 0 for none.
        cutmix: a of CutMix, a box of one image in another (Yun et al. 2019, arXiv:1905.04899); 0 for none. With both,
            each batch takes one or the other with equal chance.
        seed: The run's seed.

    Raises:
        ConfigError: A value is not a number in its range.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_magnitudes(self, LIMITS)

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """Mix a batch.

        Args:
            batch: image (B, C, H, W), label (B,) or (B, K), key (B,).
            epoch: The epoch.

        Returns:
            The batch with mixed images, `partner`, the labels of the other images in the mixture, and `share`, the
            part () of each image that is its own: from 0.5 to 1, since `label` is that of the larger part. Without any
            mixing the batch as it is.
        """
        kinds = [kind for kind in LIMITS if getattr(self, kind) > 0]
        if not kinds:
            return batch
        rng = np.random.default_rng([STREAM, self.seed % 2**64, epoch, int(batch["key"][0])])
        kind = kinds[rng.integers(len(kinds))]
        share = float(rng.beta(getattr(self, kind), getattr(self, kind)))
        other = batch["image"].roll(1, dims=0)
        if kind == "mixup":
            image = torch.lerp(other, batch["image"], share)
        else:
            image, share = paste_box(batch["image"], other, share, rng)
        label, partner = batch["label"], batch["label"].roll(1, dims=0)
        if share < 0.5:
            label, partner, share = partner, label, 1 - share
        return {**batch, "image": image, "label": label, "partner": partner, "share": torch.tensor(share)}


def paste_box(
    image: torch.Tensor, other: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Put a box of the other images into the images, all at one random place; what would lie outside is cut off.

    Args:
        image: (B, C, H, W).
        other: Likewise.
        share: Of the area that stays, before the box is cut off.
        rng: Draws the place.

    Returns:
        The images, and the share of the area that is still their own.
    """
    height, width = image.shape[-2:]
    tall, wide = height * np.sqrt(1 - share), width * np.sqrt(1 - share)
    row, column = rng.uniform(0, height), rng.uniform(0, width)
    top, bottom = np.clip(np.rint([row - tall / 2, row + tall / 2]), 0, height).astype(int)
    left, right = np.clip(np.rint([column - wide / 2, column + wide / 2]), 0, width).astype(int)
    mixed = image.clone()
    mixed[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return mixed, 1 - float((bottom - top) * (right - left)) / (height * width)
