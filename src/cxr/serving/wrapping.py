"""What every request passes on its way to a route and back: id and line in the log, headers, origins, a size limit.

Each is a plain ASGI middleware: nothing is buffered, and a client that goes away is noticed. Knows nothing of keys.
"""

import logging
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxr.errors import ConfigError
from cxr.serving.refusal import Refusal, answer_refusal, to_response
from cxr.serving.silence import tell

_FOREIGN_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What is taken over of a client or proxy: a random number as nginx writes it, or a UUID. Freer forms spell names."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
_CLIENT_GONE = 499

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""On every answer that does not set them itself (OWASP, HTTP Headers Cheat Sheet)."""


def wrap(app: FastAPI, max_body_bytes: int, origins: Sequence[str] = ()) -> None:
    """Put all of this around an app, and let it answer a `Refusal`.

    Args:
        app: Whose routes.
        max_body_bytes: Of a request, whether it declares its length or not.
        origins: Other sites whose pages may read answers, with a key of their own: cookies are never taken from them.

    Raises:
        ConfigError: An origin is not the plain origin of one site.
    """
    app.add_exception_handler(Refusal, answer_refusal)
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[check_origin(origin) for origin in origins],
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    app.add_middleware(RequestLog)
    app.add_middleware(SecurityHeaders)


class RequestLog:
    """Gives each request an id, writes one line of it, and answers where nobody else does.

    The id is in ``request.state.request_id`` and in the header X-Request-ID.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id, started = _choose_id(Headers(scope=scope)), time.perf_counter()
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(receive, send, request_id)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = _CLIENT_GONE
        except Exception as error:
            tell("failed", logging.ERROR, error, request_id=request_id)
            if exchange.status != 0:
                raise
            await to_response(_unexpected(), scope)(scope, exchange.receive, exchange.send)
        finally:
            seconds = round(time.perf_counter() - started, 4)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            tell(
                "request", request_id=request_id, method=method, route=route_of(scope), status=exchange.status,
                received=exchange.received, sent=exchange.sent, seconds=seconds,
            )  # fmt: skip
        return None


@dataclass
class _Exchange:
    """Counts what is received and sent for one request, and marks the answer with its id."""

    source: Receive
    target: Send
    request_id: str
    status: int = 0
    received: int = 0
    sent: int = 0

    async def receive(self) -> Message:
        message = await self.source()
        self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["X-Request-ID"] = self.request_id
        self.sent += len(message.get("body", b""))
        await self.target(message)


class SecurityHeaders:
    """Adds `SECURITY_HEADERS`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, secured)


class BodyLimit:
    """Refuses a request whose body is too large: at once where it declares so, else as soon as it is."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if _declared(Headers(scope=scope)) > self.max_bytes:
            return await self._refuse(scope, receive, send)
        received, answered = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise _TooLargeError
            return message

        async def unless_too_large(message: Message) -> None:
            nonlocal answered
            if answered or received <= self.max_bytes:
                answered = True
                await send(message)

        try:
            await self.app(scope, counted, unless_too_large)
        except Exception:
            if answered or received <= self.max_bytes:
                raise
        if received > self.max_bytes and not answered:
            await self._refuse(scope, receive, send)
        return None

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever the app made of the error; the rest of the body is not read, so the connection ends."""
        message = f"expected a request of at most {self.max_bytes} bytes, got more; send fewer or smaller images"
        refusal = Refusal(413, "too_large", message, {"Connection": "close"})
        await to_response(refusal, scope)(scope, receive, send)


class _TooLargeError(Exception):
    """More was received than is allowed."""


def route_of(scope: Scope) -> str | None:
    """The template of the route that took a request, such as ``/v1/model``; None where none did."""
    return getattr(scope.get("route"), "path", None)


def _choose_id(headers: Headers) -> str:
    foreign = headers.get("x-request-id", "")
    return foreign if _FOREIGN_ID.fullmatch(foreign) else secrets.token_hex(16)


def _declared(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0


def _unexpected() -> Refusal:
    return Refusal(500, "internal", "expected to answer, but the server failed; tell its operator the request id")


def check_origin(origin: str) -> str:
    """The origin of one site, as it came.

    Raises:
        ConfigError: It is something else.
    """
    if not _ORIGIN.fullmatch(origin):
        raise ConfigError(
            f"expected allowed origins as https://host or https://host:port, got {origin!r}; list each site by itself"
        )
    return origin
