"""What is stored of made-up files of several kinds, tied to STORE_VERSION: a cache holds these values for good.

If a value here changes, old caches are wrong: raise STORE_VERSION, and write the new values beside the new number.
"""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit, RLELossless

from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import STORE_VERSION, Preprocess

from .dicom_files import TWELVE_BIT, TWELVE_BIT_JPEG, make_dataset, make_lut, save, save_encoded

ROWS, COLUMNS = np.mgrid[0:48, 0:32]
SHAPES = np.sin(ROWS / 9) ** 2 * np.linspace(0.2, 1, 32)
TWELVE = np.rint(3000 * SHAPES + 400).astype(np.uint16)
EIGHT = (TWELVE // 16).astype(np.uint8)
COLOUR = np.dstack([TWELVE, TWELVE[::-1], TWELVE // 2])
OUTLIER = np.append(np.arange(399), np.append(65000, np.arange(400, 4096)))
A_LEVEL, A_LOSSY_LEVEL = 1, 3


def dicom(stored: np.ndarray, syntax: str | None = None, **described) -> Callable[[Path], Path]:
    return lambda path: save(path, make_dataset(stored, **described), stored, *([] if syntax is None else [syntax]))


def picture(pixels: np.ndarray, kind: str, **options) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(pixels).save(path, kind, **options)


def by_opencv(pixels: np.ndarray, suffix: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(cv2.imencode(suffix, pixels)[1].tobytes())


def jpeg(path: Path) -> Path:
    coded = io.BytesIO()
    Image.fromarray(EIGHT).save(coded, "JPEG", quality=98)
    return save_encoded(path, make_dataset(EIGHT), coded.getvalue(), JPEGBaseline8Bit)


def twelve_bit_jpeg(path: Path) -> Path:
    return save_encoded(path, make_dataset(TWELVE_BIT, 12), TWELVE_BIT_JPEG, JPEGExtended12Bit)


FILES = {
    "no window": dicom(TWELVE, bits=12),
    "window, MONOCHROME1": dicom(TWELVE, bits=12, photometric="MONOCHROME1", WindowCenter=1500, WindowWidth=2000),
    "sigmoid": dicom(TWELVE, bits=12, WindowCenter=1500, WindowWidth=2000, VOILUTFunction="SIGMOID"),
    "signed, rescaled, RLE": dicom(
        TWELVE.astype(np.int16) - 2048, RLELossless, bits=12, RescaleSlope=-0.5, RescaleIntercept=9
    ),
    "modality LUT": dicom(TWELVE, bits=12, ModalityLUTSequence=[make_lut(OUTLIER, 0, 16)]),
    "VOI LUT": dicom(TWELVE, bits=12, VOILUTSequence=[make_lut(np.arange(4096)[::-1] ** 2 >> 8, 0, 16)]),
    "padding": dicom(TWELVE, bits=12, PixelPaddingValue=400, PixelPaddingRangeLimit=900),
    "left-justified": dicom(TWELVE << 4, bits=12, HighBit=15),
    "JPEG 2000": dicom(TWELVE, JPEG2000Lossless),
    "JPEG": jpeg,
    "12-bit JPEG": twelve_bit_jpeg,
    "DICOM colour": dicom((COLOUR // 16).astype(np.uint8), photometric="RGB"),
    "PNG": picture(EIGHT, "PNG"),
    "PNG, 12 bits in 16": picture(TWELVE, "PNG"),
    "PNG, colour": picture((COLOUR // 16).astype(np.uint8), "PNG"),
    "PNG, deep colour": by_opencv(COLOUR[..., ::-1], ".png"),
    "JPEG file": picture(EIGHT, "JPEG", quality=98),
    "TIFF, white is zero": picture(TWELVE, "TIFF", tiffinfo={262: 0}),
    "TIFF, floats": picture(SHAPES.astype(np.float32), "TIFF"),
}
SETTINGS = {
    "minmax": Preprocess(size=(3, 3)),
    "percentile": Preprocess(size=(3, 3), normalizer="percentile", aspect="crop"),
    "equalize": Preprocess(size=(3, 3), normalizer="equalize", aspect="stretch"),
    "clahe": Preprocess(size=(3, 3), normalizer="clahe"),
    "smaller and larger": Preprocess(size=(1, 36), normalizer="unit", aspect="stretch"),
}
AS_THEY_ARE = Preprocess(size=(3, 3), normalizer="unit", aspect="stretch")

STORED = {
    2: {
        "no window": [57, 84, 111, 47, 66, 85, 69, 106, 143],
        "window, MONOCHROME1": [200, 146, 108, 219, 182, 150, 178, 103, 51],
        "sigmoid": [67, 114, 147, 52, 85, 111, 83, 149, 193],
        "signed, rescaled, RLE": [198, 171, 144, 208, 189, 170, 186, 149, 112],
        "modality LUT": [44, 81, 117, 30, 56, 82, 60, 110, 161],
        "VOI LUT": [156, 122, 96, 171, 146, 126, 138, 92, 58],
        "padding": [39, 72, 101, 24, 49, 69, 57, 101, 139],
        "left-justified": [57, 84, 111, 47, 66, 85, 69, 106, 143],
        "JPEG 2000": [44, 81, 117, 30, 56, 82, 60, 110, 161],
        "JPEG": [57, 84, 111, 47, 66, 85, 68, 106, 143],
        "12-bit JPEG": [37, 60, 83, 103, 126, 149, 169, 192, 215],
        "DICOM colour": [60, 92, 123, 44, 62, 80, 58, 87, 116],
        "PNG": [57, 84, 111, 47, 66, 85, 68, 106, 143],
        "PNG, 12 bits in 16": [44, 81, 117, 30, 56, 82, 60, 110, 161],
        "PNG, colour": [60, 92, 123, 44, 62, 80, 58, 87, 116],
        "PNG, deep colour": [58, 121, 184, 25, 61, 97, 52, 111, 169],
        "JPEG file": [57, 84, 111, 47, 66, 85, 68, 106, 143],
        "TIFF, white is zero": [211, 174, 138, 225, 199, 173, 195, 145, 94],
        "TIFF, floats": [44, 81, 117, 30, 56, 82, 60, 110, 161],
    },
}
"""By STORE_VERSION: the 3 x 3 stored pixels of each file, row by row."""
STORED_BY_SETTING = {
    2: {
        "minmax": [53, 108, 0, 37, 75, 0, 72, 148, 0],
        "percentile": [77, 141, 206, 27, 50, 73, 35, 64, 94],
        "equalize": [85, 126, 155, 65, 96, 120, 111, 165, 203],
        "clahe": [124, 131, 0, 87, 88, 0, 146, 160, 0],
        "smaller and larger": [
            45, 47, 49, 52, 54, 56, 59, 61, 63, 66, 68, 70, 72, 75, 77, 79, 82, 84,
            86, 89, 91, 93, 95, 98, 100, 102, 105, 107, 109, 112, 114, 116, 119, 121, 123, 125,
        ],
    },
}  # fmt: skip
"""By STORE_VERSION: the stored pixels of the first file in other ways, row by row."""


def assert_stored(path: Path, preprocess: Preprocess, expected: list[int], tolerance: int) -> None:
    stored = preprocess.store(read_pixels(path)).ravel()
    np.testing.assert_allclose(
        stored.astype(int), expected, atol=tolerance, err_msg="raise STORE_VERSION and write these"
    )


def test_the_values_are_those_of_this_version():
    assert [*STORED] == [*STORED_BY_SETTING] == [STORE_VERSION], "write what this version stores, and no other's"


@pytest.mark.parametrize("name", FILES)
def test_stored_values_of_files(tmp_path, name):
    FILES[name](tmp_path / "file")
    tolerance = A_LOSSY_LEVEL if "JPEG" in name and "2000" not in name else A_LEVEL
    assert_stored(tmp_path / "file", AS_THEY_ARE, STORED[STORE_VERSION][name], tolerance)


@pytest.mark.parametrize("name", SETTINGS)
def test_stored_values_of_settings(tmp_path, name):
    FILES["no window"](tmp_path / "file")
    assert_stored(tmp_path / "file", SETTINGS[name], STORED_BY_SETTING[STORE_VERSION][name], A_LEVEL)
