"""A DICOM file to pydicom's data set, within bounds and without a word from pydicom. Knows nothing of what is in it."""

import logging
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from cxr.imaging import guard
from cxr.imaging.guard import check_file, image_error, image_errors

_META_GROUP = 0x0002
_CHUNK = 2**20
_ONE_AT_A_TIME = threading.RLock()


def read_data_set(path: Path | str, **options: Any) -> Dataset:
    """Read a DICOM file; a missing preamble or file meta is accepted.

    Args:
        path: The file.
        options: Of `pydicom.dcmread`.

    Raises:
        ImageError: If it is no regular file, larger than MAX_BYTES (inflated, where it is deflated), or damaged.
    """
    with image_errors(path, "a DICOM file"), without_pydicom_words():
        check_file(path)
        _check_inflated_size(path)
        return pydicom.dcmread(path, force=True, **options)


@contextmanager
def without_pydicom_words() -> Iterator[None]:
    """Drop what pydicom warns and logs, since it quotes values of elements (names, ids).

    Warnings are caught for the whole process, so only one thread is in such a block at a time.
    """
    logger = logging.getLogger("pydicom")
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        passed_on, logger.propagate = logger.propagate, False
        try:
            yield
        finally:
            logger.propagate = passed_on


def _check_inflated_size(path: Path | str) -> None:
    """Refuse a deflated data set that would fill the memory: pydicom inflates it at once."""
    with Path(path).open("rb") as file:
        read_preamble(file, force=True)
        meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=_is_behind_meta)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        inflater, size, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, b""
        while size <= guard.MAX_BYTES and (rest or (rest := file.read(_CHUNK))):
            size += len(inflater.decompress(rest, _CHUNK))
            rest = inflater.unconsumed_tail
    if size > guard.MAX_BYTES:
        raise image_error(
            path, f"expected at most {guard.MAX_BYTES} bytes once inflated, but there are more; leave it out"
        )


def _is_behind_meta(tag: int, vr: str | None, length: int) -> bool:
    return tag >> 16 != _META_GROUP
