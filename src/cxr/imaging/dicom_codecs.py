"""Which compressed DICOM images this installation can decode. Knows nothing of files."""

from pydicom.pixels import get_decoder
from pydicom.uid import UID, AllTransferSyntaxes

FAMILIES = {
    "uncompressed": ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"),
    "RLE": ("1.2.840.10008.1.2.5",),
    "JPEG Baseline": ("1.2.840.10008.1.2.4.50",),
    "JPEG Extended": ("1.2.840.10008.1.2.4.51",),
    "JPEG Lossless": ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),
    "JPEG 2000": ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
    "High-Throughput JPEG 2000": ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"),
}
"""Image codecs and their transfer syntaxes (DICOM PS3.5 section 10, PS3.6 table A-1)."""


def available_decoders() -> dict[str, bool]:
    """Each codec of `FAMILIES`, and whether all its transfer syntaxes can be decoded."""
    return {name: all(_can_decode(syntax) for syntax in syntaxes) for name, syntaxes in FAMILIES.items()}


def _can_decode(syntax: str) -> bool:
    return UID(syntax) in AllTransferSyntaxes and bool(get_decoder(UID(syntax)).is_available)
