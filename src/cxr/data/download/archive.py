"""Zip archives from elsewhere: checked before a byte is written, verified while they are unpacked.

Knows nothing of where an archive came from. A hostile archive cannot write outside its target, make links, or fill the
disk; a damaged one is found by its checksums.
"""

import lzma
import shutil
import stat
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from cxr.data.download.progress import byte_bar
from cxr.errors import DataError

CHUNK_BYTES = 1 << 20
MAX_FILES = 1_000_000
LONGEST_END = 22 + 0xFFFF  # bytes: the record at the end of an archive with the longest comment
COUNTED_ELSEWHERE = 0xFFFF  # in archives of more files (zip64)
MAX_RATIO = 200.0  # extracted / archive bytes of the whole archive; images reach about 10
DAMAGED = (BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, ValueError)


def extract_archive(archive: Path, target: Path, max_bytes: int, root: str = "", skip: Sequence[str] = ()) -> None:
    """Unpack a zip file into a new folder, verifying every checksum.

    Args:
        archive: The zip file.
        target: Folder to make; when an error is raised it may hold some of the files.
        max_bytes: An archive with more content is refused before anything is written.
        root: Folder inside the archive whose content goes into `target`, with a slash at the end, or "".
        skip: Beginnings of paths below `root` that are left out; macOS's own files always are.

    Raises:
        DataError: the archive is damaged, unsafe, too large or does not fit on the disk.
        OSError: the disk cannot be written.
    """
    try:
        with ZipFile(archive) as source:
            _check_count(source, archive)
            members = [(info, _path_below(root, info, archive)) for info in source.infolist()]
            wanted = [(info, path) for info, path in members if _is_wanted(info, path, skip)]
            _check_size([info for info, _ in wanted], archive, target.parent, max_bytes)
            _extract(source, wanted, target)
    except DAMAGED as error:
        raise DataError(
            f"{archive} is damaged ({error}); delete it and repeat the command to download it again"
        ) from error


def _check_count(source: ZipFile, archive: Path) -> None:
    """BadZipFile where the end of the directory announces another number of files than it lists."""
    with archive.open("rb") as stream:
        stream.seek(max(0, archive.stat().st_size - LONGEST_END))
        end = stream.read()
    (announced,) = struct.unpack_from("<H", end, end.rfind(b"PK\5\6") + 10)
    if announced not in (COUNTED_ELSEWHERE, len(source.infolist())):
        raise BadZipFile(f"it announces {announced} files and lists {len(source.infolist())}")


def _path_below(root: str, info: ZipInfo, archive: Path) -> PurePosixPath:
    """Where a member goes, relative to the target; DataError if that could be anywhere else."""
    name = info.filename.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise _unsafe(archive, f"{info.filename!r} points outside the target folder")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe(archive, f"{info.filename!r} is a link or a device")
    if info.flag_bits & 0x1:
        raise _unsafe(archive, f"{info.filename!r} is encrypted")
    below = PurePosixPath(name.removeprefix(root))
    if not below.parts and not name.endswith("/"):
        raise BadZipFile(f"{info.filename!r} is no file name")
    return below


def _is_wanted(info: ZipInfo, path: PurePosixPath, skip: Sequence[str]) -> bool:
    made_by_macos = "__MACOSX" in path.parts or path.name == ".DS_Store" or path.name.startswith("._")
    return not (info.is_dir() or made_by_macos or str(path).startswith(tuple(skip)))


def _check_size(infos: Sequence[ZipInfo], archive: Path, folder: Path, max_bytes: int) -> None:
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise _unsafe(archive, f"it would unpack to {format_size(total)}, expected at most {format_size(max_bytes)}")
    ratio = total / archive.stat().st_size
    if ratio > MAX_RATIO:
        raise _unsafe(archive, f"it would grow {ratio:.0f} times when unpacked, expected at most {MAX_RATIO:.0f} times")
    if len(infos) > MAX_FILES:
        raise _unsafe(archive, f"it holds {len(infos)} files, expected at most {MAX_FILES}")
    require_space(folder, total)


def _extract(source: ZipFile, wanted: Sequence[tuple[ZipInfo, PurePosixPath]], target: Path) -> None:
    done = 0
    with byte_bar("unpack", sum(info.file_size for info, _ in wanted)) as show:
        for info, path in wanted:
            done = _write_member(source, info, target / path, done, show)


def _write_member(source: ZipFile, info: ZipInfo, destination: Path, done: int, show: Callable[[int], None]) -> int:
    """Write one file and return the bytes written in all."""
    end = done + info.file_size
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with source.open(info) as packed, destination.open("xb") as plain:
            while chunk := packed.read(CHUNK_BYTES):
                done += len(chunk)
                plain.write(chunk)
                show(done)
    except (FileExistsError, NotADirectoryError) as error:
        raise BadZipFile(f"{info.filename!r} is in it twice") from error
    if done != end:
        raise BadZipFile(f"{info.filename!r} is not as long as announced")
    return done


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk that `folder` is or would be on."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    return shutil.disk_usage(existing).free


def require_space(folder: Path, needed: int) -> None:
    """DataError unless the disk of `folder` has `needed` bytes free."""
    free = free_bytes(folder)
    if needed > free:
        raise DataError(
            f"{folder} needs {format_size(needed)} more, but {format_size(free)} are free; make room, or choose a "
            "folder on another disk with --out or CXR_DATA_DIR"
        )


def _unsafe(archive: Path, reason: str) -> DataError:
    return DataError(f"{archive} is not safe to unpack: {reason}; delete it and download it again from its own page")


def format_size(count: int) -> str:
    """Bytes for people to read."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
