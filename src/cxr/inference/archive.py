"""Members of a zip file, read in memory and within bounds. Knows nothing of what they hold; writes nothing.

A member may lie about its size: no more is unpacked than it declares, and what differs is damaged.
"""

import zipfile
from functools import lru_cache
from pathlib import Path

from cxr.errors import DataError, ImageError

STARTS = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip file begins: with its first member, or with its end where it has none."""
MAX_BYTES = 2**29
"""Largest member in bytes: more than 100 million pixels of 16 bits, twice."""
MAX_RATIO = 200
"""Images of noise and anatomy shrink by less than 20; what shrinks by more than this is hardly one."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others of Python unpack a whole chunk at once, however large it becomes."""
_ENCRYPTED = 0x1


def is_zip(path: Path) -> bool:
    """Whether a file begins like a zip file; of what cannot be read, no."""
    try:
        with path.open("rb") as file:
            return file.read(4) in STARTS
    except (OSError, ValueError):  # a name with a null byte is a ValueError
        return False


def list_members(path: Path) -> list[str]:
    """The names of the files in a zip file, in its order.

    Raises:
        DataError: It is damaged.
    """
    try:
        return [member.filename for member in _open(path).infolist() if not member.is_dir()]
    except Exception as error:  # damage makes zipfile raise nearly any type
        raise DataError(f"expected {path} to be a zip file, got {error}; copy it again") from error


def read_member(path: Path, name: str) -> bytes:
    """The content of one file in a zip file.

    Raises:
        ImageError: It is too large, packed too tightly to be an image, encrypted, or damaged; it names no file.
    """
    try:
        archive = _open(path)
        member = archive.getinfo(name)
        _check(member)
        return archive.read(member)
    except ImageError:
        raise
    except Exception as error:  # as in `list_members`
        raise ImageError(f"expected an undamaged member of a zip file, got {error}; pack it again") from error


def _check(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & _ENCRYPTED:
        raise ImageError("expected a member without a password, got an encrypted one; unpack it first")
    if member.compress_type not in METHODS:
        raise ImageError(
            f"expected a stored or deflated member, got method {member.compress_type}; pack it in the usual way"
        )
    if member.file_size > MAX_BYTES:
        raise ImageError(f"expected at most {MAX_BYTES} bytes in a member, got {member.file_size}; unpack it first")
    if member.file_size > MAX_RATIO * max(member.compress_size, 1):
        raise ImageError(
            f"expected a member that shrinks by less than {MAX_RATIO} times, got {member.compress_size} bytes that "
            f"become {member.file_size}; unpack it first if it is an image"
        )


@lru_cache(maxsize=2)
def _open(path: Path) -> zipfile.ZipFile:
    """Kept open, since a list of many members is read at each opening."""
    return zipfile.ZipFile(path)
