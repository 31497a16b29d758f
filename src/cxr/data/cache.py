"""Decode once: preprocessed images on disk, found by the hash of their file's bytes.

Knows nothing of labels, splits or torch. A row is in the index only after its pixels are on the disk: a process killed
while it builds loses its last batches and nothing else. Not guaranteed: a file that changes between the hashing of its
bytes and their decoding is stored under the old hash.
"""

import errno
import json
import logging
import multiprocessing
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from cxr.data.cache_index import CacheIndex, DamagedCacheError, Known
from cxr.data.cache_room import make_room, mark_used
from cxr.data.decoding import Decoded, StoredArray, decode_files
from cxr.data.image_store import Rows, StoredImages
from cxr.errors import DataError
from cxr.imaging.preprocess import Preprocess

log = logging.getLogger(__name__)

ImageSource = Callable[[Mapping[str, str]], Iterator[list[tuple[str, Decoded]]]]
"""File -> content hash; gives each file's image or why there is none, batch by batch."""
PATH_MARK = "{path}"
SECONDS_BETWEEN_MARKS = 3600.0  # well below the day after which an unused cache may give way
CANNOT_RESERVE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


class ImageCache:
    """Stored images in one flat memory-mapped file, with a SQLite index from content hash to row.

    Args:
        folder: The cache of all preprocessings; this one has the sub-folder named by its `stored_fingerprint`.
        preprocess: What makes a stored image of pixels.
        workers: Number of decoding processes; None is one per usable core.
        max_bytes: What all caches of `folder` may hold together; None for no bound. Those that no run has used for a
            day give way.
        source: Gives images where files would be decoded, see `cxr.data.shards.ShardReader`; None decodes.
    """

    def __init__(
        self,
        folder: Path,
        preprocess: Preprocess,
        workers: int | None = None,
        max_bytes: int | None = None,
        source: ImageSource | None = None,
    ) -> None:
        self.stored_fingerprint = preprocess.stored_fingerprint
        self.folder = Path(folder) / self.stored_fingerprint
        self._preprocess = preprocess
        self._workers = workers
        self._max_bytes = max_bytes
        self._source = source
        self._dtype = np.dtype(preprocess.precision)
        self._image_bytes = preprocess.size[0] * preprocess.size[1] * self._dtype.itemsize
        layout = f"{preprocess.precision} {preprocess.size[0]}x{preprocess.size[1]}"
        self._index = CacheIndex(self.folder / "index.sqlite", layout)
        self._images = self.folder / "images.bin"
        self._map: StoredArray | None = None
        self._marked = -SECONDS_BETWEEN_MARKS

    def build(self, paths: Sequence[str], hashes: Sequence[str]) -> dict[str, str]:
        """Decode what is not stored yet; the same content is stored once, whatever its path.

        Two processes may build at once: the second waits and then decodes what is still missing.

        Args:
            paths: The files.
            hashes: The hash of each file's bytes.

        Returns:
            path -> error of each file that gives no image, from this build or an earlier one.

        Raises:
            DataError: The cache folder cannot be written (full disk, no permission) or may not grow so large.
        """
        first_paths: dict[str, str] = {}
        for key, path in zip(hashes, paths, strict=True):
            first_paths.setdefault(key, path)
        errors: dict[str, str] = {}
        if self._lacks(first_paths):
            with self._exclusive():
                errors = self._add_missing(first_paths)
            self._map = None
        errors |= self._index.load().errors
        found = zip(paths, hashes, strict=True)
        return {path: errors[key].replace(PATH_MARK, path) for path, key in found if key in errors}

    def rows(self, hashes: Sequence[str]) -> Rows:
        """(N,) rows of the images with these content hashes.

        Raises:
            DataError: An image is not in the cache, or the cache is damaged.
        """
        stored = self._load_sound_index().rows
        absent = [key for key in hashes if key not in stored]
        if absent:
            raise DataError(
                f"expected {len(hashes)} images in the cache {self.folder}, but {len(absent)} are not there "
                f"(first content hash: {absent[0]}); call build() with their files first"
            )
        return np.array([stored[key] for key in hashes], dtype=np.int64)

    def read(self, rows: Rows) -> StoredArray:
        """(N, h, w) stored images of the (N,) rows, a copy; the file is mapped at the first call in each process.

        While it is read from, the cache counts as used, however long ago it was opened.

        Raises:
            DataError: The file is shorter than the rows need.
        """
        self._mark_used()
        needed = int(rows.max()) + 1 if len(rows) else 0
        if self._map is None or needed > len(self._map):
            self._map = self._open_map()
        if needed > len(self._map):
            raise DamagedCacheError(self._shortness(needed))
        return self._map[rows]

    def open(self, paths: Sequence[str], hashes: Sequence[str]) -> StoredImages:
        """The images of these files.

        Raises:
            DataError: An image is not in the cache, or the cache is damaged.
        """
        del paths
        self._mark_used()
        return _CachedImages(self, self.rows(hashes))

    def _mark_used(self) -> None:
        """Note the use at intervals: a run that reads for days keeps its cache, and most reads cost nothing more."""
        now = time.monotonic()
        if now - self._marked >= SECONDS_BETWEEN_MARKS:
            mark_used(self.folder)
            self._marked = now

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None, "_marked": -SECONDS_BETWEEN_MARKS}

    def _lacks(self, first_paths: dict[str, str]) -> bool:
        try:
            known = self._load_sound_index()
        except DamagedCacheError:
            return True
        return any(key not in known.rows and key not in known.errors for key in first_paths)

    def _load_sound_index(self) -> Known:
        known = self._index.load()
        count = known.count_rows()
        if count and not (self._images.exists() and self._images.stat().st_size >= count * self._image_bytes):
            raise DamagedCacheError(self._shortness(count))
        return known

    def _add_missing(self, first_paths: dict[str, str]) -> dict[str, str]:
        """Decode and store; return content hash -> error of the files that may be good another time."""
        try:
            known = self._load_sound_index()
        except DamagedCacheError as error:
            log.warning("%s; it is built anew", error)
            self._index.path.unlink(missing_ok=True)
            self._images.unlink(missing_ok=True)
            known = Known({}, {})
        missing = {path: key for key, path in first_paths.items() if key not in known.rows and key not in known.errors}
        passing: dict[str, str] = {}
        if not missing:
            return passing
        self._describe()
        if self._max_bytes is not None:
            make_room(self.folder, len(missing) * self._image_bytes, self._max_bytes)
        count = known.count_rows()
        with self._reserved(count, len(missing)) as file:
            for batch in self._make(missing):
                results = [(missing[path], path, decoded) for path, decoded in batch]
                count = self._commit(file, count, results)
                passing |= {key: _message(path, d) for key, path, d in results if d.error is not None}
        log.info("%d images of %s in %s", count, _megabytes(count * self._image_bytes), self.folder)
        return passing

    def _make(self, missing: dict[str, str]) -> Iterator[list[tuple[str, Decoded]]]:
        """The stored images of files, batch by batch."""
        if self._source is None:
            return decode_files(list(missing), self._preprocess, self._workers)
        return self._source(missing)

    def _commit(self, file: FileIO, count: int, results: list[tuple[str, str, Decoded]]) -> int:
        """Write a batch behind the first `count` images, then tell the index; return the new count."""
        good = [(key, decoded.content) for key, _, decoded in results if decoded.content is not None]
        errors = {key: _message(path, decoded) for key, path, decoded in results if decoded.lasting}
        with self._writing(len(good)):
            file.seek(count * self._image_bytes)
            _write_all(file, b"".join(stored.tobytes() for _, stored in good))
            os.fsync(file.fileno())
            self._index.add({key: count + offset for offset, (key, _) in enumerate(good)}, errors)
        return count + len(good)

    def _describe(self) -> None:
        with self._writing(0):
            text = json.dumps(self._preprocess.to_dict(), indent=2) + "\n"
            (self.folder / "preprocess.json").write_text(text)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        _refuse_in_starting_process()
        lock = FileLock(self.folder / "build.lock")
        with self._writing(0):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0.2)
            except Timeout:
                log.info("another process builds the cache %s; waiting for it", self.folder)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _reserved(self, count: int, missing: int) -> Iterator[FileIO]:
        """The images file with room for `missing` more, so that a full disk shows before the decoding, not in it."""
        with self._writing(missing):
            self._images.touch()
        with self._images.open("r+b", buffering=0) as file:
            try:
                with self._writing(missing):
                    _reserve(file, count * self._image_bytes, missing * self._image_bytes)
                yield file
            finally:
                file.truncate(self._index.load().count_rows() * self._image_bytes)

    @contextmanager
    def _writing(self, images: int) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            free = shutil.disk_usage(_nearest_folder(self.folder)).free
            raise DataError(
                f"cannot write the image cache {self.folder}: {error} ({images * self._image_bytes} bytes needed, "
                f"{free} free); make room, choose another folder by paths.cache_dir or the environment variable "
                "CXR_CACHE_DIR, or go without by data.cache=false"
            ) from error

    def _open_map(self) -> StoredArray:
        shape = self._preprocess.size
        count = self._images.stat().st_size // self._image_bytes if self._images.exists() else 0
        if count == 0:
            return np.empty((0, *shape), self._dtype)
        return np.asarray(np.memmap(self._images, self._dtype, "r", shape=(count, *shape)))

    def _shortness(self, count: int) -> str:
        return (
            f"the cache {self.folder} is damaged: expected {count} images of {self._image_bytes} bytes in "
            f"{self._images.name}, but the file is shorter; call build() again or delete the folder"
        )


@dataclass(frozen=True)
class _CachedImages:
    cache: ImageCache
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Rows) -> StoredArray:
        return self.cache.read(self.rows[rows])


def _refuse_in_starting_process() -> None:
    """Raise in a decoding process that runs its parent's script again: it would wait for the lock of its parent.

    Scripts without `if __name__ == "__main__":` are run again by each process that they start.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError("a script that builds a cache must do so under `if __name__ == '__main__':`")


def _message(path: str, decoded: Decoded) -> str:
    """The error with the path taken out, since the same content may lie elsewhere next time."""
    return str(decoded.error).replace(path, PATH_MARK)


def _write_all(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _reserve(file: FileIO, start: int, length: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), start, length)
        except OSError as error:
            if error.errno not in CANNOT_RESERVE:
                file.truncate(start)
                raise
    elif shutil.disk_usage(Path(file.name).parent).free < length:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _nearest_folder(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
