"""How large the image caches of one folder may grow together: unused ones give way to the one being built.

Knows nothing of what a cache holds, but that it is a folder with a `build.lock`, and that its `preprocess.json` is
touched when it is used.
"""

import logging
import os
import shutil
import time
from pathlib import Path

from filelock import FileLock, Timeout
from rich.filesize import decimal

from cxr.errors import DataError

log = logging.getLogger(__name__)

SECONDS_IN_USE = 24 * 3600.0  # a cache touched within a day may be that of a run still training
MARK = "preprocess.json"


def make_room(own: Path, needed: int, max_bytes: int) -> None:
    """Delete the longest unused sibling caches until `needed` more bytes fit under the bound.

    Args:
        own: The cache that is to grow; its siblings are the other caches of its parent folder.
        needed: Bytes that it is to grow by.
        max_bytes: What all caches of the parent folder may hold together.

    Raises:
        DataError: They do not fit, even without every cache that was not used for a day.
    """
    for trash in own.parent.glob(".*.deleted"):
        shutil.rmtree(trash, ignore_errors=True)
    excess = _size(own.parent) + needed - max_bytes
    for cache in _unused(own):
        if excess <= 0:
            return
        excess -= _delete(cache)
    if excess > 0:
        raise DataError(
            f"the image caches in {own.parent} may hold {decimal(max_bytes)}, but {decimal(needed)} more would make "
            f"{decimal(excess + max_bytes)}; raise data.cache_max_gb, delete caches there, or go without by "
            "data.cache=false"
        )


def mark_used(cache: Path) -> None:
    """Note that `cache` is in use now; a cache that cannot be written cannot be deleted either."""
    if (cache / MARK).exists():
        try:
            (cache / MARK).touch()
        except OSError:
            log.debug("cannot mark %s as used", cache)


def _unused(own: Path) -> list[Path]:
    """The sibling caches not used for a day, the longest unused first."""
    marks = {mark.parent: _stat(mark) for mark in own.parent.glob(f"*/{MARK}") if mark.parent != own}
    used = {cache: found.st_mtime for cache, found in marks.items() if found is not None}
    return [cache for cache in sorted(used, key=used.__getitem__) if time.time() - used[cache] > SECONDS_IN_USE]


def _delete(cache: Path) -> int:
    """Delete a cache unless it is being built; returns the bytes gained."""
    size = _size(cache)
    try:
        with FileLock(cache / "build.lock", timeout=0):
            doomed = cache.rename(cache.with_name(f".{cache.name}.deleted"))
    except (Timeout, FileNotFoundError):  # or another process has deleted it
        return 0
    shutil.rmtree(doomed, ignore_errors=True)
    log.info("deleted the image cache %s, %s not used for a day, to keep data.cache_max_gb", cache, decimal(size))
    return size


def _size(folder: Path) -> int:
    """Bytes of the files below `folder`; another process may delete some of them meanwhile."""
    files = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return sum(found.st_size for found in map(_stat, files) if found is not None)


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.lstat()
    except FileNotFoundError:
        return None
