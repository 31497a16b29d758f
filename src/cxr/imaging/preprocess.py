"""The one preprocessing: pixels of any image to what a net takes. The same for the cache, training, export and serving.

Knows nothing of files, torch or augmentation. `Preprocess.store` is what a cache holds; `Preprocess.finish` is the
cheap rest, the same scale and offset that a device can apply to a whole batch. `InputContract` is the net's side.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cxr.errors import ConfigError, ImageError
from cxr.imaging.checks import check_choice, check_count, check_range, to_sides, to_statistics
from cxr.imaging.normalize import NORMALIZERS
from cxr.imaging.resize import ASPECTS, Boxes, boxes_to_size, fit_to_size

Floats = npt.NDArray[np.float32]
Stored = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
PerChannel = tuple[float, ...]

STORE_VERSION = 2
"""Raised whenever reading or storing a file gives other values for the same settings, so that no old cache is read."""
FROM_WEIGHTS = "weights"
_WHITE = {"uint8": 2**8 - 1, "uint16": 2**16 - 1}
_TOLERANCE = 1e-5
_STORED_FIELDS = ("size", "normalizer", "aspect", "precision")


@dataclass(frozen=True)
class Preprocess:
    """Pixels in [0, 1] to the input of a net.

    Attributes:
        size: Output (H, W) in pixels.
        channels: Equal copies of the image along the channel axis.
        normalizer: Name in `cxr.imaging.normalize.NORMALIZERS`, applied at full resolution.
        aspect: One of `cxr.imaging.resize.ASPECTS`.
        precision: Type of the stored image.
        low: Value of black before `mean` and `std`.
        high: Value of white before `mean` and `std`.
        mean: Per channel, subtracted after `low` and `high`; "weights" takes it from the net's InputContract.
        std: Per channel, divided by after `mean`; "weights" takes it from the net's InputContract.

    Raises:
        ConfigError: If a value cannot be used.
    """

    size: tuple[int, int] = (224, 224)
    channels: int = 1
    normalizer: str = "minmax"
    aspect: str = "pad"
    precision: str = "uint8"
    low: float = 0.0
    high: float = 1.0
    mean: PerChannel | Literal["weights"] | None = None
    std: PerChannel | Literal["weights"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", to_sides("preprocess.size", self.size))
        check_count("preprocess.channels", self.channels)
        check_choice("preprocess.normalizer", self.normalizer, tuple(NORMALIZERS))
        check_choice("preprocess.aspect", self.aspect, ASPECTS)
        check_choice("preprocess.precision", self.precision, tuple(_WHITE))
        check_range("preprocess.low", self.low, "preprocess.high", self.high)
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and value != FROM_WEIGHTS:
                object.__setattr__(self, name, to_statistics(f"preprocess.{name}", value, self.channels, name == "std"))

    def __call__(self, pixels: Floats) -> Floats:
        """(H, W) float32 in [0, 1] to (C, h, w) float32: `finish` of `store`."""
        return self.finish(self.store(pixels))

    def store(self, pixels: Floats) -> Stored:
        """Normalise, resize and quantise: the part that is worth keeping.

        Args:
            pixels: (H, W) float32 in [0, 1], of any size.

        Returns:
            (h, w) uint8 or uint16, black 0, white the type's maximum.

        Raises:
            ImageError: If `pixels` is not an (H, W) image with finite values in [0, 1].
        """
        _check_pixels(pixels)
        full = NORMALIZERS[self.normalizer](np.ascontiguousarray(pixels, dtype=np.float32))
        small = fit_to_size(full, self.size, self.aspect)
        return np.rint(np.clip(small, 0, 1) * np.float32(self._white)).astype(self.precision)

    def store_all(self, images: Sequence[Floats]) -> Stored:
        """(N, h, w) what `store` makes of at least one image, of any sizes."""
        return np.array([self.store(image) for image in images], dtype=self.precision)

    def place_boxes(self, boxes: npt.ArrayLike, shape: tuple[int, int]) -> Boxes:
        """Where boxes (M, 4) on an image of `shape` lie in what `store` makes of it, see `boxes_to_size`."""
        return boxes_to_size(boxes, shape, self.size, self.aspect)

    def finish(self, stored: Stored) -> Floats:
        """Scale stored images to the net's range: ``stored * scale + offset`` per channel.

        Args:
            stored: (..., h, w) of the type that `store` gives.

        Returns:
            (..., C, h, w) float32.

        Raises:
            ImageError: If `stored` has another type, whose white is another number.
        """
        if stored.dtype != self.precision:
            raise ImageError(
                f"expected stored images of type {self.precision}, but got {stored.dtype}; "
                "rebuild the cache with this preprocessing"
            )
        scale, offset = (values[:, None, None] for values in self.scale_offset)
        return stored[..., None, :, :] * scale + offset

    @property
    def scale_offset(self) -> tuple[Floats, Floats]:
        """Scale and offset, (C,) float32 each, so that ``finish(x) == x * scale + offset``.

        Raises:
            ConfigError: If `mean` or `std` is still to be taken from the weights.
        """
        if FROM_WEIGHTS in (self.mean, self.std):
            raise ConfigError(
                'expected numbers in preprocess.mean and preprocess.std, but got "weights"; '
                "complete the preprocessing with the net's input contract first"
            )
        mean = np.zeros(self.channels) if self.mean is None else np.asarray(self.mean, dtype=np.float64)
        std = np.ones(self.channels) if self.std is None else np.asarray(self.std, dtype=np.float64)
        scale = (self.high - self.low) / self._white / std
        return scale.astype(np.float32), ((self.low - mean) / std).astype(np.float32)

    @property
    def black(self) -> Floats:
        """(C,) float32: the finished value of stored 0, with which augmentation fills what it uncovers."""
        return self.scale_offset[1]

    @property
    def stored_fingerprint(self) -> str:
        """Hash of everything that changes what is stored of a file; 16 hexadecimal digits."""
        settings = {name: getattr(self, name) for name in _STORED_FIELDS}
        text = json.dumps({**settings, "version": STORE_VERSION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values, for `from_dict`."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Preprocess":
        """The preprocessing of `to_dict`; absent settings take their defaults.

        Raises:
            ConfigError: If a setting is unknown or cannot be used.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ConfigError(f"expected preprocess settings among {known}, but got {unknown}; remove them")
        return cls(**settings)

    @property
    def _white(self) -> int:
        return _WHITE[self.precision]


@dataclass(frozen=True)
class InputContract:
    """What a net expects of its input.

    Attributes:
        channels: Number of channels.
        size: (H, W) in pixels; None takes any.
        size_multiple: Both sides are multiples of this.
        low: Value of black before `mean` and `std`.
        high: Value of white before `mean` and `std`.
        mean: Per channel; None subtracts nothing.
        std: Per channel; None divides by nothing.
    """

    channels: int
    size: tuple[int, int] | None = None
    size_multiple: int = 1
    low: float = 0.0
    high: float = 1.0
    mean: PerChannel | None = None
    std: PerChannel | None = None

    def complete(self, preprocess: Preprocess) -> Preprocess:
        """`preprocess` with every "weights" of its mean and std replaced by this contract's numbers."""
        taken = {name: getattr(self, name) for name in ("mean", "std") if getattr(preprocess, name) == FROM_WEIGHTS}
        return replace(preprocess, **taken)

    def check(self, preprocess: Preprocess, net_name: str) -> None:
        """Refuse a preprocessing that gives the net another input than it expects.

        Args:
            preprocess: Completed preprocessing.
            net_name: Name of the net, for the message.

        Raises:
            ConfigError: Naming what is expected, what came, and the preprocess config to choose.
        """
        expected = {name: getattr(self, name) for name in ("channels", "size", "low", "high", "mean", "std")}
        wrong = [name for name, value in expected.items() if not self._agrees(name, value, getattr(preprocess, name))]
        if wrong:
            wanted = ", ".join(f"{name}={_plain(expected[name])}" for name in wrong)
            got = ", ".join(f"{name}={_plain(getattr(preprocess, name))}" for name in wrong)
            overrides = " ".join(f"preprocess.{name}={_plain(expected[name])}" for name in wrong).replace(", ", ",")
            raise ConfigError(
                f"{net_name} expects {wanted}, but the preprocessing gives {got}; "
                f"choose preprocess={self._config_name} or set {overrides}"
            )
        if any(side % self.size_multiple for side in preprocess.size):
            raise ConfigError(
                f"{net_name} expects sides that are multiples of {self.size_multiple}, but the preprocessing gives "
                f"size={list(preprocess.size)}; choose preprocess={self._config_name} or set such a preprocess.size"
            )

    @staticmethod
    def _agrees(name: str, expected: Any, got: Any) -> bool:
        if name == "size" and expected is None:
            return True
        if expected is None or got is None or FROM_WEIGHTS in (expected, got):
            return expected is got
        return np.shape(expected) == np.shape(got) and np.allclose(expected, got)

    @property
    def _config_name(self) -> str:
        if (self.low, self.high) == (-1024, 1024):
            return "xrv_224"
        return "unit_224" if self.mean is None else "imagenet_224"


def _check_pixels(pixels: Floats) -> None:
    if pixels.ndim != 2 or pixels.size == 0:
        raise ImageError(f"expected an image of shape (H, W), but got {pixels.shape}; read it with read_pixels")
    low, high = pixels.min(), pixels.max()
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise ImageError(f"expected pixels in [0, 1], but got {low:g} to {high:g}; read the image with read_pixels")


def _plain(value: Any) -> str:
    return "null" if value is None else str(list(value) if isinstance(value, tuple) else value)
