"""What a JPEG, JPEG-LS or JPEG 2000 codestream says of its image. Knows nothing of DICOM and decodes nothing.

Some decoders end the whole process when a codestream is of another size than they were told, so it is read first.
"""

import struct
from dataclasses import dataclass

_JPEG_START, _JPEG_2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_LOWEST_MARKER, _SCAN_MARKER, _ADOBE_MARKER, _PADDING = 0xC0, 0xDA, 0xEE, 0xFF


@dataclass(frozen=True)
class Codestream:
    """The frame header of a codestream: size in pixels, bits per sample and samples per pixel."""

    rows: int
    columns: int
    precision: int
    components: int


def read_codestream(data: bytes) -> Codestream | None:
    """The frame header of `data`.

    Args:
        data: One encoded frame.

    Returns:
        What the frame header says; None where there is no sound one, as in RLE or damaged data.
    """
    try:
        if data.startswith(_JPEG_START):
            return _read_jpeg(data)
        start = data.find(_JPEG_2000_START, 0, 1024)
        return None if start < 0 else _read_jpeg_2000(data, start)
    except (struct.error, IndexError):
        return None


def _read_jpeg(data: bytes) -> Codestream | None:
    """The start-of-frame segment (ISO 10918-1 B.2.2, ISO 14495-1 C.2.2), if every segment before the scan is sound."""
    position, frame = len(_JPEG_START), None
    while data[position] == _PADDING:
        marker = data[position + 1]
        if marker == _PADDING:
            position += 1
            continue
        if marker == _SCAN_MARKER or marker < _LOWEST_MARKER:
            return frame if marker == _SCAN_MARKER else None
        if marker in _FRAME_MARKERS:
            precision, rows, columns, components = struct.unpack_from(">BHHB", data, position + 4)
            frame = Codestream(rows, columns, precision, components)
        if marker == _ADOBE_MARKER and data[position + 4 : position + 9] == b"Adobe" and data[position + 15] > 2:
            return None
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return None


def _read_jpeg_2000(data: bytes, start: int) -> Codestream:
    """The SIZ segment (ISO 15444-1 A.5.1)."""
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    components, depth = struct.unpack_from(">HB", data, start + 40)
    return Codestream(bottom - top, right - left, (depth & 0x7F) + 1, components)
