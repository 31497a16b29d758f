"""Damaged image files by the thousand, and child processes that read them under a watch.

A file is a function of (seed, number), so one that fails can be made again: `mutated_file(folder, seed, number)`.
"""

import faulthandler
import io
import json
import os
import random
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import UID, JPEGExtended12Bit

from cxr.errors import ImageError
from cxr.imaging.image import read_pixels

from .dicom_files import LOSSLESS, LOSSY, TWELVE_BIT, TWELVE_BIT_JPEG, make_dataset, make_lut, save, save_encoded

SECONDS_PER_FILE = 20
MEMORY_LIMIT = 4 * 2**30
"""Address space of a reading process, in bytes."""
VRS = b"AEASATCSDADSDTFDFLISLOLTOBODOFOLOVOWPNSHSLSQSSSTSVTMUCUIULUNURUSUTUV"
NUMBERS = (0, 1, 2, 3, 7, 8, 9, 12, 15, 16, 17, 24, 32, 63, 64, 65, 255, 256, 4096, 32768, 65535)
LENGTHS = (0, 1, 2, 3, 7, 8, 100, 65534, 65535, 2**20, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
TEXTS = (b"", b" ", b"nan", b"inf", b"1e999", b"-1", b"0", b"x", b"1\\2", b"\\", b"99999999", b"\xff\xfe", b"RGB")
ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"

Change = Callable[[bytearray, random.Random], None]


def mutated_file(folder: Path, seed: int, number: int) -> tuple[str, bytes]:
    """The name of a whole file and its bytes, damaged in one to four ways; `folder` is where whole files are made."""
    rng = random.Random(f"{seed} {number}")
    name, whole = rng.choice(whole_files(folder))
    content = bytearray(whole)
    if name.startswith("Deflated"):
        return name, _change_deflated(content, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_changes(name))(content, rng)
    return name, _with_sound_checksums(content) if name == "PNG" and rng.random() < 0.7 else bytes(content)


@cache
def whole_files(folder: Path) -> list[tuple[str, bytes]]:
    """(name, bytes) of small valid files: DICOM in every transfer syntax, and every other format and mode."""
    return [*_whole_dicoms(folder), *_whole_images()]


def _whole_dicoms(folder: Path) -> list[tuple[str, bytes]]:
    rows, columns = np.mgrid[0:48, 0:40]
    grey = (rows * 80 + columns * 7) % 4096
    window = {"WindowCenter": 2000, "WindowWidth": 3000, "RescaleSlope": 1, "RescaleIntercept": -100}
    luts = {"VOILUTSequence": [make_lut(range(256), 0, 8)], "ModalityLUTSequence": [make_lut(range(256), 0, 8)]}
    colour = np.stack([grey, grey.T.reshape(grey.shape), 4095 - grey], axis=-1) // 16
    files = []
    for syntax in (*LOSSLESS, *LOSSY):
        for kind, stored, elements in (
            ("12 bits", grey.astype(np.uint16), {"bits": 12, "PixelPaddingValue": 7, **window}),
            ("8 bits, tables", (grey // 16).astype(np.uint8), luts),
            ("colour", colour.astype(np.uint8), {"photometric": "RGB"}),
            ("frames", np.concatenate([grey, grey]).astype(np.uint16), {"bits": 12, "Rows": 48, "NumberOfFrames": 2}),
        ):
            if syntax in LOSSY and stored.dtype != np.uint8:
                continue
            path = save(folder / "whole.dcm", make_dataset(stored, **elements), stored, syntax)
            files.append((f"{UID(syntax).keyword}, {kind}", path.read_bytes()))
    deep = save_encoded(folder / "whole.dcm", make_dataset(TWELVE_BIT, 12), TWELVE_BIT_JPEG, JPEGExtended12Bit)
    return [*files, ("JPEGExtended12Bit, 12 bits", deep.read_bytes())]


def _whole_images() -> list[tuple[str, bytes]]:
    rows, columns = np.mgrid[0:48, 0:40]
    grey = Image.fromarray(((rows * 5 + columns * 3) % 256).astype(np.uint8))
    deep = Image.fromarray((rows * 1300 + columns).astype(np.uint16))
    images = {"L": grey, "RGB": grey.convert("RGB"), "P": grey.convert("P"), "1": grey.convert("1"), "I;16": deep}
    images |= {"CMYK": grey.convert("CMYK"), "RGBA": grey.convert("RGBA"), "F": grey.convert("F")}
    options = [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("BMP", {}), ("TIFF", {}), ("WEBP", {})]
    options += [("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")]
    options += [("TIFF", {"compression": "group4"}), ("GIF", {})]
    files = []
    for kind, chosen in options:
        for image in images.values():
            memory = io.BytesIO()
            try:
                image.save(memory, kind, **chosen)
            except (OSError, ValueError, KeyError, RuntimeError):
                continue  # a mode that this format cannot hold
            files.append((kind, memory.getvalue()))
    return files


def _changes(name: str) -> list[Change]:
    anywhere: list[Change] = [_flip_bits, _overwrite, _insert, _delete, _repeat, _truncate]
    if name in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"):
        return [*anywhere, _overwrite_early, _overwrite_number]
    elements: list[Change] = [_change_vr, _change_length, _change_value, _change_value, _change_value, _change_tag]
    elements += [_drop_element, _repeat_element]
    return [*anywhere, *elements, _change_fragment, _change_codestream, _change_codestream]


def _flip_bits(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 8, 30))):
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _overwrite(content: bytearray, rng: random.Random) -> None:
    start, length = _stretch(content, rng)
    content[start : start + length] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))


def _overwrite_early(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3))):
        if content:
            content[rng.randrange(min(len(content), 120))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _overwrite_number(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(max(len(content), 1))
    code = rng.choice(("<H", ">H", "<I", ">I"))
    number = rng.choice(LENGTHS) % 2 ** (8 * struct.calcsize(code))
    content[start : start + struct.calcsize(code)] = struct.pack(code, number)


def _insert(content: bytearray, rng: random.Random) -> None:
    start, length = _stretch(content, rng)
    content[start:start] = rng.randbytes(length)


def _delete(content: bytearray, rng: random.Random) -> None:
    start, length = _stretch(content, rng)
    del content[start : start + length]


def _repeat(content: bytearray, rng: random.Random) -> None:
    start, length = _stretch(content, rng)
    content[start:start] = content[start : start + length] * rng.choice((1, 5))


def _truncate(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _stretch(content: bytearray, rng: random.Random) -> tuple[int, int]:
    return rng.randrange(len(content) + 1), rng.choice((1, 2, 3, 4, 16, 100))


@dataclass(frozen=True)
class Element:
    """Where an element's parts lie in a file."""

    start: int
    value: int
    length: int
    explicit: bool
    order: str


def _elements(content: bytearray) -> list[Element]:
    """Every top-level element whose place can still be found; none in a file that is damaged too much."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(content), force=True)
        raw = [(dataset, list(dataset._dict.values())), (dataset.file_meta, list(dataset.file_meta._dict.values()))]
    except Exception:
        return []
    found = []
    for parent, elements in raw:
        implicit, little = (False, True) if parent is not dataset else dataset.original_encoding
        for element in elements:
            if isinstance(element, pydicom.dataelem.RawDataElement) and element.value is not None:
                long = not implicit and element.VR in pydicom.valuerep.EXPLICIT_VR_LENGTH_32
                start = element.value_tell - (12 if long else 8)
                found.append(Element(start, element.value_tell, element.length, not implicit, "<" if little else ">"))
    return found


def _some_element(content: bytearray, rng: random.Random) -> Element:
    found = _elements(content)
    return rng.choice(found) if found else Element(0, 8, 0, True, "<")


def _change_vr(content: bytearray, rng: random.Random) -> None:
    start = _some_element(content, rng).start
    vr = 2 * rng.randrange(len(VRS) // 2)
    content[start + 4 : start + 6] = VRS[vr : vr + 2]


def _change_length(content: bytearray, rng: random.Random) -> None:
    element = _some_element(content, rng)
    short = element.explicit and element.value - element.start == 8
    number = struct.pack(element.order + ("H" if short else "I"), rng.choice(LENGTHS) % (2**16 if short else 2**32))
    content[element.value - len(number) : element.value] = number


def _change_value(content: bytearray, rng: random.Random) -> None:
    element = _some_element(content, rng)
    end = element.value + min(element.length, 64)
    if element.length == 2:
        content[element.value : end] = struct.pack(element.order + "H", rng.choice(NUMBERS))
    else:
        content[element.value : end] = rng.choice(TEXTS).ljust(end - element.value)[: end - element.value]


def _change_tag(content: bytearray, rng: random.Random) -> None:
    element, other = _some_element(content, rng), _some_element(content, rng)
    content[element.start : element.start + 4] = content[other.start : other.start + 4]


def _drop_element(content: bytearray, rng: random.Random) -> None:
    element = _some_element(content, rng)
    del content[element.start : element.value + min(element.length, len(content))]


def _repeat_element(content: bytearray, rng: random.Random) -> None:
    element = _some_element(content, rng)
    copy = content[element.start : element.value + min(element.length, len(content))]
    content[element.start : element.start] = copy


def _change_fragment(content: bytearray, rng: random.Random) -> None:
    """Damage an item of encapsulated pixel data: its length, its tag, or where it begins."""
    starts = [place for place in range(len(content)) if content.startswith((ITEM, DELIMITER), place)]
    if not starts:
        return _flip_bits(content, rng)
    start = rng.choice(starts)
    what = rng.randrange(4)
    if what == 0:
        content[start + 4 : start + 8] = struct.pack("<I", rng.choice(LENGTHS))
    elif what == 1:
        content[start : start + 4] = rng.choice((ITEM, DELIMITER, b"\0\0\0\0"))
    elif what == 2:
        content[start:start] = ITEM + struct.pack("<I", rng.choice((0, 4, 100)))
    else:
        del content[start : start + 8]
    return None


def _change_codestream(content: bytearray, rng: random.Random) -> None:
    """Damage the first bytes of the pixels, where a codec has its own header."""
    start = content.rfind(b"\xe0\x7f\x10\x00")
    for _ in range(rng.choice((1, 1, 2, 6))):
        place = start + 8 + rng.randrange(rng.choice((60, 200)))
        if place < len(content):
            content[place] = rng.choice((0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, content[place] ^ 1 << rng.randrange(8)))


def _change_deflated(content: bytearray, rng: random.Random) -> bytes:
    """Damage what is inside the deflated part, or the deflated part."""
    start = len(content) if len(content) < 144 else 144 + struct.unpack_from("<I", content, 140)[0]
    inner = bytearray(zlib.decompress(content[start:], -zlib.MAX_WBITS))
    inside = rng.random() < 0.6
    rng.choice((_flip_bits, _overwrite, _insert, _delete, _truncate))(inner if inside else content, rng)
    if not inside:
        return bytes(content)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return bytes(content[:start]) + packer.compress(inner) + packer.flush()


def _with_sound_checksums(content: bytearray) -> bytes:
    """A PNG whose chunks have the checksum of what they hold, so that damage gets past it."""
    place = 8
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            break
        struct.pack_into(">I", content, end, zlib.crc32(content[place + 4 : end]))
        place = end + 4
    return bytes(content)


@dataclass
class Report:
    """What became of the files.

    Attributes:
        images: Number of files that gave an image.
        refused: Number of files that gave an ImageError.
        wrong: One line for each file that crashed or hung its process, raised another error or gave a wrong array.
        peak_bytes: Largest resident memory of a reading process.
    """

    images: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    peak_bytes: int = 0


def read_apart(folder: Path, seed: int, count: int) -> Report:
    """Read the mutated files 0 to `count` of `seed` in child processes, a new one after each that dies."""
    report, number = Report(), 0
    while number < count:
        lines, status = _run_child(folder, seed, number, count)
        titles = [line["title"] for line in lines if "title" in line]
        number += len(titles)
        for line in lines:
            report.images += line.get("image", 0)
            report.refused += line.get("refused", 0)
            report.wrong += [line["fault"]] if "fault" in line else []
            report.peak_bytes = max(report.peak_bytes, line.get("peak", 0))
        if status != 0 and not titles:
            raise RuntimeError(f"the reading process ended before its first file: {status}")
        if status != 0:
            report.wrong.append(f"{titles[-1]} ended its process: {status}")
    return report


def _run_child(folder: Path, seed: int, first: int, count: int) -> tuple[list[dict], int]:
    child = subprocess.run(
        [sys.executable, "-m", "imaging.fuzzing", str(folder), str(seed), str(first), str(count)],
        cwd=Path(__file__).parents[1], env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
    )  # fmt: skip
    return [json.loads(line) for line in child.stdout.splitlines()], child.returncode


def _read_here(folder: Path, seed: int, first: int, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    for number in range(first, count):
        name, content = mutated_file(folder, seed, number)
        title = f"file {number} of seed {seed} ({name})"
        (folder / "mutated file").write_bytes(content)
        print(json.dumps({"title": title}), flush=True)
        faulthandler.dump_traceback_later(SECONDS_PER_FILE, exit=True)
        print(json.dumps(judge(folder / "mutated file", title)), flush=True)
        faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"peak": _peak_bytes()}), flush=True)


def _peak_bytes() -> int:
    """Largest resident memory of this program; `getrusage` would tell that of its parent before `exec` as well."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def judge(path: Path, title: str) -> dict:
    """`{"image": 1}`, `{"refused": 1}`, or `{"fault": sentence}` for what should not be."""
    try:
        pixels = read_pixels(path)
    except ImageError as error:
        sentence = str(error)
        named = sentence.startswith(f"{path}: expected ") and "\n" not in sentence
        return {"refused": 1} if named else {"fault": f"{title}: message {sentence!r}"}
    except BaseException as error:
        return {"fault": f"{title}: {type(error).__name__}: {error}"}
    whole = pixels.dtype == np.float32 and pixels.ndim == 2 and pixels.size > 0
    sound = whole and np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1
    return {"image": 1} if sound else {"fault": f"{title}: {pixels.dtype} {pixels.shape} not in [0, 1]"}


if __name__ == "__main__":
    _read_here(Path(sys.argv[1]), *map(int, sys.argv[2:]))
