"""Files that give no image: each a sentence with the path, what was expected, what came and the remedy."""

import logging

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr.errors import ImageError
from cxr.imaging.dicom import read_dicom
from cxr.imaging.image import read_pixels

from .dicom_files import make_dataset, save, save_encoded

STORED = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


def written(tmp_path, **elements):
    dataset = make_dataset(STORED, bits=12)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    path = tmp_path / "study 1" / "bad.dcm"
    path.parent.mkdir()
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True)
    return path


REFUSED = {
    "no pixels": ({"PixelData": None, "Modality": "SR"}, r"has no pixel data \(modality SR\); export"),
    "no pixels, no modality": ({"PixelData": None, "Modality": None}, r"has no pixel data \(modality None\)"),
    "zero rows": ({"Rows": 0}, r"at least one row and one column, but got 0 x 64"),
    "no columns": ({"Columns": None}, r"at least one row and one column, but got 64 x None"),
    "huge": ({"Rows": 65535, "Columns": 65535}, r"at most 100000000 pixels, but the file declares 65535 x 65535"),
    "more declared than there": ({"Rows": 640}, r"Explicit VR Little Endian .* less than expected .*; export"),
    "no photometric": ({"PhotometricInterpretation": None}, r"photometric interpretation among .*, but got None"),
    "CMYK": ({"PhotometricInterpretation": "CMYK"}, r"photometric interpretation among MONOCHROME1, .* got CMYK"),
    "no bits": ({"BitsStored": None}, r"expected decodable pixel data"),
    "empty pixels": ({"PixelData": b""}, r"expected decodable pixel data"),
    "LUT without entries": (
        {"VOILUTSequence": [pydicom.Dataset()]},
        r"expected a DICOM image with valid display elements, but got AttributeError",
    ),
}


@pytest.mark.parametrize(("elements", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals(tmp_path, elements, message):
    path = written(tmp_path, **elements)
    with pytest.raises(ImageError, match=message) as caught:
        read_dicom(path)
    assert str(caught.value).startswith(f"{path}: expected ")
    assert "\n" not in str(caught.value)


def test_a_codec_that_fails_is_named_with_a_remedy_and_logs_nothing(tmp_path, caplog):
    frame = b"\xff\xd8" + b"\xff\xc1\0\x0b\x0c\0\x40\0\x40\x01\x01\x11\0" + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    path = save_encoded(tmp_path / "extended.dcm", make_dataset(STORED, bits=12), frame, JPEGExtended12Bit)
    message = r"transfer syntax JPEG Extended .*\(1\.2\.840\.10008\.1\.2\.4\.51\) gave .*; transcode it, .*gdcmconv"
    with caplog.at_level(logging.DEBUG), pytest.raises(ImageError, match=message):
        read_dicom(path)
    assert not caplog.records
    assert logging.getLogger("pydicom").propagate


def test_unknown_transfer_syntax(tmp_path):
    path = save_encoded(tmp_path / "private.dcm", make_dataset(STORED, bits=12), b"1234", "1.2.3.4.5")
    with pytest.raises(ImageError, match=r"the transfer syntax 1\.2\.3\.4\.5 .* is not supported; transcode it"):
        read_dicom(path)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
def test_transfer_syntax_of_two_values_counts_as_none(tmp_path):
    path = save_encoded(tmp_path / "two.dcm", make_dataset(STORED, bits=12), b"1234", RLELossless)
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.5", b"1.2.840.10008\\1.2.5"))
    with pytest.raises(ImageError, match=r"expected a transfer syntax, since the pixel data is compressed"):
        read_dicom(path)


def test_damaged_run_lengths(tmp_path):
    path = save_encoded(tmp_path / "damaged.dcm", make_dataset(STORED, bits=12), b"\x01\0\0\0" * 30, RLELossless)
    with pytest.raises(ImageError, match=r"expected decodable pixel data, but the transfer syntax RLE"):
        read_dicom(path)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_pixels_without_a_frame_header(tmp_path, syntax):
    path = save_encoded(tmp_path / "damaged.dcm", make_dataset(STORED, bits=12), b"\x01\0\0\0" * 30, syntax)
    with pytest.raises(
        ImageError, match=r"expected JPEG.* pixels, but they begin without a sound frame header; export"
    ):
        read_dicom(path)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", RLELossless])
@pytest.mark.parametrize("kept", [0, 1, 100, 133, 300, 1000, 4000])
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_truncated_file(tmp_path, syntax, kept):
    noise = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    path = save(tmp_path / "truncated.dcm", make_dataset(noise, bits=12), noise, syntax)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ImageError, match=r"truncated\.dcm: expected "):
        read_pixels(path)


def test_compressed_file_without_a_transfer_syntax(tmp_path):
    path = save(tmp_path / "rle.dcm", make_dataset(STORED, bits=12), STORED, RLELossless)
    dataset = pydicom.dcmread(path)
    del dataset.file_meta
    dataset.preamble = None
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    with pytest.raises(ImageError, match=r"expected a transfer syntax, since the pixel data is compressed"):
        read_dicom(path)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind" * 100])
def test_what_is_not_dicom(tmp_path, content):
    path = tmp_path / "text.dcm"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"text\.dcm: expected a DICOM "):
        read_dicom(path)


def test_missing_file(tmp_path):
    with pytest.raises(ImageError, match=r"expected a DICOM file, but there is no such file; check the path"):
        read_dicom(tmp_path / "absent.dcm")


def test_float_pixels_that_are_not_finite(tmp_path):
    dataset = make_dataset(STORED, bits=12)
    del dataset.PixelData
    del dataset.BitsStored
    values = np.linspace(-3, 5, 64 * 64, dtype=np.float32)
    dataset.BitsAllocated, dataset.FloatPixelData = 32, values.tobytes()
    path = tmp_path / "float.dcm"
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True)
    np.testing.assert_allclose(read_dicom(path).ravel(), np.linspace(0, 1, 64 * 64), atol=1e-6)
    values[7] = np.nan
    dataset.FloatPixelData = values.tobytes()
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True)
    with pytest.raises(ImageError, match=r"float\.dcm: .* NaN or infinity among the pixel values"):
        read_dicom(path)
