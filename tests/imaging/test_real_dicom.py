"""Public DICOM files of several makers and codecs: bones white in all of them. Nothing is copied or written."""

from pathlib import Path

import numpy as np
import pytest

from cxr.errors import ImageError
from cxr.imaging.dicom import read_dicom_header
from cxr.imaging.image import read_pixels

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "datasets" / "dicom"
CHESTS = [
    "WG04_RG1_chest_PA_J2KI",
    "udacity_nih_test1",
    "udacity_nih_test2",
    "udacity_nih_test3",
    "xrv_rsna_1517875201.850819",
]
TIBIAS = ["WG04_RG3_tibia_J2KR", "WG04_RG3_tibia_JLSL", "WG04_RG3_tibia_JPLL"]

pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the public DICOM files are not in ../shared/datasets/dicom"),
    pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning"),
]


def part(pixels: np.ndarray, top: float, bottom: float, left: float, right: float) -> float:
    """Mean brightness of a rectangle given in shares of height and width."""
    rows, columns = pixels.shape
    return float(pixels[int(top * rows) : int(bottom * rows), int(left * columns) : int(right * columns)].mean())


@pytest.mark.parametrize("name", CHESTS)
def test_chests_have_a_white_spine_between_dark_lungs(name):
    pixels = read_pixels(FOLDER / f"{name}.dcm")
    header = read_dicom_header(FOLDER / f"{name}.dcm")
    assert pixels.shape == (header.rows, header.columns)
    spine = part(pixels, 0.3, 0.7, 0.46, 0.54)
    assert spine > part(pixels, 0.25, 0.5, 0.2, 0.33) + 0.1
    assert spine > part(pixels, 0.25, 0.5, 0.67, 0.8) + 0.1
    assert np.percentile(pixels, 99) - np.percentile(pixels, 1) > 0.5


def test_leg_is_the_same_in_every_codec_with_white_bone_beside_dark_air():
    legs = [read_pixels(FOLDER / f"{name}.dcm") for name in TIBIAS]
    for leg in legs[1:]:
        np.testing.assert_array_equal(leg, legs[0])
    shaft, air = part(legs[0], 0.1, 0.4, 0.45, 0.5), part(legs[0], 0.6, 0.9, 0.28, 0.31)
    assert shaft > air + 0.3


def test_teeth_are_white_on_black():
    pixels = read_pixels(FOLDER / "CR-ModalityLUTSequence_teeth_MONO1.dcm")
    assert part(pixels, 0, 0.3, 0, 1) < 0.05
    assert part(pixels, 0.5, 0.8, 0.3, 0.7) > 0.35
    assert pixels.max() == 1


def test_header_of_a_chest():
    header = read_dicom_header(FOLDER / "WG04_RG1_chest_PA_J2KI.dcm")
    assert header.view_position == "PA"
    assert header.patient_orientation == "L\\F"
    assert header.photometric_interpretation == "MONOCHROME1"
    assert header.bits_stored == 15
    assert header.acquired == "1995-09-26T12:51:30"
    assert header.age == pytest.approx(64.5, abs=0.1)


def test_leg_in_lossy_twelve_bit_jpeg_is_nearly_the_same():
    lossless, lossy = (read_pixels(FOLDER / f"WG04_RG3_tibia_{name}.dcm") for name in ("JPLL", "JPLY"))
    assert np.abs(lossy - lossless).mean() < 0.01


KNOWN_BAD = {"CR_chest_PA_32px_agfa": r"has no pixel data \(modality CR\)"}


@pytest.mark.parametrize(("name", "message"), KNOWN_BAD.items())
def test_files_that_give_no_image_say_why(name, message):
    with pytest.raises(ImageError, match=message):
        read_pixels(FOLDER / f"{name}.dcm")
