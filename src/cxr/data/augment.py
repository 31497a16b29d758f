"""Random geometry and exposure, drawn for each image of a batch and done for all of them at once on their device.

Knows nothing of value ranges, nets or tables: images here are grey, from 0 (black) to 1 (white). A draw is a function
of (seed, epoch, key) alone, so it depends neither on the other images of the batch, nor on the device, nor on any
global random state, and a resumed run repeats it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cxr.data.draws import Floats, draw_numbers
from cxr.errors import ConfigError

log = logging.getLogger(__name__)

LIMITS = {  # magnitude -> (largest value, what it is)
    "rotation": (180.0, "degrees from 0 to 180"),
    "scale": (0.9, "a fraction from 0 to 0.9"),
    "shear": (80.0, "degrees from 0 to 80"),
    "translate": (1.0, "a fraction of the image size from 0 to 1"),
    "horizontal_flip": (1.0, "a probability from 0 to 1"),
    "vertical_flip": (1.0, "a probability from 0 to 1"),
    "brightness": (1.0, "a fraction from 0 to 1"),
    "contrast": (1.0, "a fraction from 0 to 1"),
}
DRAWS = ("rotation", "scale", "shear", "x", "y", "horizontal_flip", "vertical_flip", "brightness", "contrast")


@dataclass(frozen=True)
class AffineAugment:
    """Augmentation by magnitudes, each 0 = off.

    Geometry is one affine map about the image centre, rigid in pixels also where the image is not square, resampled
    bilinearly; what comes from outside the image is black. Exposure acts before it, with the definitions of
    torchvision's `adjust_brightness` and `adjust_contrast`, and clamps to [0, 1].

    Attributes:
        rotation: Degrees; the angle is uniform in ±rotation, positive turning clockwise on the screen.
        scale: Fraction; the factor is uniform in 1 ± scale.
        shear: Degrees; the angle by which columns lean is uniform in ±shear.
        translate: Fraction of width (x) and of height (y); each shift is uniform in ± that.
        horizontal_flip: Probability of swapping left and right.
        vertical_flip: Probability of swapping up and down.
        brightness: Fraction; pixels are multiplied by a factor uniform in 1 ± brightness.
        contrast: Fraction; the distance from the image mean is multiplied by a factor uniform in 1 ± contrast.
        seed: The run's seed.

    Raises:
        ConfigError: A magnitude is not a number in its range.
    """

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    translate: float = 0.0
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_magnitudes(self, LIMITS)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigError(f"expected augment.seed to be an integer, got {self.seed!r}")
        if self.horizontal_flip > 0:
            log.warning("augment.horizontal_flip=%g swaps the heart's side and the side marker", self.horizontal_flip)
        if self.vertical_flip > 0:
            log.warning("augment.vertical_flip=%g shows chests upside down, as no radiograph is", self.vertical_flip)

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
            (B, 1, H, W) float32 in [0, 1] on the device of `image`; `image` itself where there is nothing to do.
        """
        draws = self.draw(key.cpu().numpy(), epoch)
        if self.brightness > 0:
            image = (image * per_image(1 + draws["brightness"] * self.brightness, image)).clamp_(0, 1)
        if self.contrast > 0:
            mean = image.mean(dim=(1, 2, 3), keepdim=True)
            factor = per_image(1 + draws["contrast"] * self.contrast, image)
            image = torch.lerp(mean, image, factor).clamp_(0, 1)
        if self._moves:
            height, width = image.shape[-2:]
            image = _warp(image, self.matrices(draws, height, width))
        return image

    def draw(self, key: NDArray[np.int64], epoch: int) -> dict[str, Floats]:
        """The random numbers of each image: name -> (B,) uniform in [-1, 1)."""
        return draw_numbers(self.seed, epoch, key, DRAWS)

    def matrices(self, draws: dict[str, Floats], height: int, width: int) -> Floats:
        """(B, 2, 3) maps from a place in the image to its place in the augmented one: (x, y) in pixels from the centre.

        In this order: flips, scale, shear, rotation, shift.
        """
        angle = np.radians(draws["rotation"] * self.rotation)
        lean = np.tan(np.radians(draws["shear"] * self.shear))
        zoom = 1 + draws["scale"] * self.scale
        flip_x = np.where((draws["horizontal_flip"] + 1) / 2 < self.horizontal_flip, -zoom, zoom)
        flip_y = np.where((draws["vertical_flip"] + 1) / 2 < self.vertical_flip, -zoom, zoom)
        cos, sin = np.cos(angle), np.sin(angle)
        x, y = draws["x"] * self.translate * width, draws["y"] * self.translate * height
        rows = [
            [cos * flip_x, (cos * lean - sin) * flip_y, x],
            [sin * flip_x, (sin * lean + cos) * flip_y, y],
        ]
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    @property
    def _moves(self) -> bool:
        return any(getattr(self, name) > 0 for name in LIMITS if name not in ("brightness", "contrast"))


def check_magnitudes(augment: object, limits: Mapping[str, tuple[float, str]]) -> None:
    """Raise ConfigError when an attribute is not a number from 0 to its largest value.

    Args:
        augment: What has the attributes.
        limits: Attribute -> (largest value, what it is in words).
    """
    for name, (largest, meaning) in limits.items():
        value = getattr(augment, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest:
            raise ConfigError(f"expected augment.{name} to be {meaning}, got {value!r}")


def per_image(values: Floats, image: torch.Tensor) -> torch.Tensor:
    """(B,) numbers as (B, 1, 1, 1) float32 beside the images that they belong to."""
    return torch.from_numpy(values.astype(np.float32)).to(image.device).reshape(-1, 1, 1, 1)


def _warp(image: torch.Tensor, matrices: Floats) -> torch.Tensor:
    """Move each image by its map, resampled bilinearly, with black from outside."""
    height, width = image.shape[-2:]
    inverse = np.linalg.inv(matrices[:, :, :2])
    shift = -inverse @ matrices[:, :, 2:]
    half = np.array([width / 2, height / 2])  # the sampler's coordinates go from -1 to 1 between the outer edges
    theta = np.concatenate([inverse * half / half[:, None], shift / half[:, None]], axis=2).astype(np.float32)
    grid = _make_grid(torch.from_numpy(theta).to(image.device), height, width)
    return torch.nn.functional.grid_sample(image, grid, padding_mode="zeros", align_corners=False)


def _make_grid(theta: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B, 2, 3) -> (B, H, W, 2) as `affine_grid`, but without its matrix product, which autocast and TF32 coarsen."""
    x = (torch.arange(width, device=theta.device) * 2 + 1) / width - 1
    y = (torch.arange(height, device=theta.device) * 2 + 1) / height - 1
    along_x, along_y, shift = (column.unsqueeze(1) for column in theta.unbind(2))
    return (along_x * x[:, None]).unsqueeze(1) + (along_y * y[:, None] + shift).unsqueeze(2)
