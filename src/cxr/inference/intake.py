"""One image file to what a predictor takes, with what its header says of the view.

The half of a prediction that belongs into a process of its own: it touches bytes that strangers wrote, and what it
gives is small. Knows nothing of nets, and keeps nothing of a header but the view.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr.data.views import find_views
from cxr.errors import ImageError
from cxr.imaging.dicom_header import read_dicom_header
from cxr.imaging.image import is_dicom, read_pixels
from cxr.imaging.preprocess import Preprocess, Stored


@dataclass(frozen=True)
class Intake:
    """An image, ready to be predicted.

    Attributes:
        stored: For each preprocessing the (h, w) that it stores.
        shape: (H, W) of the file.
        view: ``pa``, ``ap``, ``frontal`` (direction unknown), ``other`` (lateral, oblique ...) or ``unknown``, as
            `cxr.data.views.find_views` reads a header.
    """

    stored: tuple[Stored, ...]
    shape: tuple[int, int]
    view: str


def take_in(path: Path | str, preprocesses: Sequence[Preprocess]) -> Intake:
    """Read a DICOM, PNG, JPEG, TIFF or BMP file.

    Args:
        path: The file.
        preprocesses: Those of a predictor.

    Raises:
        ImageError: It gives no image, or one without any contrast.
    """
    pixels = read_pixels(path)
    if pixels.min() == pixels.max():
        raise ImageError(f"{path}: expected at least two grey values, but every pixel is {pixels.flat[0]:g}")
    height, width = pixels.shape
    return Intake(tuple(one.store(pixels) for one in preprocesses), (height, width), read_view(path))


def take_in_bytes(content: bytes, preprocesses: Sequence[Preprocess]) -> Intake:
    """The same of a file's content, which lies in memory alone: no disk sees it. Linux only.

    Raises:
        ImageError: As of `take_in`; the message names no file.
    """
    file = os.memfd_create("image")
    try:
        os.write(file, content)
        path = f"/proc/self/fd/{file}"
        return take_in(path, preprocesses)
    except ImageError as error:
        raise ImageError(str(error).replace(f"{path}: ", "").replace(path, "the file")) from None
    finally:
        os.close(file)


def read_view(path: Path | str) -> str:
    """Which view a file's header states; of files without a header ``unknown``."""
    if not is_dicom(path):
        return "unknown"
    header = read_dicom_header(path)
    columns = ("view_position", "series_description", "patient_orientation")
    return str(find_views(pd.DataFrame([{name: getattr(header, name) for name in columns}])).iloc[0])
