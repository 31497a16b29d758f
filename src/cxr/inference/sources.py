"""Words of a command line to images: files, folders, patterns, zip files and lists of these.

Knows nothing of what is done with them. Files are told apart by what is in them; a name only tells what is clearly no
image, and only where nobody named the file itself.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TextIO

from cxr.errors import DataError, ImageError
from cxr.imaging.preprocess import Preprocess
from cxr.inference.archive import is_zip, list_members, read_member
from cxr.inference.intake import Intake, take_in, take_in_bytes

LIST = "-"
NO_IMAGES = frozenset(
    {".csv", ".doc", ".docx", ".gz", ".htm", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".pdf", ".tar", ".tsv",
     ".txt", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip"}
)  # fmt: skip
DICOMDIR = "DICOMDIR"
BYTE_ORDER_MARK = "\ufeff"
HIDDEN = "hidden"
LINKED = "linked folder"
_UNPRINTABLE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Source:
    """One image.

    Attributes:
        path: The file.
        member: Its name in that zip file; None where the file is the image.
        fault: Why it stands for no images, in one sentence: a damaged zip file, or a folder that cannot be read.
    """

    path: str
    member: str | None = None
    fault: str | None = None

    def __str__(self) -> str:
        """How it is told, on one line: a zip file counts as a folder."""
        return to_line(self.path if self.member is None else f"{self.path}/{self.member}")


@dataclass(frozen=True)
class Found:
    """What some words stand for.

    Attributes:
        sources: The images, each once, in the order of the words, and in folders by name.
        skipped: Why files in folders and zip files were passed over -> how many.
    """

    sources: list[Source] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def to_line(text: str) -> str:
    """A text in valid Unicode without line ends, bells or colours: such characters, and backslashes, as escapes.

    No two texts become one.
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def find_sources(words: Sequence[str], list_file: TextIO) -> Found:
    """Find the images that words name.

    Args:
        words: Paths of files, folders or zip files, patterns such as ``scans/**/*.dcm``, and ``-`` for a list.
        list_file: Where ``-`` reads, one path a line.

    Raises:
        DataError: A pattern finds nothing, or there is a zip file on another system than Linux.
    """
    found = Found()
    sources = (source for word in words for source in _find(word, list_file, found.skipped))
    found.sources.extend(dict.fromkeys(sources))
    return found


def read_source(source: Source, preprocesses: Sequence[Preprocess], picture_side: int | None = None) -> Intake:
    """`take_in` of a file, or of a member of a zip file without writing it anywhere.

    Raises:
        ImageError: It gives no image.
    """
    if source.fault is not None:
        raise ImageError(source.fault)
    if source.member is None:
        return take_in(source.path, preprocesses, picture_side)
    return take_in_bytes(read_member(Path(source.path), source.member), preprocesses, picture_side)


def _find(word: str, list_file: TextIO, skipped: Counter[str]) -> Iterator[Source]:
    if word == LIST:
        lines = (line.removeprefix(BYTE_ORDER_MARK).rstrip("\r\n") for line in list_file)
        yield from (source for line in lines if line for source in _open(line, skipped))
    elif glob.has_magic(word) and not os.path.lexists(word):
        yield from _match(word, skipped)
    else:
        yield from _open(word, skipped)


def _match(pattern: str, skipped: Counter[str]) -> Iterator[Source]:
    """The files that a pattern finds, or what is in the folders where it finds nothing else."""
    paths = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    if not paths:
        raise DataError(f"expected files that match {pattern}, found none; check the pattern and quote it")
    files = [path for path in paths if not os.path.isdir(path)]  # noqa: PTH112 (see `_open`)
    for path in files:
        if is_zip(Path(path)) or not _skips(Path(path).name, skipped):
            yield from _open(path, skipped)
    if not files:
        yield from (source for path in paths for source in _walk(path, skipped))


def _open(path: str, skipped: Counter[str]) -> Iterator[Source]:
    """What one path stands for; what is not there is found out when it is read."""
    place = Path(path)
    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises where a folder above may not be entered)
        yield from _walk(path, skipped)
    elif is_zip(place):
        _require_memory_files(path)
        yield from _open_zip(place, path, skipped)
    else:
        yield Source(path)


def _open_zip(place: Path, path: str, skipped: Counter[str]) -> Iterator[Source]:
    """The members of a zip file, or the file itself with its fault."""
    try:
        names = list_members(place)
    except DataError as error:
        yield Source(path, fault=str(error))
        return
    inside = (name for name in names if not _is_hidden(PurePosixPath(name).parent, skipped))
    yield from (Source(path, name) for name in inside if not _skips(PurePosixPath(name).name, skipped))


def _require_memory_files(path: str) -> None:
    if not hasattr(os, "memfd_create"):
        raise DataError(f"expected Linux, where members of {path} are read in memory, got another system; unpack it")


def _walk(folder: str, skipped: Counter[str]) -> Iterator[Source]:
    """The files of a folder and of those in it, then the folders that cannot be read."""
    unread: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=unread.append):
        folders[:] = sorted(name for name in folders if not _is_passed(Path(place, name), skipped))
        yield from (Source(str(Path(place, name))) for name in sorted(files) if not _skips(name, skipped))
    for error in unread:
        fault = f"expected a folder that can be read, got {error.strerror}; change who may read it"
        yield Source(str(error.filename), fault=fault)


def _is_passed(folder: Path, skipped: Counter[str]) -> bool:
    """Whether a folder in another is hidden or linked, so that it is not entered; counts it if so."""
    reasons = [HIDDEN] if folder.name.startswith(".") else [LINKED] if folder.is_symlink() else []
    skipped.update(reasons)
    return bool(reasons)


def _is_hidden(folder: PurePosixPath, skipped: Counter[str]) -> bool:
    """Whether a folder in a zip file is hidden, lies in a hidden one, or in one that macOS adds."""
    hidden = any(name.startswith(".") or name == "__MACOSX" for name in folder.parts)
    skipped.update([HIDDEN] if hidden else [])
    return hidden


def _skips(name: str, skipped: Counter[str]) -> bool:
    """Whether a file is clearly no image, by its name; counts it if so."""
    suffix = Path(name).suffix.lower()
    reason = HIDDEN if name.startswith(".") else DICOMDIR if name.upper() == DICOMDIR else suffix
    clear = reason in (HIDDEN, DICOMDIR) or suffix in NO_IMAGES
    skipped.update([reason] if clear else [])
    return clear
