"""What is known of each file, read once: the hash of its bytes and, for DICOM, its header.

Knows nothing of labels, splits or pixels. A file is known by path, size and modification time; one that is rewritten
with both unchanged is not noticed. Every batch is committed before the next, so a killed process loses one batch at
most. Several processes may share one index: one reads what is new, and the others wait for it.
"""

import dataclasses
import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from filelock import FileLock
from rich.progress import Progress

from cxr.data.samples import require_utf8
from cxr.errors import DataError, ImageError
from cxr.imaging.dicom import DicomHeader, read_dicom_header
from cxr.imaging.guard import check_file
from cxr.imaging.image import is_dicom
from cxr.progress import bar_console

_BATCH = 256
_PATIENCE_S = 60.0  # how long to wait for another process that writes
_SHOW_PROGRESS_AFTER_S = 2.0
_HEADER_FIELDS = tuple(field.name for field in dataclasses.fields(DicomHeader))
_TABLE = f"files_{zlib.crc32(','.join(_HEADER_FIELDS).encode()):08x}"  # other header fields: other table


class _Stat(NamedTuple):
    size: int
    mtime_ns: int


class _Known(NamedTuple):
    content_hash: str | None
    header: dict[str, object]
    error: str | None


class FileIndex:
    """A SQLite table of file hashes and DICOM headers.

    Args:
        db_path: The database; its folder is made if there is none.
    """

    def __init__(self, db_path: Path) -> None:
        self._db_path = Path(db_path)

    def describe(self, paths: Sequence[str]) -> pd.DataFrame:
        """Describe the files, reading only those that are new or changed.

        Args:
            paths: Files; absolute paths, so that they mean the same from every working folder.

        Returns:
            One row per path, in the given order: `image_path`, `content_hash` (SHA-256 of the bytes), `error` (why the
            file or its DICOM header cannot be read, else None) and every field of `DicomHeader` (None for other files).

        Raises:
            DataError: The database cannot be used, or a path is not UTF-8.
        """
        require_utf8(paths)
        stats, known = _stat_files(paths)
        with self._connect() as connection:
            known |= _find_known(connection, stats)
            if any(path not in known for path in stats):
                with FileLock(self._db_path.with_suffix(".lock")):
                    known |= _read_unknown(connection, stats)
        return _make_table(paths, known)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db_path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._db_path, timeout=_PATIENCE_S, isolation_level=None)) as connection:
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {_TABLE} "
                    "(path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, "
                    "content_hash TEXT, header TEXT, error TEXT)"
                )
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"expected a usable index of files at {self._db_path}, but got: {error}; "
                "free space or permit writing there, or delete that file, which is made anew from the images"
            ) from error


def _stat_files(paths: Sequence[str]) -> tuple[dict[str, _Stat], dict[str, _Known]]:
    """Return size and time of the files, and of those that have none why."""
    stats, unreadable = {}, {}
    for path in dict.fromkeys(paths):
        try:
            check_file(path)
            found = Path(path).stat()
            stats[path] = _Stat(found.st_size, found.st_mtime_ns)
        except ImageError as error:
            unreadable[path] = _Known(None, {}, str(error))
        except OSError as error:
            unreadable[path] = _unreadable(path, error)
    return stats, unreadable


def _read_unknown(connection: sqlite3.Connection, stats: dict[str, _Stat]) -> dict[str, _Known]:
    """Read and record what no other process has recorded meanwhile; return all that is known."""
    known = _find_known(connection, stats)
    for batch in _read_files([path for path in stats if path not in known]):
        _remember(connection, [(path, stats[path], found) for path, found in batch.items()])
        known |= batch
    return known


def _find_known(connection: sqlite3.Connection, stats: dict[str, _Stat]) -> dict[str, _Known]:
    """Look up the files whose size and time are the recorded ones."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER)")
    connection.executemany(
        "INSERT OR REPLACE INTO wanted VALUES (?, ?, ?)", ((path, *stat) for path, stat in stats.items())
    )
    rows = connection.execute(f"SELECT path, content_hash, header, error FROM {_TABLE} NATURAL JOIN wanted")
    return {path: _Known(content_hash, json.loads(header), error) for path, content_hash, header, error in rows}


def _remember(connection: sqlite3.Connection, batch: list[tuple[str, _Stat, _Known]]) -> None:
    """Record what was read; a file that could not be opened is tried again next time."""
    rows = [
        (path, stat.size, stat.mtime_ns, found.content_hash, json.dumps(found.header), found.error)
        for path, stat, found in batch
        if found.content_hash is not None
    ]
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.execute("COMMIT")


def _read_files(paths: list[str]) -> Iterator[dict[str, _Known]]:
    """Read files in batches on several threads, with a progress bar when it takes longer than two seconds."""
    started = time.monotonic()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))))
        progress = Progress(console=bar_console(), transient=True)
        task = progress.add_task("hashing files", total=len(paths))
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            yield dict(zip(batch, pool.map(_read_file, batch), strict=True))
            progress.advance(task, len(batch))
            if not progress.live.is_started and time.monotonic() - started > _SHOW_PROGRESS_AFTER_S:
                stack.enter_context(progress)


def _read_file(path: str) -> _Known:
    try:
        with Path(path).open("rb") as file:
            content_hash = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return _unreadable(path, error)
    try:
        header = dataclasses.asdict(read_dicom_header(path)) if is_dicom(path) else {}
    except ImageError as error:
        return _Known(content_hash, {}, str(error))
    return _Known(content_hash, header, None)


def _unreadable(path: str, error: OSError) -> _Known:
    return _Known(None, {}, f"{path}: expected a readable file, but got: {error.strerror}; check path and permissions")


def _make_table(paths: Sequence[str], known: dict[str, _Known]) -> pd.DataFrame:
    found = [known[path] for path in paths]
    columns: dict[str, list[object]] = {
        "image_path": list(paths),
        "content_hash": [one.content_hash for one in found],
        "error": [one.error for one in found],
    }
    columns |= {field: [one.header.get(field) for one in found] for field in _HEADER_FIELDS}
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
