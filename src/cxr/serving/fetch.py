"""An image by its URL, from hosts that the operator listed, without reaching anything else.

A name is resolved once; each address of the answer must be public, and the connection goes to one of those that were
looked at, with the name in TLS and in the Host header. So it does not matter what the name resolves to later. Every
redirect is held against the list, resolved and looked at like the first URL. Takes no proxies from the environment,
sends no cookies and no credentials. Knows nothing of images: whoever reads them says what they are.
"""

import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urljoin

import anyio
import httpcore2

from cxr.serving.addresses import is_public, parse_addresses
from cxr.serving.hosts import AllowedHost, Place, check_url
from cxr.serving.refusal import Refusal

MOST_BYTES = 100 * 2**20
MOST_SECONDS = 10.0
MOST_REDIRECTS = 3
Read = Callable[[httpcore2.Response], Awaitable[bytes]]
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = [("Accept", "application/dicom, image/*"), ("Accept-Encoding", "identity"), ("User-Agent", "cxr-lab")]


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, by the machine's resolver; none where it is not known."""
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True)
class Network:
    """What the server may reach, and how.

    Attributes:
        resolve: Host and port -> its addresses.
        permits: Whether an address may be connected to.
        tls: Whose certificates are trusted; None for those that this machine trusts.
    """

    resolve: Callable[[str, int], Awaitable[list[str]]] = resolve
    permits: Callable[[IPv4Address | IPv6Address], bool] = is_public
    tls: ssl.SSLContext | None = None


async def fetch_image(
    url: str,
    allowed: Sequence[AllowedHost],
    take: Callable[[int], object],
    max_bytes: int = MOST_BYTES,
    seconds: float = MOST_SECONDS,
    network: Network | None = None,
) -> bytes:
    """The content behind a URL.

    Args:
        url: Named by a client.
        allowed: `parse_hosts` of the operator's list; empty where no URL is taken.
        take: Is told how many bytes come, before they are kept; may refuse.
        max_bytes: Of the content.
        seconds: For everything, redirects included.
        network: What may be reached; public addresses where None.

    Raises:
        Refusal: The URL, a redirect or an address is not allowed, or the host does not give the content in time.
    """
    try:
        with anyio.fail_after(seconds):
            return await _follow(
                check_url(url, allowed),
                allowed,
                partial(_read, take, max_bytes),
                Network() if network is None else network,
            )
    except TimeoutError:
        raise Refusal(
            422,
            "url_timeout",
            f"expected the image within {seconds:g} s, got no end of it; send the file itself instead",
        ) from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, ssl.SSLError) as error:
        raise _failed(f"an answer of the host, got {type(error).__name__}") from None


async def _follow(place: Place, allowed: Sequence[AllowedHost], read: Read, network: Network) -> bytes:
    for _ in range(MOST_REDIRECTS + 1):
        found = await _get(place, read, network)
        if isinstance(found, bytes):
            return found
        place = check_url(_join(place.url, found), allowed)
    raise _failed(f"at most {MOST_REDIRECTS} redirects, got more")


async def _get(place: Place, read: Read, network: Network) -> bytes | str:
    """The content, or where it is said to lie."""
    url = httpcore2.URL(scheme=place.scheme, host=place.host, port=place.port, target=place.target)
    async with (
        httpcore2.AsyncConnectionPool(ssl_context=network.tls, network_backend=_CheckedBackend(network)) as pool,
        pool.stream("GET", url, headers=_HEADERS) as response,
    ):
        headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        if response.status in _REDIRECTS and b"location" in headers:
            return _check_location(headers[b"location"])
        if response.status != 200:
            raise _failed(f"status 200 of the host, got {response.status}")
        if headers.get(b"content-encoding", "identity").lower() != "identity":
            raise _failed("content that is not compressed, got a Content-Encoding")
        return await read(response)


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise _failed("a redirect to a URL, got something else") from None


def _check_location(location: str) -> str:
    """Only what `check_url` would take: `urljoin` drops tabs and line ends before anybody sees them."""
    if not location.isascii() or not location.isprintable() or "\\" in location:
        raise _failed("a redirect to a URL of plain ASCII characters, got others")
    return location


async def _read(take: Callable[[int], object], max_bytes: int, response: httpcore2.Response) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_stream():
        if len(content) + len(chunk) > max_bytes:
            raise Refusal(
                413, "too_large", f"expected an image of at most {max_bytes} bytes, got more; send a smaller one"
            )
        take(len(chunk))
        content += chunk
    return bytes(content)


class _CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were looked at, never to names."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.plain = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = parse_addresses(await self.network.resolve(host, port))
        if not all(self.network.permits(address) for address in addresses):
            raise Refusal(
                403, "url_not_allowed", "expected a host with public addresses alone, got another; send the file itself"
            )
        for address in addresses[:-1]:
            try:
                return await self.plain.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except httpcore2.ConnectError:
                continue
        return await self.plain.connect_tcp(str(addresses[-1]), port, timeout, local_address, socket_options)


def _failed(sentence: str) -> Refusal:
    return Refusal(422, "url_failed", f"expected {sentence}; check the URL, or send the file itself")
