"""Connections that may not last: uvicorn's, with an end for clients who are too slow or send endless headers.

uvicorn closes a connection that rests after an answer, and no other: one that never sends the end of its headers, or
never reads its answer, it would hold for ever, and headers of any size in memory. Knows nothing of routes.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from cxr.serving.settings import Limits

SECONDS_TO_READ = 30.0
"""What a client may take to read an answer that is made, and until its next request has begun."""

MOST_HEADER_BYTES = 64 * 2**10
"""Of one request: its URL, its headers and what may come as headers after its body."""

LINE_BYTES = 4
"""What stands between a header's name and its value, and after it."""


class BoundedConfig(Config):
    """What uvicorn is told, and the limits of its connections.

    Args:
        app: Makes the application.
        limits: Of clients.
        more: Settings of uvicorn.
    """

    def __init__(self, app: Callable[[], Any], limits: Limits, **more: Any) -> None:
        super().__init__(app, factory=True, http=BoundedConnection, **more)
        self.header_seconds = float(limits.header_seconds)
        self.exchange_seconds = limits.seconds + SECONDS_TO_READ
        self.read_seconds = SECONDS_TO_READ


class BoundedConnection(HttpToolsProtocol):
    """A connection whose every state has an end, and whose requests have headers of a bounded size."""

    config: BoundedConfig
    _end: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _unfinished_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client may now send headers."""
        super().connection_made(transport)
        self._end_in(self.config.header_seconds)

    def data_received(self, data: bytes) -> None:
        """Bytes of requests. A line without an end is kept by the parser, which tells nobody of it."""
        self._unfinished_bytes += len(data)
        super().data_received(data)
        if self._unfinished_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
            self._refuse_headers()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._header_bytes = self._unfinished_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the URL has come."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come, before the body or after it."""
        self._count(len(name) + len(value) + LINE_BYTES)
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A part of the body has come; its size is for others to limit."""
        self._unfinished_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that the parser gave up."""
        if self._header_bytes > MOST_HEADER_BYTES:
            self._refuse_headers()
        else:
            super().send_400_response(msg)

    def on_headers_complete(self) -> None:
        """The client may now send a body, and is answered."""
        super().on_headers_complete()
        self._end_in(self.config.exchange_seconds)

    def on_response_complete(self) -> None:
        """The client may now read, and ask again; what it asked ahead is answered."""
        super().on_response_complete()
        asked_ahead = not self.cycle.response_complete
        self._end_in(self.config.exchange_seconds if asked_ahead else self.config.read_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._forget_end()
        super().connection_lost(exc)

    def _count(self, size: int) -> None:
        self._unfinished_bytes = 0
        self._header_bytes += size
        if self._header_bytes > MOST_HEADER_BYTES:
            raise _TooLargeError

    def _refuse_headers(self) -> None:
        text = f"expected headers of at most {MOST_HEADER_BYTES} bytes, got more; send fewer".encode()
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text)
        self.transport.write(STATUS_LINE[431] + head + text)
        self.transport.close()

    def _end_in(self, seconds: float) -> None:
        self._forget_end()
        self._end = self.loop.call_later(seconds, self.transport.abort)

    def _forget_end(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None


class _TooLargeError(Exception):
    """The headers of a request are; ends the parser's work."""
