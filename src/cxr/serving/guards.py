"""Who may ask: requests to keys and sessions, and how often. Knows nothing of what is asked.

A router of guarded routes is ``APIRouter(route_class=GuardedRoute)``; the app has its `Gate` in ``app.state.gate``.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from cxr.errors import ConfigError
from cxr.serving.keys import KeyRing, Rings
from cxr.serving.rate import RateLimiter
from cxr.serving.refusal import Refusal, try_later
from cxr.serving.sessions import Session, Sessions

CSRF_HEADER = "X-CSRF-Token"
ANYBODY = "anybody"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Visitor:
    """Who asks.

    Attributes:
        key_id: Of the key; `ANYBODY` where the server takes no keys.
        session: Where a browser's cookie told the key.
    """

    key_id: str
    session: Session | None = None


@dataclass(frozen=True)
class Gate:
    """Decides who may ask.

    Attributes:
        rings: The valid keys; None where everybody may ask.
        sessions: Of browsers.
        requests: How often one key may ask; without keys, one address.
        failures: How often one address may come with a wrong key. A right one is taken even then: several clients may
            share an address, and a key cannot be found by trying.
    """

    rings: Rings | None
    sessions: Sessions
    requests: RateLimiter
    failures: RateLimiter

    def admit(self, request: Request) -> Visitor:
        """Who asks, where they may.

        Raises:
            Refusal: 401 without a valid key or session, 403 without the CSRF token, 429 where it is too often.
        """
        visitor = self._recognise(request)
        name = client_of(request) if visitor.key_id == ANYBODY else visitor.key_id
        _check_rate(self.requests.take(name), "requests")
        return visitor

    def sign_in(self, request: Request, key: str) -> Session:
        """A new session, for `Sessions.write`.

        Args:
            request: A POST of the sign-in form.
            key: What was typed.

        Raises:
            Refusal: 401 where it is no valid key, 403 where another site sent the form, 429 where it is too often.
        """
        check_same_site(request)
        return self.sessions.start(self._key_id_of(request, key.strip()))

    def session_of(self, request: Request) -> Session | None:
        """The session of a browser, where it has one and its key is still valid."""
        session = self.sessions.read(request.cookies, is_https(request))
        return session if session is not None and self._ring().has(session.key_id) else None

    def check_csrf(self, request: Request, session: Session) -> None:
        """Refuse a request that changes something unless our own page sent it.

        Raises:
            Refusal: 403 without the session's token.
        """
        token = request.headers.get(CSRF_HEADER, "")
        if request.method not in _READING and not self.sessions.is_csrf_token(token, session):
            raise Refusal(
                403,
                "csrf",
                f"expected the header {CSRF_HEADER} of this session, got none or another; load the page again",
            )

    def _recognise(self, request: Request) -> Visitor:
        if self.rings is None:
            return Visitor(ANYBODY)
        key = header_key(request)
        if key is not None:
            return Visitor(self._key_id_of(request, key))
        session = self.session_of(request)
        if session is None:
            raise _unauthorized("none")
        self.check_csrf(request, session)
        return Visitor(session.key_id, session)

    def _key_id_of(self, request: Request, key: str) -> str:
        found = self._ring().find(key)
        if found is None:
            _check_rate(self.failures.take(client_of(request)), "wrong keys")
            raise _unauthorized("another")
        return found.key_id

    def _ring(self) -> KeyRing:
        """A key file that cannot be read opens to nobody."""
        try:
            return KeyRing(()) if self.rings is None else self.rings()
        except ConfigError:
            raise try_later(
                503, "keys_unreadable", "expected a readable key file, but it is damaged; tell the operator", 60
            ) from None


async def require_key(request: Request) -> Visitor:
    """Who asks, where they may: a dependency, for routes that read no body (FastAPI reads it before dependencies).

    Raises:
        Refusal: As of `Gate.admit`.
    """
    gate: Gate = request.app.state.gate
    return gate.admit(request)


class GuardedRoute(APIRoute):
    """A route that asks for the key before anything is read of the body, and lets a browser's session go on.

    The visitor is in ``request.state.visitor``.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own handler behind the gate."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            visitor = await require_key(request)
            request.state.visitor = visitor
            response = await handle(request)
            if visitor.session is not None:
                request.app.state.gate.sessions.renew(response, visitor.session, is_https(request))
            return response

        return guarded


def header_key(request: Request) -> str | None:
    """The key in ``X-API-Key``, else in ``Authorization: Bearer``; None where there is neither."""
    if "x-api-key" in request.headers:
        return request.headers["x-api-key"].strip()
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else None


def check_same_site(request: Request) -> None:
    """Refuse what a page of another site sent, as the browser itself tells.

    Sec-Fetch-Site is what browsers say by https and on this machine, Origin what they say else.

    Raises:
        Refusal: 403.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        host = request.headers.get("host")
        own = origin in (None, f"http://{host}", f"https://{host}")
    if not own:
        raise Refusal(403, "csrf", "expected a form of this server's own page, got one of another site; sign in there")


def is_https(request: Request) -> bool:
    """Whether the request came by https; uvicorn believes X-Forwarded-Proto of the proxies it was told to trust."""
    return bool(request.scope["scheme"] == "https")


def client_of(request: Request) -> str:
    """The address that a client cannot change at will: of IPv6 the network, 64 bits, that one household is given."""
    host = "" if request.client is None else request.client.host
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    return host if address.ipv4_mapped is not None else str(ip_network((int(address), 64), strict=False))


def _check_rate(seconds: float, what: str) -> None:
    if seconds > 0:
        raise try_later(
            429, "too_many", f"expected fewer {what}, got too many; wait as long as Retry-After says", seconds
        )


def _unauthorized(got: str) -> Refusal:
    message = f"expected a valid key in the header X-API-Key or Authorization: Bearer, got {got}; ask the operator"
    return Refusal(401, "unauthorized", message, {"WWW-Authenticate": 'Bearer realm="cxr"'})
