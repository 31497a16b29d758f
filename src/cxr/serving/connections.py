"""Connections that may not last: uvicorn's, with an end for clients who send or read too slowly.

uvicorn closes a connection that rests after an answer, and no other: one that never sends the end of its headers, or
never reads its answer, it would hold for ever. Knows nothing of routes.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cxr.serving.settings import Limits

SECONDS_TO_READ = 30.0
"""What a client may take to read an answer that is made, and until its next request has begun."""


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
    """A connection whose every state has an end."""

    config: BoundedConfig
    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client may now send headers."""
        super().connection_made(transport)
        self._end_in(self.config.header_seconds)

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

    def _end_in(self, seconds: float) -> None:
        self._forget_end()
        self._end = self.loop.call_later(seconds, self.transport.abort)

    def _forget_end(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
