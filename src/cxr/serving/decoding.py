"""Processes that decode strangers' images, so that a codec which crashes or hangs costs one image and nothing else.

Each has a connection and a thread of its own: what one process does to its connection, no other image notices. Knows
nothing of HTTP or of models. Linux only.
"""

import asyncio
import json
import math
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from queue import SimpleQueue
from socket import AF_UNIX, SHUT_RDWR, socket
from threading import Timer
from typing import Any

import numpy as np

from cxr.data.subject_words import ELSEWHERE, MAYBE_CHEST, NO_RADIOGRAPH
from cxr.errors import CxrError, ImageError
from cxr.imaging.preprocess import Preprocess, Stored
from cxr.inference.intake import Intake, Told
from cxr.serving.decoder import decode_all
from cxr.serving.settings import Limits

HEAD_BYTES = 8192
VIEWS = ("pa", "ap", "frontal", "other", "unknown")
SUBJECTS = (MAYBE_CHEST, NO_RADIOGRAPH, ELSEWHERE)
REMEDY = "export the image again or leave it out"


class Decoders:
    """A few processes that decode.

    Args:
        preprocesses: What images may be stored with, at most 255.
        count: Processes.
        limits: Of each process.
    """

    def __init__(self, preprocesses: Sequence[Preprocess], count: int, limits: Limits) -> None:
        self._threads = ThreadPoolExecutor(count, "decoder")
        self._idle: SimpleQueue[_Decoder] = SimpleQueue()
        self._all = [_Decoder(tuple(preprocesses), limits) for _ in range(count)]
        for decoder in self._all:
            decoder.start()
            self._idle.put(decoder)

    async def take_in(self, content: bytes, wanted: Sequence[int]) -> Intake:
        """Decode one image file.

        Args:
            content: Of a DICOM, PNG, JPEG, TIFF or BMP file.
            wanted: Indices of the preprocessings to store it with.

        Raises:
            ImageError: It gives no image, or decoding it takes too much time or memory.
            NoDecoderError: There is no process for it.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, content, wanted)

    def close(self) -> None:
        """Finish what is being decoded, and end the processes."""
        self._threads.shutdown(cancel_futures=True)
        for decoder in self._all:
            decoder.stop()

    def _decode(self, content: bytes, wanted: Sequence[int]) -> Intake:
        decoder = self._idle.get()
        try:
            return decoder.decode(content, wanted)
        finally:
            self._idle.put(decoder)


class NoDecoderError(CxrError):
    """The system gives no process that decodes; it may a moment later."""


class _Decoder:
    """One process, started anew whenever it has ended."""

    def __init__(self, preprocesses: tuple[Preprocess, ...], limits: Limits) -> None:
        self._preprocesses = preprocesses
        self._limits = limits
        self._process: ForkServerProcess | None = None
        self._connection: Connection

    def start(self) -> None:
        try:
            self._connection, self._process = _launch(self._preprocesses, self._limits)
        except (OSError, EOFError) as error:
            raise NoDecoderError(
                f"expected a process that decodes images, but the system gives none at the moment ({_reason(error)}); "
                "try again later"
            ) from error

    def decode(self, content: bytes, wanted: Sequence[int]) -> Intake:
        if not self._is_ready():
            self.stop()
            self.start()
        deadline = _Deadline(self._connection, self._limits.decode_seconds)
        try:
            with deadline:
                self._connection.send_bytes(bytes(wanted))
                self._connection.send_bytes(content)
                return self._receive([self._preprocesses[index] for index in wanted])
        except (EOFError, OSError):
            self.stop()
            raise _too_slow(self._limits) if deadline.over else _too_much(self._limits) from None

    def stop(self) -> None:
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None

    def _is_ready(self) -> bool:
        """Whether the process lives, and has no more to say than it was asked."""
        return self._process is not None and self._process.is_alive() and not self._connection.poll()

    def _receive(self, wanted: Sequence[Preprocess]) -> Intake:
        head = _read_head(self._connection.recv_bytes(HEAD_BYTES))
        if "error" in head:
            raise ImageError(str(head["error"]))
        stored = tuple(self._receive_stored(one) for one in wanted)
        return Intake(stored, (head["shape"][0], head["shape"][1]), head["told"])

    def _receive_stored(self, preprocess: Preprocess) -> Stored:
        kind = np.dtype(preprocess.precision)
        content = self._connection.recv_bytes(math.prod(preprocess.size) * kind.itemsize)
        try:
            return np.frombuffer(content, kind).reshape(preprocess.size)
        except ValueError as error:
            raise OSError("not the pixels that were asked for") from error


class _Deadline:
    """Ends a connection in both directions when its time is over: whoever reads or writes there fails at once.

    Attributes:
        over: Whether it was.
    """

    def __init__(self, connection: Connection, seconds: float) -> None:
        self.over = False
        self._connection = connection
        self._timer = Timer(seconds, self._end)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()

    def _end(self) -> None:
        self.over = True
        with socket(AF_UNIX, fileno=os.dup(self._connection.fileno())) as same:
            same.shutdown(SHUT_RDWR)


def _launch(preprocesses: tuple[Preprocess, ...], limits: Limits) -> tuple[Connection, ForkServerProcess]:
    """A process that decodes, and the connection to it.

    Raises:
        OSError: The system gives none.
        EOFError: It ended before it began.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([decode_all.__module__])
    ours, theirs = context.Pipe()
    process = context.Process(target=decode_all, args=(theirs, preprocesses, limits), name="decoder", daemon=True)
    try:
        process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours, process


def _read_head(content: bytes) -> dict[str, Any]:
    """What a decoder says first.

    Raises:
        OSError: It is not what a decoder says.
    """
    try:
        head = json.loads(content)
        if "error" in head:
            return {"error": head["error"]}
        height, width = (int(side) for side in head["shape"])
        if min(height, width) < 1:
            raise ValueError(f"an image of {height} x {width}")
        view, subject = VIEWS[VIEWS.index(head["view"])], SUBJECTS[SUBJECTS.index(head["subject"])]
        return {"shape": (height, width), "told": Told(view, subject, int(head["frames"]))}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise OSError("not what a decoder says") from error


def _reason(error: OSError | EOFError) -> str:
    """What went wrong, without the name of a file."""
    return error.strerror if isinstance(error, OSError) and error.strerror is not None else repr(error)


def _too_slow(limits: Limits) -> ImageError:
    return ImageError(f"expected an image that is decoded in {limits.decode_seconds} s, this one took longer; {REMEDY}")


def _too_much(limits: Limits) -> ImageError:
    memory = limits.decoder_bytes // 2**20
    return ImageError(f"expected an image, but its decoder crashed or needed more than {memory} MiB; {REMEDY}")
