"""Many image files to stored images, in parallel processes, with the bad files named instead of raised.

Knows nothing of the cache, of tables or of torch. A decoder that crashes or never ends costs only the file that did it.
"""

import faulthandler
import importlib.metadata
import json
import logging
import multiprocessing
import os
import re
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import cv2
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cxr.errors import ImageError
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Preprocess
from cxr.progress import bar_console

log = logging.getLogger(__name__)

StoredArray = NDArray[Any]  # uint8 or uint16

FILES_PER_WORKER_AND_BATCH = 16
SECONDS_PER_FILE = 120.0  # no file that gives an image takes so long; only one that keeps its decoder in a loop
SECONDS_BEFORE_PROGRESS = 2.0
DECODING_PACKAGES = (
    "cxr-lab",
    "pydicom",
    "python-gdcm",
    "pyjpegls",
    "pylibjpeg-openjpeg",
    "pillow",
    "opencv-python-headless",
)


@dataclass(frozen=True)
class Decoded:
    """What became of one file.

    Attributes:
        stored: (h, w) uint8 or uint16 as `Preprocess.store` gives it, or None for a bad file.
        error: One sentence why there is no image, or None.
        lasting: True where the error lies in the file's bytes, so that trying again gives the same.
        warned: The texts of the warnings raised on the way.
    """

    stored: StoredArray | None = None
    error: str | None = None
    lasting: bool = False
    warned: tuple[str, ...] = ()


def decode_file(path: str, preprocess: Preprocess) -> Decoded:
    """Read one file and preprocess it for storage; a bad file is a result, not an exception."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            stored = _read_stored(path, preprocess)
        except ImageError as error:
            text = str(error)
            return Decoded(error=text if path in text else f"{path}: {text}", lasting=_lasts(error))
    return Decoded(stored, warned=tuple(str(warning.message) for warning in caught))


def decode_files(
    paths: Sequence[str], preprocess: Preprocess, workers: int | None = None
) -> Iterator[list[tuple[str, Decoded]]]:
    """Decode files batch by batch, in the order given.

    A file whose decoder crashes, is killed or takes longer than SECONDS_PER_FILE is a bad file; the others go on.
    Shows a progress bar with the time left when the work takes longer than two seconds, and at the end logs the
    warnings of the decoders once per kind with their count.

    Args:
        paths: The files.
        preprocess: What makes a stored image of the pixels.
        workers: Largest number of processes; None is one per usable core; 0 decodes in this process, unguarded.

    Yields:
        Lists of (path, Decoded).
    """
    processes = min(_count_cores() if workers is None else workers, -(-len(paths) // FILES_PER_WORKER_AND_BATCH))
    size = FILES_PER_WORKER_AND_BATCH * max(processes, 1)
    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    results = _decode_apart(batches, preprocess, processes) if processes else _decode_here(batches, preprocess)
    warned: list[tuple[str, str]] = []
    for batch in _show_progress(results, len(paths)):
        warned += [(path, text) for path, decoded in batch for text in decoded.warned]
        yield batch
    _log_warnings(warned)


def decoder_versions() -> str:
    """The installed versions of all that decodes, as JSON: a file that is bad with one set may be good with another."""
    versions: dict[str, str | None] = {}
    for package in DECODING_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return json.dumps(versions)


def _read_stored(path: str, preprocess: Preprocess) -> StoredArray:
    pixels = read_pixels(path)
    if pixels.min() == pixels.max():
        raise ImageError(
            f"{path}: constant image, every pixel is {pixels.flat[0]:g}; expected at least two grey values"
        )
    return preprocess.store(pixels)


def _lasts(error: ImageError) -> bool:
    """Whether the file's bytes are at fault, not the disk (an OSError with a number) or the memory of this moment."""
    cause = error.__cause__
    return not (isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None))


def _log_warnings(warned: Sequence[tuple[str, str]]) -> None:
    """One record for each kind: texts that differ in path and numbers only are of one kind."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for path, text in warned:
        pathless = text.replace(path, "").lstrip(": ")
        kinds.setdefault(re.sub(r"\d+", "#", pathless), []).append((path, pathless))
    for found in kinds.values():
        path, text = found[0]
        log.warning("%s (%d times while decoding)", text, len(found))
        log.debug("first of them in %s", path)


def _count_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _decode_here(batches: list[Sequence[str]], preprocess: Preprocess) -> Iterator[list[tuple[str, Decoded]]]:
    for batch in batches:
        yield [(path, decode_file(path, preprocess)) for path in batch]


def _decode_apart(
    batches: list[Sequence[str]], preprocess: Preprocess, processes: int
) -> Iterator[list[tuple[str, Decoded]]]:
    remaining = deque(batches)
    while remaining:
        pool = _start_pool(processes)
        try:
            if not _starts(pool):
                log.warning("worker processes cannot start here, so files are decoded one after the other")
                yield from _decode_here(list(remaining), preprocess)
                return
            for results in _decode_ahead(pool, remaining, preprocess):
                yield list(zip(remaining.popleft(), results, strict=True))
        except BrokenProcessPool:
            batch = remaining.popleft()
            yield list(zip(batch, _decode_isolated(batch, preprocess), strict=True))
        finally:
            pool.shutdown(cancel_futures=True)


def _decode_ahead(
    pool: ProcessPoolExecutor, batches: Sequence[Sequence[str]], preprocess: Preprocess
) -> Iterator[list[Decoded]]:
    """Results of batch after batch, with the next batch always under way while one is written."""
    decode = partial(_decode_in_time, preprocess=preprocess, seconds=SECONDS_PER_FILE)
    under_way: deque[Iterator[Decoded]] = deque()
    for batch in tuple(batches):
        under_way.append(pool.map(decode, batch, chunksize=4))
        if len(under_way) > 1:
            yield list(under_way.popleft())
    while under_way:
        yield list(under_way.popleft())


def _decode_isolated(paths: Sequence[str], preprocess: Preprocess) -> list[Decoded]:
    """One file at a time in a process of its own kind, so that a crash names its file."""
    results = []
    pool = _start_pool(1)
    for path in paths:
        began = time.monotonic()
        try:
            results.append(pool.submit(_decode_in_time, path, preprocess, SECONDS_PER_FILE).result())
        except BrokenProcessPool:
            results.append(Decoded(error=f"{path}: {_why_it_ended(time.monotonic() - began)}"))
            pool = _start_pool(1)
    pool.shutdown()
    return results


def _why_it_ended(seconds: float) -> str:
    if seconds >= SECONDS_PER_FILE:
        return (
            f"expected an image within {SECONDS_PER_FILE:g} s, but decoding it took longer and was stopped; "
            "export the file again or leave it out"
        )
    return (
        "expected an image, but the process that decoded it was killed or crashed; "
        "export the file again, leave it out, or free memory"
    )


def _decode_in_time(path: str, preprocess: Preprocess, seconds: float) -> Decoded:
    """`decode_file`, or the end of this process: nothing else stops a codec that does not come back."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=_nowhere())
    try:
        return decode_file(path, preprocess)
    finally:
        faulthandler.cancel_dump_traceback_later()


@cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _start_pool(processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # fork is unsafe beside the threads of torch and OpenCV
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare_worker)


def _starts(pool: ProcessPoolExecutor) -> bool:
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        return False
    return True


def _prepare_worker() -> None:
    os.dup2(_nowhere(), 2)  # codecs print there what a file's error says in a sentence
    cv2.setNumThreads(1)  # the processes are parallel enough
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """A pool's worker waits for ever when its parent is killed; this one ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _show_progress(batches: Iterator[list[tuple[str, Decoded]]], total: int) -> Iterator[list[tuple[str, Decoded]]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=bar_console())
    task = progress.add_task("decoding images", total=total)
    began = time.monotonic()
    try:
        for batch in batches:
            yield batch
            progress.advance(task, len(batch))
            if time.monotonic() - began > SECONDS_BEFORE_PROGRESS:
                progress.start()
    finally:
        if progress.live.is_started:
            progress.stop()
