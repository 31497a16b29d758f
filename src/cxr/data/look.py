"""What another hospital's equipment changes: grey curve, sharpness, noise, and covered areas; a batch at a time.

Knows nothing of geometry, value ranges, nets or tables. Images are grey, from 0 (black) to 1 (white); a draw is a
function of (seed, epoch, key) alone, as in `cxr.data.augment`.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from cxr.data.augment import check_magnitudes, per_image
from cxr.data.draws import Floats, draw_numbers

LIMITS = {  # magnitude -> (largest value, what it is)
    "gamma": (4.0, "a number from 0 to 4"),
    "blur": (4.0, "halvings of the resolution from 0 to 4"),
    "noise": (0.5, "a standard deviation from 0 to 0.5"),
    "erase": (0.9, "a fraction of the image area from 0 to 0.9"),
}
DRAWS = ("gamma", "blur", "noise", "window", "erase", "shape", "x", "y", "grey")
FIRST_DRAW = 64  # far behind the places of the draws of geometry and exposure
WINDOWS = 2**20
LONGEST_SIDE = 2.0  # of an erased box, over its shorter one


@dataclass(frozen=True)
class LookAugment:
    """Changes of look by magnitudes, each 0 = off, in this order; the result is clamped to [0, 1].

    Attributes:
        gamma: Pixels are raised to a power from 1 / (1 + gamma) to 1 + gamma, uniform in its logarithm.
        blur: Halvings of the resolution, uniform from 0 to this, parts of one included: the image is averaged down and
            brought up again, between two sizes by mixing both (mip maps, Williams 1983, doi:10.1145/800059.801126).
        noise: Standard deviation of white Gaussian noise, uniform from 0 to this; 1 is the range from black to white.
        erase: A box of one random grey covers a share of the area uniform from 0 to this; sides up to 1 : 2
            (DeVries and Taylor 2017, arXiv:1708.04552; Zhong et al. 2020, arXiv:1708.04896).
        seed: The run's seed.

    Raises:
        ConfigError: A magnitude is not a number in its range.
    """

    gamma: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_magnitudes(self, LIMITS)

    @property
    def is_identity(self) -> bool:
        """Whether every magnitude is zero."""
        return all(getattr(self, name) == 0 for name in LIMITS)

    def __call__(self, image: torch.Tensor, key: torch.Tensor, epoch: int) -> torch.Tensor:
        """Augment a batch.

        Args:
            image: (B, 1, H, W) float32 in [0, 1].
            key: (B,) int64 on any device.
            epoch: The epoch.

        Returns:
            The same shape, in [0, 1].
        """
        draws = self.draw(key.cpu().numpy(), epoch)
        if self.gamma > 0:
            image = image.clamp_min(0).pow(per_image((1 + self.gamma) ** draws["gamma"], image))
        if self.blur > 0:
            image = soften(image, _from_zero(draws["blur"]) * self.blur)
        if self.noise > 0:
            spread = per_image(_from_zero(draws["noise"]) * self.noise, image)
            image = torch.addcmul(image, spread, _noise(draws["window"], image))
        image = image.clamp(0, 1)
        if self.erase > 0:
            box = make_boxes(_from_zero(draws["erase"]) * self.erase, draws, image.shape[-2], image.shape[-1])
            image = torch.where(box.to(image.device), per_image(_from_zero(draws["grey"]), image), image)
        return image

    def draw(self, key: NDArray[np.int64], epoch: int) -> dict[str, Floats]:
        """The random numbers of each image: name -> (B,) uniform in [-1, 1)."""
        return draw_numbers(self.seed, epoch, key, DRAWS, FIRST_DRAW)


def soften(image: torch.Tensor, halvings: Floats) -> torch.Tensor:
    """Take each image's resolution down and its size up again.

    Args:
        image: (B, 1, H, W) float32.
        halvings: (B,) how often, 0 or more, parts included.
    """
    height, width = image.shape[-2:]
    softened = image
    for number in range(math.ceil(halvings.max())):
        size = (max(1, height >> (number + 1)), max(1, width >> (number + 1)))
        small = functional.interpolate(image, size, mode="area")
        coarse = functional.interpolate(small, (height, width), mode="bilinear")
        softened = torch.lerp(softened, coarse, per_image(np.clip(halvings - number, 0, 1), image))
    return softened


def make_boxes(area: Floats, draws: dict[str, Floats], height: int, width: int) -> torch.Tensor:
    """(B, 1, H, W) true inside a box that lies in the image.

    Args:
        area: (B,) the box's share of the image, below 1.
        draws: `shape` (how long against how wide), `x` and `y` (where), (B,) in [-1, 1).
        height: Of the images.
        width: Of the images.
    """
    ratio = LONGEST_SIDE ** (draws["shape"] / 2)
    tall, wide = np.minimum(np.sqrt(area) * ratio, 1), np.minimum(np.sqrt(area) / ratio, 1)
    rows = _span(tall, draws["y"], height)
    columns = _span(wide, draws["x"], width)
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)


def _span(share: Floats, place: Floats, length: int) -> torch.Tensor:
    """(B, length) true along `share` of a side, from a `place` in [-1, 1) between one end and the other."""
    long = np.rint(share * length)
    start = np.rint(_from_zero(place) * (length - long))
    pixels = np.arange(length)
    return torch.from_numpy((pixels >= start[:, None]) & (pixels < (start + long)[:, None]))


def _noise(place: Floats, image: torch.Tensor) -> torch.Tensor:
    """White noise for each image: a window, at a place in [-1, 1), of one long strip of Gaussian numbers."""
    pixels = image[0].numel()
    starts = torch.from_numpy((_from_zero(place) * WINDOWS).astype(np.int64)).to(image.device)
    return _strip(pixels, image.device).unfold(0, pixels, 1)[starts].reshape(image.shape)


@cache
def _strip(pixels: int, device: torch.device) -> torch.Tensor:
    """Made on the CPU, so that every device has the same."""
    return torch.randn(WINDOWS + pixels, generator=torch.Generator().manual_seed(0)).to(device)


def _from_zero(values: Floats) -> Floats:
    """[-1, 1) to [0, 1)."""
    return (values + 1) / 2
