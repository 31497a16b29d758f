"""What every reader of image files refuses, and how it says so. Knows nothing of any file format."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr.errors import ImageError

MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels: a 14x17 inch film scanned at 600 dpi has 86 million."""

MAX_BYTES = 2**32
"""Largest file that is read whole, in bytes: more than MAX_PIXELS of 16-bit colour take in seven frames."""


def image_error(path: Path | str, sentence: str) -> ImageError:
    """The error that says `sentence` of `path`, on one line whatever bytes of the file it quotes."""
    return ImageError(f"{path}: {' '.join(sentence.split())}")


@contextmanager
def image_errors(path: Path | str, expected: str) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into one ImageError.

    Damaged files make decoders raise nearly any type (struct.error, zlib.error, KeyError, RecursionError ...),
    so every Exception is taken; only decoder calls belong into the block.

    Args:
        path: The file, named in the message.
        expected: What the file should have been, for example ``"a PNG, JPEG, TIFF or BMP image"``.

    Raises:
        ImageError: For every exception in the block; an ImageError passes unchanged.
    """
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise image_error(path, f"expected {expected}, but there is no such file; check the path") from error
    except Exception as error:
        of_the_disk = isinstance(error, OSError) and error.errno is not None
        remedy = "check the path and its permissions" if of_the_disk else "export the file again or leave it out"
        raise image_error(path, f"expected {expected}, but got {reason(error)}; {remedy}") from error


def reason(error: Exception) -> str:
    """The error's type and at most 200 characters of its own words."""
    words = str(error).strip()
    return f"{type(error).__name__}: {words[:200]}" if words else type(error).__name__


def check_file(path: Path | str) -> None:
    """Refuse what is no regular file, which may never end, or one too large to be read whole; opens nothing.

    Args:
        path: The file; symbolic links are followed.

    Raises:
        ImageError: If it is a folder, a pipe or a device, has more than MAX_BYTES, or the path holds a null byte.
        OSError: If there is nothing, or it cannot be reached.
    """
    if "\0" in str(path):
        raise image_error(path, "expected the path of a file, but it holds a null byte; write the path without it")
    found = Path(path).stat()
    if stat.S_ISDIR(found.st_mode):
        raise image_error(path, "expected an image file, but it is a folder; name the files in it")
    if not stat.S_ISREG(found.st_mode):
        raise image_error(path, "expected an image file, but it is a pipe, a socket or a device; copy it into a file")
    if found.st_size > MAX_BYTES:
        raise image_error(
            path, f"expected at most {MAX_BYTES} bytes, but the file has {found.st_size}; export one frame of it"
        )


def check_size(path: Path | str, rows: int | None, columns: int | None) -> None:
    """Refuse an image without pixels, or one too large to decode, before any memory is taken.

    Args:
        path: The file, named in the message.
        rows: Declared height in pixels; None where the file declares none.
        columns: Declared width in pixels; None where the file declares none.

    Raises:
        ImageError: If a side is missing or not positive, or there are more than MAX_PIXELS pixels.
    """
    if rows is None or columns is None or rows < 1 or columns < 1:
        raise image_error(
            path,
            f"expected at least one row and one column, but got {rows} x {columns}; export the file again",
        )
    if rows * columns > MAX_PIXELS:
        raise image_error(
            path,
            f"expected at most {MAX_PIXELS} pixels, but the file declares {rows} x {columns}; "
            "export it again, or downsample it if it is really that large",
        )
