import io

import numpy as np
import openjpeg.utils
import pytest
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless

from cxr.errors import ImageError
from cxr.imaging.codestream import Codestream, read_codestream
from cxr.imaging.dicom import read_dicom

from .dicom_files import make_dataset, save_encoded

STORED = np.random.default_rng(0).integers(0, 4096, (60, 40)).astype(np.uint16)


def jpeg(**options) -> bytes:
    memory = io.BytesIO()
    Image.fromarray((STORED // 16).astype(np.uint8)).save(memory, "JPEG", **options)
    return memory.getvalue()


def jpeg_ls() -> bytes:
    dataset = make_dataset(STORED, bits=12)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def jpeg_2000(codec_format: int = 0) -> bytes:
    return openjpeg.utils.encode_array(STORED, bits_stored=12, codec_format=codec_format)


FRAMES = {
    "JPEG": (jpeg(), 8),
    "progressive JPEG with a comment": (jpeg(progressive=True, comment="x" * 500), 8),
    "JPEG-LS": (jpeg_ls(), 12),
    "JPEG 2000": (jpeg_2000(), 12),
    "JPEG 2000 in a JP2 file": (jpeg_2000(codec_format=1), 12),
}


@pytest.mark.parametrize(("frame", "precision"), FRAMES.values(), ids=FRAMES.keys())
def test_frame_headers(frame, precision):
    assert read_codestream(frame) == Codestream(rows=60, columns=40, precision=precision, components=1)


def test_components():
    memory = io.BytesIO()
    Image.new("RGB", (7, 5)).save(memory, "JPEG")
    assert read_codestream(memory.getvalue()) == Codestream(rows=5, columns=7, precision=8, components=3)


WITHOUT = {
    "nothing": b"",
    "RLE": b"\x01\0\0\0" * 16,
    "only a start": b"\xff\xd8",
    "cut segment": b"\xff\xd8\xff\xe0\0",
    "cut JPEG": jpeg()[:20],
    "scan before frame": b"\xff\xd8\xff\xda\0\x02",
    "bytes between the segments": jpeg()[:20] + b"\0" + jpeg()[20:],
    "reserved marker": b"\xff\xd8\xff\x00\0\x02" + jpeg()[2:],
    "unknown colour transform": b"\xff\xd8\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\xfe" + jpeg()[2:],
    "frame without a scan": jpeg()[: jpeg().index(b"\xff\xda")],
    "cut JPEG 2000": jpeg_2000()[:30],
}


@pytest.mark.parametrize("frame", WITHOUT.values(), ids=WITHOUT.keys())
def test_no_frame_header(frame):
    assert read_codestream(frame) is None


MISMATCHES = {
    "rows": (jpeg_ls(), JPEGLSLossless, {"Rows": 61}, r"pixels of 61 x 40 x 1 samples .* got 60 x 40 x 1 of 12 bits"),
    "columns": (jpeg_2000(), JPEG2000Lossless, {"Columns": 64}, r"60 x 64 x 1 samples in at most 16 bits, but got 60"),
    "bits": (jpeg_2000(), JPEG2000Lossless, {"BitsAllocated": 8}, r"samples in at most 8 bits, but got .* of 12 bits"),
    "samples": (jpeg(), JPEGBaseline8Bit, {"SamplesPerPixel": 3}, r"60 x 40 x 3 samples .* got 60 x 40 x 1 of 8 bits"),
}


CONTAINERS = [(8, 7), (8, 1), (32, 8), (12, 8)]


@pytest.mark.parametrize(("allocated", "stored"), CONTAINERS)
def test_jpeg_bits_that_would_end_the_process_are_refused(tmp_path, allocated, stored):
    dataset = make_dataset(STORED, BitsAllocated=allocated, BitsStored=stored)
    path = save_encoded(tmp_path / "odd.dcm", dataset, jpeg(), JPEGBaseline8Bit)
    with pytest.raises(
        ImageError, match=f"8 bits in 8 or of up to 16 in 16, but got {stored} bits in {allocated}; exp"
    ):
        read_dicom(path)


@pytest.mark.parametrize(("frame", "syntax", "elements", "message"), MISMATCHES.values(), ids=MISMATCHES.keys())
def test_frames_that_are_not_what_the_header_declares_are_refused(tmp_path, frame, syntax, elements, message):
    path = save_encoded(tmp_path / "other.dcm", make_dataset(STORED, bits=12, **elements), frame, syntax)
    with pytest.raises(ImageError, match=message):
        read_dicom(path)
