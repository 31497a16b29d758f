"""Every bit depth x photometric interpretation x display element x transfer syntax, read in two independent ways.

The first reference knows the stored values before they are encoded and shows them by pydicom's functions in the order
of the standard (PS3.3 C.11, PS3.4 N.2). The second is dcmtk's `dcmj2pnm`, where it is installed.
"""

import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr.errors import ImageError
from cxr.imaging.dicom import read_dicom

from .dicom_files import LOSSLESS, LOSSY, TWELVE_BIT, TWELVE_BIT_JPEG, make_dataset, make_lut, save, save_encoded

KINDS = {
    "u8": (8, "u1"), "u10": (10, "u2"), "u12": (12, "u2"), "u15": (15, "u2"), "u16": (16, "u2"),
    "s8": (8, "i1"), "s10": (10, "i2"), "s12": (12, "i2"), "s15": (15, "i2"), "s16": (16, "i2"),
}  # fmt: skip
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2")
DISPLAYS = ("none", "window", "voi_lut", "modality_lut", "rescale", "rescale+window", "modality_lut+voi_lut")
CASES = list(itertools.product(KINDS, PHOTOMETRIC, DISPLAYS))
NAMES = {UID(syntax).keyword: syntax for syntax in (*LOSSLESS, *LOSSY)}
pytestmark = pytest.mark.filterwarnings("ignore:Applying a VOI LUT on a float input array:UserWarning")
CURVE = 1000
"""Number of entries of a look-up table."""
A_LEVEL = 1 / 255


def ramp(bits: int, dtype: str) -> np.ndarray:
    """(40, 50) every part of the range that `bits` can hold, its ends included."""
    low = -(2 ** (bits - 1)) if dtype.startswith("i") else 0
    return np.rint(np.linspace(low, low + 2**bits - 1, 2000)).astype(dtype).reshape(40, 50)


def elements(display: str, bits: int, signed: bool) -> dict:
    """The display elements, made for stored values of the whole range."""
    low, span = (-(2 ** (bits - 1)) if signed else 0), 2**bits
    entries = min(CURVE, span)
    modality = make_lut(np.rint(65535 * np.linspace(0, 1, entries) ** 2), low, 16)
    voi = make_lut(np.rint(65535 * np.linspace(0, 1, entries) ** 0.5), low, 16)
    window = {"WindowCenter": int(low + 0.45 * span), "WindowWidth": int(0.6 * span)}
    return {
        "none": {},
        "window": window,
        "voi_lut": {"VOILUTSequence": [voi], **window},  # the table goes before the window
        "modality_lut": {"ModalityLUTSequence": [modality]},
        "rescale": {"RescaleSlope": -2, "RescaleIntercept": 100, "RescaleType": "US"},
        "rescale+window": {
            "RescaleSlope": 0.5, "RescaleIntercept": -10, "RescaleType": "US",
            "WindowCenter": int(0.5 * (low + 0.5 * span)), "WindowWidth": int(0.4 * span),
        },
        "modality_lut+voi_lut": {
            "ModalityLUTSequence": [make_lut(np.rint(32000 * np.linspace(0, 1, entries) ** 2), low, 16)],
            "VOILUTSequence": [make_lut(np.rint(65535 * np.linspace(1, 0, 32001) ** 2), 0, 16)],
        },
    }[display]  # fmt: skip


def shown_by_pydicom(stored: np.ndarray, path: Path) -> np.ndarray:
    """Brightness of the stored values by pydicom's functions; the range is that of the last step.

    They get wide integers, because in 8 or 16 signed bits pydicom's index into a table overflows.
    """
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    values = apply_modality_lut(stored.astype(np.int64), dataset)
    bits, low = dataset.BitsStored, -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
    if "VOILUTSequence" in dataset:
        low, high = 0, 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "ModalityLUTSequence" in dataset:
        low, high = 0, 2 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    else:
        low, high = np.sort(apply_modality_lut(np.array([low, low + 2**bits - 1]), dataset))
    if values.dtype.kind == "u":
        values = values.astype(np.int64)
    unit = (apply_voi_lut(values, dataset).astype(np.float64) - low) / (high - low)
    return 1 - unit if dataset.PhotometricInterpretation == "MONOCHROME1" else unit


def write(path: Path, kind: str, photometric: str, display: str, syntax: str) -> tuple[Path, np.ndarray]:
    bits, dtype = KINDS[kind]
    stored = ramp(bits, dtype)
    shown_with = elements(display, bits, dtype.startswith("i"))
    return save(path, make_dataset(stored, bits, photometric, **shown_with), stored, syntax), stored


@pytest.mark.parametrize("name", [name for name, syntax in NAMES.items() if syntax in LOSSLESS])
@pytest.mark.parametrize(("kind", "photometric", "display"), CASES, ids=map("-".join, CASES))
def test_table(tmp_path, kind, photometric, display, name):
    path, stored = write(tmp_path / "image.dcm", kind, photometric, display, NAMES[name])
    assert pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == NAMES[name]
    pixels = read_dicom(path)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, shown_by_pydicom(stored, path), atol=1e-6)


PLACES = {
    "u12 to 15": ("u12", 15), "u12 to 13": ("u12", 13), "u10 to 15": ("u10", 15),
    "s12 to 15": ("s12", 15), "s10 to 12": ("s10", 12),
}  # fmt: skip
"""Kinds of pixels in 16 bits, each with a High Bit above the usual one."""


def surround(stored: np.ndarray, bits: int, high: int, filler: int) -> np.ndarray:
    """The same pixels in bits that end at `high`, with all other bits set if `filler` is 1."""
    below, mask = high + 1 - bits, 2**bits - 1
    cells = (stored.astype(np.int64) & mask) << below | filler * (0xFFFF ^ mask << below)
    return cells.astype(np.uint16).view(stored.dtype)


def write_high(path: Path, place: str, photometric: str, display: str, filler: int) -> tuple[Path, np.ndarray]:
    kind, high = PLACES[place]
    bits, dtype = KINDS[kind]
    stored = ramp(bits, dtype)
    cells = surround(stored, bits, high, filler)
    dataset = make_dataset(cells, bits, photometric, HighBit=high, **elements(display, bits, dtype.startswith("i")))
    return save(path, dataset, cells), stored


HIGH_CASES = list(itertools.product(PLACES, PHOTOMETRIC, DISPLAYS, [0, 1]))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=["native", "RLE"])
@pytest.mark.parametrize(("place", "photometric", "display", "filler"), HIGH_CASES)
def test_table_of_pixels_that_do_not_end_at_the_lowest_bit(tmp_path, place, photometric, display, filler, syntax):
    path, stored = write_high(tmp_path / "image.dcm", place, photometric, display, filler)
    if syntax == RLELossless:
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
        dataset.save_as(path)
    np.testing.assert_allclose(read_dicom(path), shown_by_pydicom(stored, path), atol=1e-6)


@pytest.mark.parametrize(("bits", "high"), [(8, 15), (16, 11), (12, 16), (12, 0)])
def test_high_bit_where_no_pixel_can_end_is_not_heeded(tmp_path, bits, high):
    stored = ramp(bits, "u1" if bits == 8 else "u2")
    path = save(tmp_path / "image.dcm", make_dataset(stored, bits, HighBit=high), stored)
    np.testing.assert_allclose(read_dicom(path), stored / (2**bits - 1), atol=1e-6)


def test_high_bit_of_a_codestream_that_holds_the_stored_bits_alone_is_not_heeded(tmp_path):
    stored = ramp(12, "u2")
    path, dataset = tmp_path / "image.dcm", make_dataset(stored, 12)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    dataset.HighBit = 15
    dataset.save_as(path, enforce_file_format=True)
    np.testing.assert_allclose(read_dicom(path), stored / 4095, atol=1e-6)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_high_bit_of_a_codestream_with_other_bits_is_refused(tmp_path, syntax):
    stored = ramp(12, "u2") << 4
    path = save(tmp_path / "image.dcm", make_dataset(stored), stored, syntax)
    dataset = pydicom.dcmread(path)
    dataset.BitsStored = 12
    dataset.save_as(path)
    message = r"High Bit is Bits Stored - 1, but got High Bit 15 with 12 bits stored, .*; export .* with uncompressed"
    with pytest.raises(ImageError, match=message):
        read_dicom(path)


LOSSY_CASES = [case for case in CASES if case[0] == "u8"]


@pytest.mark.parametrize("name", [name for name, syntax in NAMES.items() if syntax in LOSSY])
@pytest.mark.parametrize(("kind", "photometric", "display"), LOSSY_CASES, ids=map("-".join, LOSSY_CASES))
def test_lossy_table(tmp_path, kind, photometric, display, name):
    path, stored = write(tmp_path / "image.dcm", kind, photometric, display, NAMES[name])
    steepest = 12 if "lut" in display else 2
    np.testing.assert_allclose(read_dicom(path), shown_by_pydicom(stored, path), atol=steepest * A_LEVEL)


@pytest.mark.parametrize("photometric", PHOTOMETRIC)
def test_twelve_bit_jpeg(tmp_path, photometric):
    dataset = make_dataset(TWELVE_BIT, 12, photometric, WindowCenter=2025, WindowWidth=4051)
    path = save_encoded(tmp_path / "extended.dcm", dataset, TWELVE_BIT_JPEG, JPEGExtended12Bit)
    np.testing.assert_allclose(read_dicom(path), shown_by_pydicom(TWELVE_BIT, path), atol=1.01 / 4050)


NOT_IN_DCMTK = (JPEGLSLossless, JPEG2000Lossless)
needs_dcmtk = pytest.mark.skipif(shutil.which("dcmj2pnm") is None, reason="dcmtk's dcmj2pnm is not installed")


def shown_by_dcmtk(path: Path, display: str) -> np.ndarray:
    """Brightness by dcmj2pnm in 16 bits.

    It rounds modality units to integers and, without a VOI transform, divides by 2**bits instead of 2**bits - 1: both
    amount to less than 1.3 / 2**bits.
    """
    voi = ["+Wl", "1"] if "voi_lut" in display else ["+Wi", "1"] if "window" in display else ["-W"]
    picture = path.with_suffix(".pgm")
    subprocess.run(["dcmj2pnm", *voi, "+opw", path, picture], check=True, capture_output=True)
    words = [word for line in picture.read_text().splitlines() if not line.startswith("#") for word in line.split()]
    columns, rows, top = map(int, words[1:4])
    return np.array(words[4:], dtype=np.float64).reshape(rows, columns) / top


@needs_dcmtk
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name == "ExplicitVRLittleEndian" else pytest.mark.slow)
    for name, syntax in NAMES.items()
    if syntax not in (*NOT_IN_DCMTK, *LOSSY)
])  # fmt: skip
@pytest.mark.parametrize(("kind", "photometric", "display"), CASES, ids=map("-".join, CASES))
def test_table_agrees_with_dcmtk(tmp_path, kind, photometric, display, name):
    path, _ = write(tmp_path / "image.dcm", kind, photometric, display, NAMES[name])
    expected = shown_by_dcmtk(path, display)
    np.testing.assert_allclose(read_dicom(path), expected, atol=1e-4 + 1.3 / 2 ** KINDS[kind][0])


@needs_dcmtk
@pytest.mark.parametrize(("place", "photometric", "display", "filler"), HIGH_CASES)
def test_pixels_that_do_not_end_at_the_lowest_bit_agree_with_dcmtk(tmp_path, place, photometric, display, filler):
    path, _ = write_high(tmp_path / "image.dcm", place, photometric, display, filler)
    bits = KINDS[PLACES[place][0]][0]
    np.testing.assert_allclose(read_dicom(path), shown_by_dcmtk(path, display), atol=1e-4 + 1.3 / 2**bits)


@needs_dcmtk
@pytest.mark.parametrize("photometric", PHOTOMETRIC)
def test_twelve_bit_jpeg_agrees_with_dcmtk(tmp_path, photometric):
    dataset = make_dataset(TWELVE_BIT, 12, photometric, WindowCenter=2025, WindowWidth=4051)
    path = save_encoded(tmp_path / "extended.dcm", dataset, TWELVE_BIT_JPEG, JPEGExtended12Bit)
    np.testing.assert_allclose(read_dicom(path), shown_by_dcmtk(path, "window"), atol=1e-4)
