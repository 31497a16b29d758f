"""Files read in processes of their own, many at once: a decoder that crashes or never ends costs only its own file.

Knows nothing of what is read of a file. Memory is bounded: no more than two batches of results wait.
"""

import faulthandler
import logging
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from itertools import islice
from types import TracebackType
from typing import Generic, TypeVar

from cxr.errors import ImageError

log = logging.getLogger(__name__)

Content = TypeVar("Content")
Item = TypeVar("Item")

FILES_PER_WORKER_AND_BATCH = 16
SECONDS_PER_FILE = 120.0  # no file that gives an image takes so long; only one that keeps its decoder in a loop


@dataclass(frozen=True)
class Outcome(Generic[Content]):
    """What became of one file.

    Attributes:
        content: What was read of it, or None for a bad file.
        error: One sentence why there is nothing, or None.
        lasting: True where the error lies in the file's bytes, so that trying again gives the same.
        warned: The texts of the warnings raised on the way.
    """

    content: Content | None = None
    error: str | None = None
    lasting: bool = False
    warned: tuple[str, ...] = ()


def read_file(item: Item, read: Callable[[Item], Content]) -> Outcome[Content]:
    """Read one file in this process; a bad file is a result, not an exception."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            content = read(item)
        except ImageError as error:
            text, name = str(error), str(item)
            return Outcome(error=text if name in text else f"{name}: {text}", lasting=_lasts(error))
    return Outcome(content, warned=tuple(str(warning.message) for warning in caught))


class Readers:
    """Processes that read files; a context manager.

    The first of them starts at once and gets ready while its owner does something else; the others start with the
    files.

    Args:
        processes: How many; 0 reads in this process, unguarded.
        prepare: Called in the first process, for example to import what reading needs; it lies in a module.
    """

    def __init__(self, processes: int, prepare: Callable[[], object] = os.getpid) -> None:
        self._processes = processes
        self._pool = _start_pool(processes) if processes else None
        self._ready = None if self._pool is None else self._pool.submit(_call, prepare)

    def __enter__(self) -> "Readers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def read(
        self, items: Iterable[Item], read: Callable[[Item], Content]
    ) -> Iterator[list[tuple[Item, Outcome[Content]]]]:
        """Read files batch by batch, in the order given; the next batch is under way while one is used.

        Args:
            items: What names a file each; errors tell its `str`.
            read: What is made of one; what it takes and gives travels between processes. Raises ImageError for a bad
                file.
        """
        batches = in_batches(items, FILES_PER_WORKER_AND_BATCH * max(self._processes, 1))
        if not self._starts():
            yield from ([(item, read_file(item, read)) for item in batch] for batch in batches)
            return
        under_way: deque[_Batch[Item, Content]] = deque()
        for batch in batches:
            under_way.append(self._submit(batch, read))
            if len(under_way) > 1:
                yield self._collect(under_way, read)
        while under_way:
            yield self._collect(under_way, read)

    def _starts(self) -> bool:
        if self._ready is None:
            return False
        try:
            self._ready.result()
        except BrokenProcessPool:
            log.warning("worker processes cannot start here, so files are decoded one after the other")
            return False
        return True

    def _submit(self, items: list[Item], read: Callable[[Item], Content]) -> "_Batch[Item, Content]":
        assert self._pool is not None
        try:
            return self._submit_to(self._pool, items, read)
        except BrokenProcessPool:
            self._restart()
            return self._submit_to(self._pool, items, read)

    def _submit_to(
        self, pool: ProcessPoolExecutor, items: list[Item], read: Callable[[Item], Content]
    ) -> "_Batch[Item, Content]":
        results = pool.map(_ReadInTime(read, SECONDS_PER_FILE), items, chunksize=4)
        return _Batch(items, results, pool)

    def _collect(
        self, under_way: "deque[_Batch[Item, Content]]", read: Callable[[Item], Content]
    ) -> list[tuple[Item, Outcome[Content]]]:
        """The oldest batch; where a process died in it, its files are read again, each by itself."""
        batch = under_way.popleft()
        try:
            return list(zip(batch.items, batch.results, strict=True))
        except BrokenProcessPool:
            if batch.pool is self._pool:
                self._restart()
            lost = [later for later in under_way if later.pool is not self._pool]
            for later in lost:
                under_way[under_way.index(later)] = self._submit(later.items, read)
            return list(zip(batch.items, _read_isolated(batch.items, read), strict=True))

    def _restart(self) -> None:
        assert self._pool is not None
        self._pool.shutdown(cancel_futures=True)
        self._pool = _start_pool(self._processes)


@dataclass(frozen=True)
class _Batch(Generic[Item, Content]):
    items: list[Item]
    results: Iterator[Outcome[Content]]
    pool: ProcessPoolExecutor


@dataclass(frozen=True)
class _ReadInTime(Generic[Item, Content]):
    """`read_file`, or the end of this process: nothing else stops a codec that does not come back."""

    read: Callable[[Item], Content]
    seconds: float

    def __call__(self, item: Item) -> Outcome[Content]:
        faulthandler.dump_traceback_later(self.seconds, exit=True, file=_nowhere())
        try:
            return read_file(item, self.read)
        finally:
            faulthandler.cancel_dump_traceback_later()


def count_processes(workers: int | None, files: int) -> int:
    """How many processes are worth their start: one per usable core or `workers`, and no more than have a batch."""
    return min(_count_cores() if workers is None else workers, -(-files // FILES_PER_WORKER_AND_BATCH))


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`, the last one maybe shorter, and no sooner than they come."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _lasts(error: ImageError) -> bool:
    """Whether the file's bytes are at fault, not the disk (an OSError with a number) or the memory of this moment."""
    cause = error.__cause__
    return not (isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None))


def _count_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read_isolated(items: list[Item], read: Callable[[Item], Content]) -> list[Outcome[Content]]:
    """One file at a time in a process of its own kind, so that a crash names its file."""
    results: list[Outcome[Content]] = []
    pool = _start_pool(1)
    for item in items:
        began = time.monotonic()
        try:
            results.append(pool.submit(_ReadInTime(read, SECONDS_PER_FILE), item).result())
        except BrokenProcessPool:
            results.append(Outcome(error=f"{item}: {_why_it_ended(time.monotonic() - began)}"))
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


@cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _start_pool(processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # fork is unsafe beside the threads of torch and OpenCV
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare_worker)


def _call(function: Callable[[], object]) -> None:
    function()


def _prepare_worker() -> None:
    os.dup2(_nowhere(), 2)  # codecs print there what a file's error says in a sentence
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    import cv2

    cv2.setNumThreads(1)  # the processes are parallel enough


def _exit_with_parent() -> None:
    """A pool's worker waits for ever when its parent is killed; this one ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
