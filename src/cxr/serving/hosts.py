"""Which URLs of images a client may name. Knows nothing of networks: names are compared, never resolved.

A URL is taken apart by one strict pattern, and what goes to the network is put together from these parts, so no second
reader can understand it differently. Whatever the pattern does not know is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cxr.errors import ConfigError
from cxr.serving.refusal import Refusal

MOST_CHARACTERS = 2048
PORTS = {"https": 443, "http": 80}

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#\\]*)(?P<path>/[^?#\\]*)?(?P<query>\?[^#\\]*)?"
)
_AUTHORITY = re.compile(r"(?P<host>[^:]*)(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ENTRY = re.compile(r"(?:(?P<scheme>https?)://)?(?P<below>\*\.)?(?P<host>[^:/*]+)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class AllowedHost:
    """Whose images may be fetched.

    Attributes:
        scheme: ``https`` or ``http``.
        host: In lower case.
        port: The only one.
        below: Whether all names that end in ``.host`` are meant, and not `host` itself.
    """

    scheme: str
    host: str
    port: int
    below: bool

    def matches(self, place: "Place") -> bool:
        """Whether the place lies there."""
        named = place.host.endswith(f".{self.host}") if self.below else place.host == self.host
        return named and (place.scheme, place.port) == (self.scheme, self.port)


@dataclass(frozen=True)
class Place:
    """Where an image lies.

    Attributes:
        scheme: ``https`` or ``http``.
        host: In lower case.
        port: 1 to 65535.
        target: Path and query.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def url(self) -> str:
        """The place as a URL."""
        return f"{self.scheme}://{self.host}:{self.port}{self.target}"


def parse_hosts(entries: Sequence[str]) -> tuple[AllowedHost, ...]:
    """The allow-list.

    Args:
        entries: Each ``host``, ``host:port``, ``*.suffix``, or one of these behind ``http://``, without which only
            https is meant.

    Raises:
        ConfigError: An entry is none of these, an address, or a suffix of one label, such as ``*.com``.
    """
    return tuple(_parse_entry(entry) for entry in entries)


def check_url(url: str, allowed: Sequence[AllowedHost]) -> Place:
    """Take a URL apart and hold it against the allow-list.

    Raises:
        Refusal: It is no plain URL, its host is a numeric address, or it is not allowed.
    """
    parts = _match_url(url)
    scheme, authority = parts["scheme"].lower(), parts["authority"]
    if scheme not in PORTS:
        raise _refused("a URL that begins with https://, got another scheme")
    if "@" in authority:
        raise _refused("a URL without user name or password, got one with @ before the host")
    if authority.startswith("["):
        raise _refused("the name of a host, got a numeric address")
    place = Place(
        scheme, *_check_authority(authority, PORTS[scheme]), _or_empty(parts["path"], "/") + _or_empty(parts["query"])
    )
    if not any(host.matches(place) for host in allowed):
        raise _refused("a host, scheme and port on the server's list of image hosts, got another")
    return place


def _parse_entry(entry: str) -> AllowedHost:
    match = _ENTRY.fullmatch(entry.lower())
    port = 0 if match is None else int(_or_empty(match["port"], str(PORTS[_or_empty(match["scheme"], "https")])))
    if (
        match is None
        or not _is_name(match["host"])
        or not 0 < port < 2**16
        or (match["below"] and "." not in match["host"])
    ):
        raise ConfigError(
            f"expected image hosts as host, host:port or *.suffix.example, got {entry!r}; write the name in ASCII, "
            "http:// before it only for hosts without https"
        )
    return AllowedHost(_or_empty(match["scheme"], "https"), match["host"], port, match["below"] is not None)


def _match_url(url: str) -> re.Match[str]:
    if len(url) > MOST_CHARACTERS:
        raise _refused(f"a URL of at most {MOST_CHARACTERS} characters, got {len(url)}")
    if not re.fullmatch(r"[!-~]+", url):
        raise _refused("a URL of plain ASCII characters without spaces, got others")
    match = _URL.fullmatch(url)
    if match is None:
        raise _refused("a URL as https://host/path?query, got another form")
    return match


def _check_authority(authority: str, usual_port: int) -> tuple[str, int]:
    match = _AUTHORITY.fullmatch(authority)
    host, port = ("", 0) if match is None else (match["host"].lower(), int(_or_empty(match["port"], str(usual_port))))
    if _NUMBER.fullmatch(host.rsplit(".", 1)[-1]):
        raise _refused("the name of a host, got a numeric address")
    if not _is_name(host) or not 0 < port < 2**16:
        raise _refused("the name of a host, of letters, digits, hyphens and dots, and maybe a port, got another form")
    return host, port


def _is_name(host: str) -> bool:
    labels = host.split(".")
    shaped = len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    return shaped and not _NUMBER.fullmatch(labels[-1])


def _or_empty(text: str | None, usual: str = "") -> str:
    return usual if text is None else text


def _refused(sentence: str) -> Refusal:
    return Refusal(403, "url_not_allowed", f"expected {sentence}; send the file itself instead")
