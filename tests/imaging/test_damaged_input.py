"""Whatever lies at a path: an image, or one sentence with the path; nothing hangs, nothing takes the memory."""

import os
import socket
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from cxr.errors import ImageError
from cxr.imaging import guard
from cxr.imaging.dicom import read_dicom, read_dicom_header
from cxr.imaging.image import is_dicom, read_image, read_pixels

from .dicom_files import LOSSLESS, LOSSY, make_dataset, save
from .fuzzing import judge

NOISE = np.random.default_rng(0).integers(0, 4096, (48, 40)).astype(np.uint16)
READERS = [is_dicom, read_pixels, read_image, read_dicom, read_dicom_header]


def assert_refused(read, path, message):
    with pytest.raises(ImageError, match=message) as caught:
        read(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: expected ")
    assert "\n" not in sentence


@pytest.mark.parametrize("syntax", [*LOSSLESS, *LOSSY], ids=lambda syntax: pydicom.uid.UID(syntax).keyword)
def test_truncated_anywhere(tmp_path, syntax):
    stored = (NOISE // 16).astype(np.uint8)
    whole = save(tmp_path / "whole.dcm", make_dataset(stored), stored, syntax).read_bytes()
    path = tmp_path / "cut.dcm"
    for kept in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:kept])
        assert "fault" not in judge(path, f"{kept} bytes")  # a codec may make up the rest


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "bmp"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_pictures_truncated_anywhere(tmp_path, kind):
    whole = tmp_path / f"whole.{kind}"
    Image.fromarray((NOISE // 16).astype(np.uint8)).save(whole)
    path = tmp_path / f"cut.{kind}"
    for kept in np.linspace(0, whole.stat().st_size // 2, 25).astype(int):
        path.write_bytes(whole.read_bytes()[:kept])
        assert_refused(read_pixels, path, "expected a DICOM, PNG, JPEG, TIFF or BMP image, but got ")


@pytest.mark.parametrize("kind", [2, 6], ids=["colour", "with alpha"])
def test_deep_colour_truncated_anywhere(tmp_path, kind):
    whole, path = tmp_path / "whole.png", tmp_path / "cut.png"
    cv2.imwrite(str(whole), np.dstack([NOISE] * (3 if kind == 2 else 4)))
    for kept in np.linspace(0, whole.stat().st_size // 2, 25).astype(int):
        path.write_bytes(whole.read_bytes()[:kept])
        assert_refused(read_pixels, path, "expected a DICOM, PNG, JPEG, TIFF or BMP image, but got ")


@pytest.mark.parametrize("kept", [0.5, 0.99])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_pixels_that_end_early_are_never_filled_up(tmp_path, syntax, kept):
    path = save(tmp_path / "cut.dcm", make_dataset(NOISE, bits=12), NOISE, syntax)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert_refused(read_pixels, path, "but ")


@pytest.mark.parametrize("read", READERS)
def test_folder(tmp_path, read):
    assert_refused(read, tmp_path, "expected an image file, but it is a folder; name the files in it")


@pytest.mark.parametrize("read", READERS)
def test_pipe_without_a_writer_does_not_hang(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.dcm")
    assert_refused(read, tmp_path / "pipe.dcm", "but it is a pipe, a socket or a device; copy it into a file")


@pytest.mark.parametrize("read", READERS)
def test_endless_device_is_not_opened(tmp_path, read):
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    assert_refused(read, tmp_path / "endless.png", "but it is a pipe, a socket or a device; copy it into a file")


def test_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.dcm")
        assert_refused(read_pixels, tmp_path / "s.dcm", "but it is a pipe, a socket or a device; copy it into a file")


def test_link_to_an_image(tmp_path):
    path = save(tmp_path / "image.dcm", make_dataset(NOISE, bits=12), NOISE)
    (tmp_path / "link").symlink_to(path)
    np.testing.assert_array_equal(read_pixels(tmp_path / "link"), read_pixels(path))


@pytest.mark.parametrize("read", READERS)
def test_broken_link(tmp_path, read):
    (tmp_path / "broken.dcm").symlink_to(tmp_path / "nowhere")
    assert_refused(read, tmp_path / "broken.dcm", "there is no such file; check the path")


@pytest.mark.parametrize("read", READERS)
def test_link_to_itself(tmp_path, read):
    (tmp_path / "a.dcm").symlink_to(tmp_path / "b.dcm")
    (tmp_path / "b.dcm").symlink_to(tmp_path / "a.dcm")
    assert_refused(read, tmp_path / "a.dcm", "Too many levels of symbolic links.*; check the path and its permissions")


@pytest.mark.parametrize("read", READERS)
def test_name_that_no_file_can_have(tmp_path, read):
    assert_refused(
        read, f"{tmp_path}/x\0y.dcm", "expected the path of a file, but it holds a null byte; write the path"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="every file is readable for root")
@pytest.mark.parametrize("read", READERS)
def test_file_without_permission(tmp_path, read):
    path = save(tmp_path / "mine.dcm", make_dataset(NOISE, bits=12), NOISE)
    path.chmod(0)
    assert_refused(read, path, "Permission denied.*; check the path and its permissions")


def test_permission_denied_is_told_as_such(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("cxr.imaging.image.check_file", refuse)
    assert_refused(read_pixels, tmp_path / "x.dcm", "got PermissionError: .*; check the path and its permissions")


@pytest.mark.parametrize("name", ["random.dcm", "random", "random.png"])
@pytest.mark.parametrize("head", [b"", b"\0" * 128 + b"DICM"], ids=["bare", "with preamble"])
def test_random_bytes(tmp_path, name, head):
    path = tmp_path / name
    for seed in range(20):
        path.write_bytes(head + np.random.default_rng(seed).bytes(5000))
        assert_refused(read_pixels, path, "but ")


def test_dicom_without_an_extension(tmp_path):
    path = save(tmp_path / "IM000001", make_dataset(NOISE, bits=16), NOISE * 16)
    assert read_pixels(path).shape == NOISE.shape


def test_file_too_large_to_be_read_whole(tmp_path):
    path = save(tmp_path / "large.dcm", make_dataset(NOISE, bits=12), NOISE)
    os.truncate(path, guard.MAX_BYTES + 1)  # takes no room on the disk
    assert_refused(
        read_pixels, path, "expected at most 4294967296 bytes, but the file has 4294967297; export one frame"
    )


def test_small_file_that_inflates_beyond_the_limit(tmp_path, monkeypatch):
    stored = np.zeros((2000, 1000), dtype=np.uint16)
    path = save(tmp_path / "bomb.dcm", make_dataset(stored), stored, DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 20_000
    assert read_pixels(path).shape == stored.shape
    monkeypatch.setattr(guard, "MAX_BYTES", 3_000_000)
    for read in (read_dicom, read_dicom_header):
        assert_refused(read, path, "expected at most 3000000 bytes once inflated, but there are more; leave it out")


def test_deflated_part_that_is_none(tmp_path):
    path = save(tmp_path / "torn.dcm", make_dataset(NOISE), NOISE, DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    assert zlib.decompress(content[start:], -zlib.MAX_WBITS)
    path.write_bytes(content[:start] + b"\xff" * 100)
    assert_refused(read_dicom, path, "expected a DICOM file, but got error: Error -3")


DECLARED = {
    "frames": ({"NumberOfFrames": 2**31 - 1}, ExplicitVRLittleEndian),
    "frames of RLE": ({"NumberOfFrames": 2**31 - 1}, RLELossless),
    "samples": ({"SamplesPerPixel": 65535}, ExplicitVRLittleEndian),
    "samples of RLE": ({"SamplesPerPixel": 65535, "PlanarConfiguration": 0}, RLELossless),
    "bits": ({"BitsAllocated": 65528, "BitsStored": 65528}, ExplicitVRLittleEndian),
    "side": ({"Rows": 65535, "Columns": 1500}, ExplicitVRLittleEndian),
    "side of RLE": ({"Rows": 65535, "Columns": 1500}, RLELossless),
}
READ_AND_TELL_MEMORY = """
import resource, sys, warnings
from cxr.errors import ImageError
from cxr.imaging.image import read_pixels
warnings.simplefilter("ignore")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        print(read_pixels(path).shape)
    except ImageError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_what_is_declared_is_not_allocated(tmp_path):
    paths = []
    for number, (elements, syntax) in enumerate(DECLARED.values()):
        paths.append(str(save(tmp_path / f"{number}.dcm", make_dataset(NOISE, bits=12), NOISE, syntax)))
        dataset = pydicom.dcmread(paths[-1])
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        dataset.save_as(paths[-1])
    done = subprocess.run(
        [sys.executable, "-c", READ_AND_TELL_MEMORY, *paths], capture_output=True, text=True, check=True
    )
    *told, megabytes = done.stdout.splitlines()
    assert int(megabytes) < 150
    for line, path, name in zip(told, paths, DECLARED, strict=True):
        assert name == "frames of RLE" or line.startswith(f"{path}: expected "), line


@pytest.mark.parametrize("elements", [{"NumberOfFrames": "many"}, {"Rows": None}, {"BitsStored": "x"}])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_numbers_that_are_none(tmp_path, elements, syntax):
    path = save(tmp_path / "odd.dcm", make_dataset(NOISE, bits=12), NOISE, syntax)
    dataset = pydicom.dcmread(path)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            tag = dataset[keyword].tag if keyword in dataset else pydicom.tag.Tag(keyword)
            dataset[tag] = pydicom.DataElement(tag, "LO", value)
    dataset.save_as(path, implicit_vr=False)
    assert_refused(read_pixels, path, "but ")


def test_pixels_of_a_wrong_length(tmp_path):
    for length, message in ((NOISE.nbytes - 2, "less than expected"), (0, "but the transfer syntax")):
        dataset = make_dataset(NOISE, bits=12, PixelData=NOISE.tobytes()[:length])
        path = tmp_path / "wrong.dcm"
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True)
        assert_refused(read_pixels, path, message)
    pydicom.dcmwrite(path, make_dataset(NOISE, bits=12, PixelData=NOISE.tobytes() * 3), enforce_file_format=True)
    np.testing.assert_allclose(read_pixels(path), NOISE / 4095, atol=1e-6)
