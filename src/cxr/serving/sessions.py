"""Who signed in with a browser: a signed cookie that names the key, never holds it.

Any worker process that has the secret reads the cookies of all others, and nothing is kept of a session: signing out
deletes the cookie in the browser, and a copy of it ends by time, or with its key. Knows nothing of routes.

Scripts cannot read the cookie. What the page's script sends beside it in the header X-CSRF-Token stands in the page; it
is made of the session and the secret, so another site can neither read nor invent it (OWASP, Cross-Site Request Forgery
Prevention, "HMAC-based token").
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from itsdangerous import BadData, URLSafeSerializer
from starlette.responses import Response

from cxr.errors import ConfigError

COOKIE = "cxr_session"
FEWEST_CHARACTERS = 32
RENEW_SECONDS = 60


@dataclass(frozen=True)
class Session:
    """One browser that signed in.

    Attributes:
        key_id: Of the key that it signed in with.
        started: When, in seconds since 1970.
        seen: When it last asked, to a minute.
        nonce: Tells sessions apart.
    """

    key_id: str
    started: int
    seen: int
    nonce: str


class Sessions:
    """Sessions to cookies and back.

    Args:
        secret: At least 32 random characters, the same in all workers: `make_secret`.
        idle_seconds: A session ends when nothing was asked for so long.
        whole_seconds: It ends after so long in any case.
        clock: Seconds since 1970.

    Raises:
        ConfigError: The secret is short.
    """

    def __init__(
        self,
        secret: str,
        idle_seconds: int = 30 * 60,
        whole_seconds: int = 8 * 3600,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if len(secret) < FEWEST_CHARACTERS:
            raise ConfigError(
                f"expected a session secret of at least {FEWEST_CHARACTERS} characters, got {len(secret)}; make one "
                "with: openssl rand -hex 32"
            )
        self.secret, self.idle_seconds, self.whole_seconds, self.clock = secret, idle_seconds, whole_seconds, clock
        self.serializer = URLSafeSerializer(secret, salt="cxr session", signer_kwargs={"digest_method": hashlib.sha256})

    def start(self, key_id: str) -> Session:
        """A new session of the key."""
        now = int(self.clock())
        return Session(key_id, now, now, secrets.token_hex(16))

    def read(self, cookies: Mapping[str, str], https: bool) -> Session | None:
        """The session of a request; None where there is no valid one, or it has ended.

        Args:
            cookies: Of the request.
            https: Whether it came by https.
        """
        try:
            session = Session(**self.serializer.loads(cookies[_cookie_name(https)]))
        except (KeyError, TypeError, BadData):
            return None
        now = self.clock()
        return session if now < min(session.seen + self.idle_seconds, session.started + self.whole_seconds) else None

    def csrf_token(self, session: Session) -> str:
        """What a request that changes something sends beside the cookie."""
        return hmac.new(self.secret.encode(), f"cxr csrf {session.nonce}".encode(), hashlib.sha256).hexdigest()

    def is_csrf_token(self, token: str, session: Session) -> bool:
        """Whether `token` is that of the session, in a time that tells nothing."""
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self.csrf_token(session).encode())

    def write(self, response: Response, session: Session, https: bool) -> None:
        """Set the cookie."""
        content = str(self.serializer.dumps(asdict(session)))
        response.set_cookie(
            _cookie_name(https), content, self.idle_seconds, secure=https, httponly=True, samesite="strict"
        )

    def renew(self, response: Response, session: Session, https: bool) -> None:
        """Let the session go on: sets the cookie again where it is older than a minute."""
        now = int(self.clock())
        if now - session.seen >= RENEW_SECONDS:
            self.write(response, replace(session, seen=now), https)

    def clear(self, response: Response, https: bool) -> None:
        """Delete the cookie."""
        response.delete_cookie(_cookie_name(https), secure=https, httponly=True, samesite="strict")


def make_secret() -> str:
    """A new session secret, 256 random bits."""
    return secrets.token_hex(32)


def _cookie_name(https: bool) -> str:
    """A browser takes ``__Host-`` cookies by https from this very host alone: no neighbour plants one (RFC 6265bis)."""
    return f"__Host-{COOKIE}" if https else COOKIE
