"""What a server is started with, as plain values. Knows nothing of HTTP, of models or of the command line."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from cxr.errors import ConfigError
from cxr.imaging.checks import check_count
from cxr.serving.sessions import make_secret

MIB = 2**20


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Limits:
    """What a stranger may ask of one worker process.

    Attributes:
        max_body_bytes: Of one request.
        max_waiting_bytes: Of all bodies that are in memory at a time.
        max_files: Images in one request.
        max_file_bytes: Of one image file, inflated where it is deflated as a whole.
        max_pixels: Of one image.
        queue_length: Images that are decoded or wait for the model at a time.
        seconds: From the end of a request's headers to its answer.
        header_seconds: From the start of a connection or request to the end of its headers.
        decode_seconds: For one image.
        decoder_bytes: Memory that decoding one image may take.

    Raises:
        ConfigError: A limit is below 1, one image may take longer than a request, or one request never fits into the
            memory or the queue.
    """

    max_body_bytes: int = 64 * MIB
    max_waiting_bytes: int = 512 * MIB
    max_files: int = 64
    max_file_bytes: int = 512 * MIB
    max_pixels: int = 50_000_000
    queue_length: int = 256
    seconds: int = 30
    header_seconds: int = 10
    decode_seconds: int = 15
    decoder_bytes: int = 2048 * MIB

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_count(f"limits.{name}", value)
        if self.decode_seconds > self.seconds:
            raise ConfigError(
                f"expected decode_seconds of at most seconds ({self.seconds}), got {self.decode_seconds}; lower it"
            )
        if self.max_waiting_bytes < self.max_body_bytes:
            raise ConfigError(
                f"expected max_waiting_bytes of at least one request ({self.max_body_bytes}), got "
                f"{self.max_waiting_bytes}; raise it, or lower max_body_bytes"
            )
        if self.queue_length < self.max_files:
            raise ConfigError(
                f"expected a queue of at least the images of one request ({self.max_files}), got {self.queue_length}; "
                "raise --queue, or lower --max-files"
            )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A server.

    Attributes:
        bundle: Folder of the model.
        engine: What runs its nets, see `cxr.inference.engines`; None takes the fastest that the bundle has.
        host: Address to listen at.
        port: 0 takes a free one.
        workers: Processes that each hold the model.
        decoders: Processes of each worker that decode images.
        limits: For each worker.
        allowed_origins: Web origins whose pages may call this server.
        image_hosts: Hosts from which images are fetched by URL; without any, none are.
        key_file: Keys of clients, see `cxr.serving.keys`; None lets everybody ask.
        session_secret: Signs the cookies of browsers; the same in all workers.
        requests_per_second: Of one key, to one worker.
        metrics_open: Whether ``/metrics`` needs no key.

    Raises:
        ConfigError: A value cannot be used.
    """

    bundle: Path
    engine: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    decoders: int = field(default_factory=usable_cores)
    limits: Limits = field(default_factory=Limits)
    allowed_origins: tuple[str, ...] = ()
    image_hosts: tuple[str, ...] = ()
    key_file: Path | None
    session_secret: str = field(default_factory=make_secret, repr=False)
    requests_per_second: int = 100
    metrics_open: bool = False

    def __post_init__(self) -> None:
        check_count("workers", self.workers)
        check_count("decoders", self.decoders)
        check_count("requests_per_second", self.requests_per_second)
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"expected a port from 0 to {2**16 - 1}, got {self.port}; choose another")
