"""PNG, JPEG, TIFF and BMP files to pixels, and the one door for any image file.

Knows nothing of preprocessing; what is inside a DICOM file is the business of `cxr.imaging.dicom`.
"""

import warnings
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

from cxr.imaging.guard import check_file, check_size, image_errors
from cxr.imaging.intensity import Pixels, Rendering

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
FIRST_GROUPS = tuple(bytes((group, 0)) for group in (0x02, 0x08, 0x10, 0x18, 0x20, 0x28))
"""How a DICOM data set without a preamble can begin: the group of its first element, little endian."""
TIFF_BITS_PER_SAMPLE, TIFF_PHOTOMETRIC = 258, 262
WHITE_IS_ZERO = 0
EXIF_ORIENTATION, FIRST_SIDEWAYS_ORIENTATION = 274, 5


def read_pixels(path: Path | str) -> Pixels:
    """Read any supported image file, DICOM or not, decided by its content and never by its name.

    Args:
        path: A DICOM, PNG, JPEG, TIFF or BMP file.

    Returns:
        (H, W) float32 in [0, 1], bright = dense for DICOM, as displayed for the others.

    Raises:
        ImageError: If the file gives no image.
    """
    if is_dicom(path):
        from cxr.imaging.dicom import read_dicom

        return read_dicom(path)
    return read_image(path)


def is_dicom(path: Path | str) -> bool:
    """Whether the file begins like a DICOM file: ``DICM`` after the preamble, or a data set without a preamble.

    Raises:
        ImageError: If the file cannot be opened.
    """
    with image_errors(path, "an image file"):
        check_file(path)
        with Path(path).open("rb") as file:
            head = file.read(132)
    return head[128:] == b"DICM" or head.startswith(FIRST_GROUPS)


def read_image(path: Path | str) -> Pixels:
    """Read a PNG, JPEG, TIFF or BMP file as luminance (ITU-R BT.601), turned upright by its EXIF orientation.

    8-bit images are divided by 255, so ``unit`` preprocessing keeps their levels. Deeper ones follow the no-window
    rule of `cxr.imaging.intensity.Rendering`, so 12-bit data in a 16-bit file is not nearly black. Alpha is ignored.
    Of several pages the first is read, with a warning.

    Args:
        path: The file.

    Returns:
        (H, W) float32 in [0, 1].

    Raises:
        ImageError: If the file is none of the four formats, damaged, too large, or of a colour mode without luminance.
    """
    with image_errors(path, "a DICOM, PNG, JPEG, TIFF or BMP image"):
        check_file(path)
        with Image.open(path, formats=FORMATS) as image:
            check_size(path, image.height, image.width)
            frames = getattr(image, "n_frames", 1)
            pixels = _to_luminance(path, image)
    if frames > 1:
        warnings.warn(f"{path}: the file has {frames} pages; only the first is read", stacklevel=2)
    return pixels


def count_pages(path: Path | str) -> int:
    """How many images a PNG, JPEG, TIFF or BMP file has; none is decoded.

    Raises:
        ImageError: If the file is none of the four formats.
    """
    with image_errors(path, "a PNG, JPEG, TIFF or BMP image"), Image.open(path, formats=FORMATS) as image:
        return int(getattr(image, "n_frames", 1))


def read_image_size(path: Path | str) -> tuple[int, int]:
    """(H, W) of a PNG, JPEG, TIFF or BMP file, turned upright; its pixels are not decoded.

    Raises:
        ImageError: If the file is none of the four formats.
    """
    with image_errors(path, "a PNG, JPEG, TIFF or BMP image"), Image.open(path, formats=FORMATS) as image:
        sideways = image.getexif().get(EXIF_ORIENTATION, 1) >= FIRST_SIDEWAYS_ORIENTATION
        return (image.width, image.height) if sideways else (image.height, image.width)


def _to_luminance(path: Path | str, image: ImageFile.ImageFile) -> Pixels:
    tags = getattr(image, "tag_v2", {})
    mode = image.mode
    deep_colour = _has_deep_colour(image)
    upright = ImageOps.exif_transpose(image)  # decodes, so that a truncated file is refused here
    if deep_colour:
        return Rendering(nominal=(0, 2**16 - 1)).render(_read_deep_colour(path))
    if mode.startswith("I") or mode == "F":
        bits = int(tags.get(TIFF_BITS_PER_SAMPLE, (16,))[0])
        rendering = Rendering(
            nominal=(0, 1) if mode == "F" else (0, 2**bits - 1),
            inverted=tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO,  # Pillow inverts up to 8 bits, not beyond
        )
        return rendering.render(np.asarray(upright))
    if mode not in ("1", "L", "LA", "RGB", "RGBA", "RGBX"):
        upright = upright.convert("RGBA" if mode in ("P", "PA") else "RGB")
    return np.asarray(upright.convert("L"), dtype=np.float32) / np.float32(255)


def _has_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is not decoded yet has 16 bits for each of several channels."""
    *_, raw_mode = image.tile[0]
    return image.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA") and ";16" in str(raw_mode)


def _read_deep_colour(path: Path | str) -> npt.NDArray[np.uint16]:
    """Luminance of an image with 16 bits per channel, upright; Pillow keeps only 8 of them."""
    colour = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if colour is None or colour.dtype != np.uint16:
        raise ValueError("OpenCV cannot decode the 16 bits of each colour")
    return cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
