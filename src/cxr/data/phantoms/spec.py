"""The settings of a phantom cohort, checked. Knows nothing of how studies are laid out, drawn or written."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from cxr.data.phantoms.findings import CLASS_NAMES
from cxr.errors import ConfigError

ENCODINGS = ("explicit", "implicit", "rle", "jpeg2000", "jpegls")
PHOTOMETRICS = ("MONOCHROME2", "MONOCHROME1")
VOIS = ("none", "window", "sigmoid", "lut")
BITS = (10, 12, 16)
_SHARES = (
    *("invisible", "faint", "plain", "ap", "repeat_patients"),
    *("second_images", "exact_duplicates", "near_duplicates", "missing_views"),
)


@dataclass(frozen=True)
class CohortSpec:
    """A synthetic cohort; the same spec gives the same bytes on one machine and set of libraries.

    Every share above 0 gives at least one study; 0 switches the trait off.

    Attributes:
        studies: Number of studies.
        size: Rows and columns of every image.
        seed: Of everything.
        prevalence: Share of each of CLASS_NAMES; the default is that of SIIM's training studies.
        invisible: Share of the positive studies in which nothing is drawn; it bounds the best achievable AUROC.
        faint: Share of the positive studies with visibilities from 0 to FAINT, which no reader would see.
        plain: Least visibility of the other positive studies; they spread evenly from there to 1.
        ap: Share of frontal images that are anteroposterior.
        repeat_patients: Share of studies of a patient who has an earlier study.
        second_images: Share of studies with a second image: a lateral or another frontal, in turn.
        exact_duplicates: Share of studies whose image is a byte-for-byte copy of another study's.
        near_duplicates: Share of studies that show another study's exposure, developed and encoded anew under another
            patient id.
        missing_views: Share of images without ViewPosition.
        confounded_source: Whether all positive studies come from the site whose marker differs.
        encodings: Transfer syntaxes in turn, of ENCODINGS.
        bits_stored: Bits per pixel in turn, of BITS.
        photometrics: Photometric interpretations in turn, of PHOTOMETRICS.
        vois: Values-of-interest transformations in turn, of VOIS.
        rescale: Whether every other image has a rescale slope and intercept; those with a lookup table have none.
    """

    studies: int = 300
    size: int = 512
    seed: int = 0
    prevalence: tuple[float, ...] = (0.277, 0.472, 0.173, 0.078)
    invisible: float = 0.07
    faint: float = 0.03
    plain: float = 0.55
    ap: float = 0.3
    repeat_patients: float = 0.15
    second_images: float = 0.08
    exact_duplicates: float = 0.01
    near_duplicates: float = 0.01
    missing_views: float = 0.12
    confounded_source: bool = False
    encodings: tuple[str, ...] = ENCODINGS
    bits_stored: tuple[int, ...] = BITS
    photometrics: tuple[str, ...] = PHOTOMETRICS
    vois: tuple[str, ...] = VOIS
    rescale: bool = True

    def __post_init__(self) -> None:
        if self.studies < 1 or self.size < 32 or self.seed < 0:
            raise ConfigError(
                "expected studies >= 1, size >= 32 and seed >= 0, but got "
                f"studies={self.studies}, size={self.size}, seed={self.seed}; correct the phantom cohort"
            )
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"expected {name} between 0 and 1, but got {getattr(self, name)}; give it as a share")
        if len(self.prevalence) != len(CLASS_NAMES) or min(self.prevalence) < 0 or sum(self.prevalence) <= 0:
            raise ConfigError(
                f"expected prevalence as {len(CLASS_NAMES)} shares, but got {self.prevalence}; give one for each of "
                f"{', '.join(CLASS_NAMES)}"
            )
        for name, known in (("encodings", ENCODINGS), ("photometrics", PHOTOMETRICS), ("vois", VOIS)):
            _check_known(name, getattr(self, name), known)
        _check_known("bits_stored", self.bits_stored, BITS)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CohortSpec":
        """The inverse of `to_dict`; ConfigError for an unknown name."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigError(f"expected settings of CohortSpec, but got {unknown}; remove or correct them")
        plain: dict[str, Any] = {
            name: tuple(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for name, v in values.items()
        }
        return cls(**plain)


def _check_known(name: str, values: Sequence[object], known: Sequence[object]) -> None:
    if not values or not set(values) <= set(known):
        raise ConfigError(f"expected {name} out of {list(known)}, but got {list(values)}; name at least one of them")
