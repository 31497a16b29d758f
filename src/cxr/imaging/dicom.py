"""DICOM files to pixels. Knows nothing of preprocessing, cohorts or networks; it never writes."""

import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.pixels.utils import get_nr_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from cxr.imaging import dicom_jpeg12
from cxr.imaging.codestream import read_codestream
from cxr.imaging.dicom_display import make_rendering
from cxr.imaging.dicom_file import read_data_set, without_pydicom_words
from cxr.imaging.dicom_header import DicomHeader, read_dicom_header
from cxr.imaging.guard import check_size, image_error, image_errors, reason
from cxr.imaging.intensity import Array, Pixels

__all__ = ["DicomHeader", "read_dicom", "read_dicom_header"]

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
UNCOMPRESSED = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
WITH_FRAME_HEADER = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
KNOWN = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", *COLOURS)

dicom_jpeg12.install()


def read_dicom(path: Path | str) -> Pixels:
    """Read the first frame of a DICOM file as brightness, bright = dense.

    In the order of the standard (PS3.3 C.11, PS3.4 N.2): modality LUT or rescale, then VOI LUT or the first window
    (LINEAR, LINEAR_EXACT, SIGMOID), then MONOCHROME1 is inverted. Without a usable window the image is scaled by the
    no-window rule of `cxr.imaging.intensity.Rendering`. Colour becomes luminance (ITU-R BT.601), without
    stretching. Pixels of the Pixel Padding Value are black. Presentation LUT Shape is not read: in DX files it only
    repeats MONOCHROME1. Stored bits may end at any High Bit (PS3.5 8.1.1).

    Args:
        path: The file; a missing preamble or file meta is accepted where the pixels are uncompressed.

    Returns:
        (H, W) float32 in [0, 1].

    Warns:
        UserWarning: If there is more than one frame, or the window is invalid or would hide the image.

    Raises:
        ImageError: If the file gives no image.
    """
    dataset = read_data_set(path)
    with without_pydicom_words():
        frames = _check(path, dataset)
        image, voi_ignored = _show(path, _decode(path, dataset), dataset)
    if voi_ignored:
        warnings.warn(f"{path}: the window or VOI LUT does not fit the pixel values and is ignored", stacklevel=2)
    if frames > 1:
        warnings.warn(f"{path}: the file has {frames} frames; only the first is read", stacklevel=2)
    return image


def _check(path: Path | str, dataset: Dataset) -> int:
    """Refuse what cannot be decoded, complete the transfer syntax, and return the number of frames."""
    with image_errors(path, "a DICOM file"):
        _check_image(path, dataset)
        _complete_transfer_syntax(path, dataset)
        _check_codestream(path, dataset)
        return int(get_nr_frames(dataset))


def _check_image(path: Path | str, dataset: Dataset) -> None:
    if not any(keyword in dataset for keyword in PIXEL_KEYWORDS):
        modality = dataset.get("Modality")
        raise image_error(
            path,
            f"expected a DICOM image, but the file has no pixel data (modality {modality}); "
            "export the file again or leave it out",
        )
    check_size(path, dataset.get("Rows"), dataset.get("Columns"))
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in KNOWN:
        raise image_error(
            path,
            f"expected a photometric interpretation among {', '.join(KNOWN)}, but got {photometric}; "
            "export the file as MONOCHROME2 or RGB",
        )


def _complete_transfer_syntax(path: Path | str, dataset: Dataset) -> None:
    """Name the transfer syntax of a file without file meta, as pydicom recognised it from the first element."""
    named = dataset.file_meta.get("TransferSyntaxUID")
    if isinstance(named, UID) and named:
        return
    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
        raise image_error(
            path,
            "expected a transfer syntax, since the pixel data is compressed, but the file names none; "
            "export the file again with its file meta information",
        )
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _check_codestream(path: Path | str, dataset: Dataset) -> None:
    """Refuse a first frame that is not what the header declares: on such frames GDCM can end the process."""
    if dataset.file_meta.TransferSyntaxUID not in WITH_FRAME_HEADER:
        return
    frame = read_codestream(get_frame(dataset.PixelData, 0, number_of_frames=get_nr_frames(dataset)))
    if frame is None:
        raise image_error(
            path,
            f"expected {dataset.file_meta.TransferSyntaxUID.name} pixels, but they begin without a sound frame header; "
            "export the file again or leave it out",
        )
    declared = (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
    found = (frame.rows, frame.columns, frame.components)
    if found != declared or frame.precision > dataset.BitsAllocated:
        raise image_error(
            path,
            f"expected compressed pixels of {' x '.join(map(str, declared))} samples in at most "
            f"{dataset.BitsAllocated} bits, but got {' x '.join(map(str, found))} of {frame.precision} bits; "
            "export the file again or leave it out",
        )
    if _unused_low_bits(dataset) and frame.precision > dataset.BitsStored:
        raise image_error(
            path,
            f"expected compressed pixels whose High Bit is Bits Stored - 1, but got High Bit {dataset.HighBit} with "
            f"{dataset.BitsStored} bits stored, which decoders take in different ways; "
            "export the file again, with uncompressed pixels",
        )
    _check_jpeg_bits(path, dataset)


def _check_jpeg_bits(path: Path | str, dataset: Dataset) -> None:
    """Refuse containers of JPEG samples on which GDCM ends the process."""
    allocated, stored = dataset.BitsAllocated, dataset.BitsStored
    if dataset.file_meta.TransferSyntaxUID in JPEGTransferSyntaxes and not (
        allocated == 16 or allocated == stored == 8
    ):
        raise image_error(
            path,
            f"expected JPEG pixels of 8 bits in 8 or of up to 16 in 16, but got {stored} bits in {allocated}; "
            "export the file again or leave it out",
        )


def _decode(path: Path | str, dataset: Dataset) -> Array:
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        below = 0 if syntax in WITH_FRAME_HEADER else _unused_low_bits(dataset)
        if not below:
            return pixel_array(dataset, index=0)
        return pixel_array(dataset, index=0, bits_stored=dataset.BitsStored + below) >> below
    except Exception as error:  # the codecs raise any type on damaged data
        remedy = (
            "transcode it, for example with 'dcmdjpeg in.dcm out.dcm' or 'gdcmconv --raw in.dcm out.dcm'"
            if syntax not in UNCOMPRESSED
            else "export the file again or leave it out"
        )
        raise image_error(
            path,
            f"expected decodable pixel data, but the transfer syntax {syntax.name} ({syntax}) gave "
            f"{_first_cause(error)}; {remedy}",
        ) from error


def _unused_low_bits(dataset: Dataset) -> int:
    """How many bits lie below the stored ones (PS3.5 8.1.1); 0 where High Bit is not a place that they can have."""
    high, stored = dataset.get("HighBit"), dataset.get("BitsStored")
    if not isinstance(high, int) or not isinstance(stored, int) or not stored <= high < dataset.BitsAllocated:
        return 0
    return high + 1 - stored


def _first_cause(error: Exception) -> str:
    """What the first codec said: pydicom lists one line per codec under a headline."""
    lines = str(error).splitlines()
    return lines[1].strip()[:200] if len(lines) > 1 else reason(error)


def _show(path: Path | str, pixels: Array, dataset: Dataset) -> tuple[Pixels, bool]:
    """Brightness, and whether a VOI transform was left out because it does not fit."""
    with image_errors(path, "a DICOM image with valid display elements"):
        colour = _to_colour(pixels, dataset)
        return (_luminance(*colour), False) if colour is not None else _render(pixels, dataset)


def _to_colour(pixels: Array, dataset: Dataset) -> tuple[Array, int] | None:
    """(H, W, 3) red, green, blue and their number of bits; None for a monochrome image."""
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        return pixels, 8 * pixels.dtype.itemsize
    return (pixels, int(dataset.BitsStored)) if pixels.ndim == 3 else None


def _luminance(colour: Array, bits: int) -> Pixels:
    native = np.ascontiguousarray(colour[..., :3], dtype=colour.dtype.newbyteorder("="))
    grey = cv2.cvtColor(native, cv2.COLOR_RGB2GRAY)
    return np.clip(grey / np.float32(2**bits - 1), 0, 1, dtype=np.float32)


def _render(pixels: Array, dataset: Dataset) -> tuple[Pixels, bool]:
    """Brightness, and whether a VOI transform was left out because it does not fit."""
    rendering = make_rendering(dataset, pixels)
    unusable = rendering.voi_is_unusable(pixels)
    return replace(rendering, voi=None if unusable else rendering.voi).render(pixels), unusable
