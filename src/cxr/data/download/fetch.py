"""One large file over an unreliable line: continued where it stopped, never taken for whole before it is.

Knows nothing of archives, nor of Kaggle beyond the two calls that open a stream.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.data.download.progress import byte_bar

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
MAX_FAILURES = 5  # broken connections in a row without a new byte
PAUSE_SECONDS = 1.0  # before the second attempt; doubles with each further one


@dataclass(frozen=True)
class RemoteFile:
    """What the server says of the file behind a response.

    Attributes:
        size: Bytes, or None where unknown.
        identity: ETag or Last-Modified, or None where bytes from two requests cannot be known to belong together.
    """

    size: int | None
    identity: str | None

    @classmethod
    def from_response(cls, response: Any) -> "RemoteFile":
        """Read the headers of a response with status 200."""
        size, identity = response.headers.get("Content-Length"), None
        if response.headers.get("Accept-Ranges") == "bytes":
            identity = response.headers.get("ETag", response.headers.get("Last-Modified"))
        return cls(None if size is None else int(size), identity)


class PartialFile:
    """The bytes of a file received so far, beside a note of the remote file they belong to."""

    def __init__(self, path: Path) -> None:
        self.final_path = path
        self.path = path.with_name(f"{path.name}.part")
        self.note_path = path.with_name(f"{path.name}.part.json")

    def size(self) -> int:
        """Bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def belongs_to(self, remote: RemoteFile) -> bool:
        """Whether the bytes are the start of `remote`."""
        if remote.identity is None or not self.note_path.exists() or not self.path.exists():
            return False
        return self.note_path.read_text() == _note(remote) and (remote.size is None or self.size() <= remote.size)

    def start(self, remote: RemoteFile) -> None:
        """Forget what was received and expect `remote`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        self.note_path.write_text(_note(remote))

    def append(self, response: Any, show: Callable[[int], None]) -> None:
        """Add the body of `response`, telling `show` the size reached."""
        size = self.size()
        with self.path.open("ab") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                size += len(chunk)
                show(size)

    def finish(self) -> None:
        """Give the file its name."""
        self.path.replace(self.final_path)
        self.discard()

    def discard(self) -> None:
        """Remove what was received, if anything."""
        self.path.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)


def bytes_to_come(remote: RemoteFile, path: Path) -> int | None:
    """Bytes that `fetch` will still receive for `path`, or None where the size is unknown."""
    part = PartialFile(path)
    if remote.size is None:
        return None
    return remote.size - part.size() if part.belongs_to(remote) else remote.size


def fetch(response: Any, reopen: Callable[[], Any], resume: Callable[[Any, int, str], Any], path: Path) -> None:
    """Receive a file into `path`, which appears only when complete.

    Args:
        response: An open response of the whole file.
        reopen: Opens such a response again.
        resume: Exchanges a response for one that starts at a byte, given the identity of the bytes before it.
        path: Where the file goes; ``<path>.part`` holds what has arrived so far, also after an interruption.

    Raises:
        requests.RequestException: the connection broke several times without a new byte, or the server refused.
        OSError: the disk is full or cannot be written.
    """
    part, failures = PartialFile(path), 0
    with byte_bar("download", RemoteFile.from_response(response).size) as show:
        while not part.final_path.exists():
            before = part.size()
            try:
                response = reopen() if response is None else response
                _receive(response, resume, part, show)
            except _broken_line() as error:
                failures = failures + 1 if part.size() <= before else 1
                if failures == MAX_FAILURES:
                    raise
                log.info("connection lost at byte %d (%s)", part.size(), type(error).__name__)
                time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))
                response = None


def _receive(
    response: Any, resume: Callable[[Any, int, str], Any], part: PartialFile, show: Callable[[int], None]
) -> None:
    """Add to `part` what it lacks of the file behind `response`, and finish it."""
    import requests

    remote = RemoteFile.from_response(response)
    if not part.belongs_to(remote):
        part.start(remote)
    if part.size() and part.size() != remote.size and remote.identity is not None:
        response = resume(response, part.size(), remote.identity)
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            part.discard()
            raise requests.ConnectionError("what was received is not the start of this file")
        response.raise_for_status()
        if not response.headers.get("Content-Range", "").startswith(f"bytes {part.size()}-"):
            remote = RemoteFile.from_response(response)
            part.start(remote)
    if part.size() != remote.size:
        part.append(response, show)
    response.close()
    if remote.size is not None and part.size() != remote.size:
        raise requests.ConnectionError(f"expected {remote.size} bytes, got {part.size()}")
    part.finish()


def _broken_line() -> tuple[type[Exception], ...]:
    import requests

    return requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError


def _note(remote: RemoteFile) -> str:
    return json.dumps({"size": remote.size, "identity": remote.identity})
