"""The process that decodes strangers' images: bytes in, stored images out, or a sentence that says why not.

It may crash, hang or run out of memory at any time, and is believed nothing: it answers with JSON and raw pixels, which
run no code in who reads them. Knows nothing of HTTP or of models. Linux only.
"""

import json
import os
import resource
import signal
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

import cv2

from cxr.errors import ImageError
from cxr.imaging import guard
from cxr.imaging.preprocess import Preprocess
from cxr.inference.intake import take_in_bytes
from cxr.serving.settings import Limits

FIRST_TO_GO = "1000"
"""What the kernel ends before all others when memory runs out (man 5 proc, oom_score_adj)."""


def decode_all(connection: Connection, preprocesses: Sequence[Preprocess], limits: Limits) -> None:
    """Serve one image after the other until the connection ends.

    A request is two messages, the indices of the preprocessings that are wanted, a byte each, and the file's content.
    The answer is JSON with ``error``, or with ``shape`` and what the file told, and then a message of pixels for
    each index.
    """
    _restrict_process(limits)
    while True:
        try:
            wanted, content = connection.recv_bytes(), connection.recv_bytes()
        except (EOFError, OSError):
            return
        signal.alarm(limits.decode_seconds + 1)  # where nobody is left who would end this process
        _answer(connection, content, [preprocesses[index] for index in wanted])
        signal.alarm(0)


def _answer(connection: Connection, content: bytes, wanted: Sequence[Preprocess]) -> None:
    try:
        taken = take_in_bytes(content, wanted)
    except ImageError as error:
        _send(connection, {"error": str(error)[:1000]})
        return
    _send(connection, {"shape": taken.shape, **asdict(taken.told)})
    for stored in taken.stored:
        connection.send_bytes(stored.tobytes())


def _send(connection: Connection, values: object) -> None:
    connection.send_bytes(json.dumps(values).encode())


def _restrict_process(limits: Limits) -> None:
    """Deaf to signals of the terminal and the service manager: it ends when its connection does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    guard.MAX_PIXELS, guard.MAX_BYTES = limits.max_pixels, limits.max_file_bytes
    memory = _address_space() + limits.decoder_bytes
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # a container may not let it
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)


def _address_space() -> int:
    """Bytes of address space that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
