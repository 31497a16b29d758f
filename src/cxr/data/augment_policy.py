"""The magnitudes of one config group -> what is done to single images, and what to batches. Knows nothing of either."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import torch

from cxr.data.augment import AffineAugment
from cxr.data.look import LookAugment
from cxr.data.mixing import Mixing
from cxr.errors import ConfigError

Part = TypeVar("Part", AffineAugment, LookAugment, Mixing)


class Augment(Protocol):
    """A random change of single images."""

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""

    def __call__(self, image: torch.Tensor, key: torch.Tensor, epoch: int) -> torch.Tensor:
        """(B, 1, H, W) float32 in [0, 1] -> the same; the draw is a function of the seed, `epoch` and (B,) `key`."""


@dataclass(frozen=True)
class ImageAugment:
    """First geometry and exposure, then the look."""

    affine: AffineAugment
    look: LookAugment

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self.affine.is_identity and self.look.is_identity

    def __call__(self, image: torch.Tensor, key: torch.Tensor, epoch: int) -> torch.Tensor:
        """Augment a batch, see `Augment`."""
        for part in (self.affine, self.look):
            if not part.is_identity:
                image = part(image, key, epoch)
        return image


def make_augment(magnitudes: Mapping[str, Any], seed: int) -> tuple[ImageAugment, Mixing]:
    """What a run does to its training images, and then to its batches.

    Args:
        magnitudes: Attributes of `AffineAugment`, `LookAugment` and `Mixing`.
        seed: The run's seed.

    Raises:
        ConfigError: A name is unknown, or a value is not in its range.
    """
    known = [field.name for kind in (AffineAugment, LookAugment, Mixing) for field in fields(kind)]
    known = [name for name in known if name != "seed"]
    unknown = sorted(set(magnitudes) - set(known))
    if unknown:
        raise ConfigError(
            f"expected augment to have the keys {', '.join(known)}, got {', '.join(unknown)}; remove them"
        )
    image = ImageAugment(_make(AffineAugment, magnitudes, seed), _make(LookAugment, magnitudes, seed))
    return image, _make(Mixing, magnitudes, seed)


def _make(kind: type[Part], magnitudes: Mapping[str, Any], seed: int) -> Part:
    names = {field.name for field in fields(kind)} & magnitudes.keys()
    return kind(**{name: magnitudes[name] for name in names}, seed=seed)
