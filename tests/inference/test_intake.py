import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage

from cxr.errors import ImageError
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Preprocess
from cxr.inference.intake import Told, take_in, take_in_bytes

from ..imaging.dicom_files import make_dataset, save

PREPROCESSES = [Preprocess(size=(16, 16)), Preprocess(size=(32, 24), normalizer="unit", precision="uint16")]
RAMP = np.linspace(0, 4095, 40 * 50).reshape(40, 50).astype(np.uint16)


def write_dicom(path, **elements):
    return save(path, make_dataset(RAMP, bits=12, **elements), RAMP)


def test_an_image_is_stored_once_for_each_preprocessing(tmp_path):
    Image.fromarray((RAMP // 16).astype(np.uint8)).save(tmp_path / "a.png")
    found = take_in(tmp_path / "a.png", PREPROCESSES)
    assert (found.shape, found.told) == ((40, 50), Told())
    for stored, preprocess in zip(found.stored, PREPROCESSES, strict=True):
        np.testing.assert_array_equal(stored, preprocess.store(read_pixels(tmp_path / "a.png")))


@pytest.mark.parametrize(("position", "view"), [("PA", "pa"), ("AP", "ap"), ("LL", "other"), ("", "unknown")])
def test_the_view_is_that_of_the_header(tmp_path, position, view):
    assert take_in(write_dicom(tmp_path / "a.dcm", ViewPosition=position), PREPROCESSES).told.view == view


@pytest.mark.parametrize(
    ("elements", "subject"),
    [
        ({}, "maybe_chest"),
        ({"Modality": "CT"}, "no_radiograph"),
        ({"SOPClassUID": CTImageStorage}, "no_radiograph"),
        ({"SOPClassUID": "1.2.3"}, "maybe_chest"),
        ({"BodyPartExamined": "EXTREMITY"}, "elsewhere"),
    ],
)
def test_the_subject_is_that_of_the_header(tmp_path, elements, subject):
    assert take_in(write_dicom(tmp_path / "a.dcm", **elements), PREPROCESSES).told.subject == subject


def test_a_file_says_how_many_images_it_has(tmp_path):
    pages = [Image.fromarray((RAMP // shift).astype(np.uint8)) for shift in (16, 32, 64)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    frames = np.concatenate([RAMP, RAMP // 2])
    save(tmp_path / "a.dcm", make_dataset(frames, bits=12, NumberOfFrames=2, Rows=40), frames)
    for name, count in (("a.tiff", 3), ("a.dcm", 2)):
        with pytest.warns(UserWarning, match="only the first is read"):
            assert take_in(tmp_path / name, PREPROCESSES).told == Told(frames=count)


def test_content_in_memory_gives_what_the_file_gives(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", ViewPosition="PA")
    of_file, of_content = take_in(path, PREPROCESSES), take_in_bytes(path.read_bytes(), PREPROCESSES)
    assert (of_file.shape, of_file.told) == (of_content.shape, of_content.told)
    for one, other in zip(of_file.stored, of_content.stored, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_image_without_contrast(tmp_path):
    Image.new("L", (20, 20), 9).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="at least two grey values, but every pixel is 0.03"):
        take_in(tmp_path / "a.png", PREPROCESSES)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n broken"])
def test_an_error_names_no_place_in_memory(content):
    with pytest.raises(ImageError, match="^expected") as caught:
        take_in_bytes(content, PREPROCESSES)
    assert "/proc" not in str(caught.value)


@pytest.mark.parametrize(("side", "shape"), [(25, (20, 25)), (1000, (40, 50))])
def test_a_picture_is_the_whole_image_and_never_enlarged(tmp_path, side, shape):
    path = write_dicom(tmp_path / "a.dcm")
    picture = take_in_bytes(path.read_bytes(), PREPROCESSES, side).picture
    assert (picture.shape, picture.dtype) == (shape, np.uint8)
    expected = cv2.resize(read_pixels(path), shape[::-1], interpolation=cv2.INTER_AREA) * 255
    np.testing.assert_allclose(picture, expected, atol=0.51)
    assert take_in(path, PREPROCESSES).picture is None


def test_getting_ready_imports_what_the_file_takes_and_no_more(tmp_path):
    Image.fromarray((RAMP // 16).astype(np.uint8)).save(tmp_path / "a.png")
    paths = [str(tmp_path / "absent"), str(tmp_path / "a.png"), str(write_dicom(tmp_path / "a.dcm"))]
    code = (
        "import sys; from cxr.inference.intake import get_ready\n"
        f"for path in {paths!r}: get_ready(path); print('pydicom' in sys.modules, 'pandas' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False", "False", "False", "True", "False"]
