"""One image file to what a predictor takes, with what the file says of itself.

The half of a prediction that belongs into a process of its own: it touches bytes that strangers wrote, and what it
gives is small. Knows nothing of nets, and keeps nothing of a header but two words, each one of a few, and a count.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr.data.subject_words import MAYBE_CHEST, find_subject
from cxr.data.view_words import UNKNOWN, find_view
from cxr.errors import ImageError
from cxr.imaging.image import count_pages, is_dicom, read_pixels
from cxr.imaging.intensity import Pixels
from cxr.imaging.preprocess import Preprocess, Stored
from cxr.imaging.resize import resize

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Told:
    """What a file says of itself.

    Attributes:
        view: ``pa``, ``ap``, ``frontal`` (direction unknown), ``other`` (lateral, oblique ...) or ``unknown``, as
            `cxr.data.view_words.find_view` reads a header.
        subject: ``maybe_chest``, ``no_radiograph`` or ``elsewhere``, as `cxr.data.subject_words.find_subject` does.
        frames: Images in the file, of which the first is taken.
    """

    view: str = UNKNOWN
    subject: str = MAYBE_CHEST
    frames: int = 1


@dataclass(frozen=True)
class Intake:
    """An image, ready to be predicted.

    Attributes:
        stored: For each preprocessing the (h, w) that it stores.
        shape: (H, W) of the file.
        told: What the file says of itself.
        picture: The whole image to be looked at, (h, w) uint8 in its own proportions; None where none was asked for.
    """

    stored: tuple[Stored, ...]
    shape: tuple[int, int]
    told: Told = Told()
    picture: Picture | None = None


def take_in(path: Path | str, preprocesses: Sequence[Preprocess], picture_side: int | None = None) -> Intake:
    """Read a DICOM, PNG, JPEG, TIFF or BMP file.

    Args:
        path: The file.
        preprocesses: Those of a predictor.
        picture_side: Longest side of the picture, in pixels; it is never enlarged. None makes no picture.

    Raises:
        ImageError: It gives no image, or one without any contrast.
    """
    pixels = read_pixels(path)
    if pixels.min() == pixels.max():
        raise ImageError(f"{path}: expected at least two grey values, but every pixel is {pixels.flat[0]:g}")
    height, width = pixels.shape
    picture = None if picture_side is None else _to_picture(pixels, picture_side)
    return Intake(tuple(one.store(pixels) for one in preprocesses), (height, width), read_told(path), picture)


def take_in_bytes(content: bytes, preprocesses: Sequence[Preprocess], picture_side: int | None = None) -> Intake:
    """The same of a file's content, which lies in memory alone: no disk sees it. Linux only.

    Raises:
        ImageError: As of `take_in`; the message names no file.
    """
    file = os.memfd_create("image")
    try:
        os.write(file, content)
        path = f"/proc/self/fd/{file}"
        return take_in(path, preprocesses, picture_side)
    except ImageError as error:
        raise ImageError(str(error).replace(f"{path}: ", "").replace(path, "the file")) from None
    finally:
        os.close(file)


def read_told(path: Path | str) -> Told:
    """What a file says of itself; without a DICOM header that is only how many images it has."""
    if not is_dicom(path):
        return Told(frames=count_pages(path))
    from cxr.imaging.dicom_header import name_uid, read_dicom_header

    header = read_dicom_header(path)
    object_name = None if header.sop_class is None else name_uid(header.sop_class)
    return Told(
        find_view(header.view_position, header.series_description, header.patient_orientation),
        find_subject(header.modality, object_name, header.body_part, header.series_description),
        1 if header.number_of_frames is None else header.number_of_frames,
    )


def get_ready(path: Path | str) -> None:
    """Import what reading such a file takes, before it has to be read; of no file that is there, nothing."""
    with suppress(ImageError):
        if is_dicom(path):
            import cxr.imaging.dicom  # noqa: F401


def _to_picture(pixels: Pixels, longest: int) -> Picture:
    scale = min(1.0, longest / max(pixels.shape))
    height, width = (max(1, round(side * scale)) for side in pixels.shape)
    return np.rint(resize(pixels, (height, width)) * 255).astype(np.uint8)
