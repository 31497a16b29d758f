"""Processes that decode strangers' images, so that a codec which crashes or hangs costs one image and nothing else.

Each has a connection and a thread of its own: what one process does to its connection, no other image notices. Knows
nothing of HTTP or of models. Linux only.
"""

import asyncio
import json
import math
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from queue import SimpleQueue
from typing import Any

import numpy as np

from cxr.data.subject_words import ELSEWHERE, MAYBE_CHEST, NO_RADIOGRAPH
from cxr.errors import ImageError
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


class _Decoder:
    """One process, started anew whenever it has ended."""

    def __init__(self, preprocesses: tuple[Preprocess, ...], limits: Limits) -> None:
        self._preprocesses = preprocesses
        self._limits = limits
        self._process: ForkServerProcess | None = None
        self._connection: Connection

    def start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([decode_all.__module__])
        self._connection, theirs = context.Pipe()
        arguments = (theirs, self._preprocesses, self._limits)
        self._process = context.Process(target=decode_all, args=arguments, name="decoder", daemon=True)
        self._process.start()
        theirs.close()

    def decode(self, content: bytes, wanted: Sequence[int]) -> Intake:
        if self._process is None or not self._process.is_alive():
            self.stop()
            self.start()
        try:
            self._connection.send_bytes(bytes(wanted))
            self._connection.send_bytes(content)
            return self._receive([self._preprocesses[index] for index in wanted])
        except (EOFError, OSError) as error:
            self.stop()
            slow = isinstance(error, TimeoutError)
            raise _too_slow(self._limits) if slow else _too_much(self._limits) from None

    def stop(self) -> None:
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None

    def _receive(self, wanted: Sequence[Preprocess]) -> Intake:
        if not self._connection.poll(self._limits.decode_seconds):
            raise TimeoutError
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


def _too_slow(limits: Limits) -> ImageError:
    return ImageError(f"expected an image that is decoded in {limits.decode_seconds} s, this one took longer; {REMEDY}")


def _too_much(limits: Limits) -> ImageError:
    memory = limits.decoder_bytes // 2**20
    return ImageError(f"expected an image, but its decoder crashed or needed more than {memory} MiB; {REMEDY}")
