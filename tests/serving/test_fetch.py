import ssl
from ipaddress import ip_address

import anyio
import pytest

from cxr.serving.addresses import is_public
from cxr.serving.bodies import Memory
from cxr.serving.fetch import Network, fetch_image, resolve
from cxr.serving.hosts import parse_hosts
from cxr.serving.refusal import Refusal

from .loopback import CONTENT, serve, write_certificate

HOST = "images.test"


@pytest.fixture(scope="module")
def server():
    with serve() as running:
        yield running


class Names:
    """A resolver whose answers are given one after the other, the last one for ever; counts the questions."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    async def __call__(self, host, port):
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def ignore(count):
    """Memory without an end."""


def is_here_or_public(address):
    return address == ip_address("127.0.0.1") or is_public(address)


def fetch(server, path, names=None, permits=is_here_or_public, take=ignore, **limits):
    names = Names(["127.0.0.1"]) if names is None else names
    port = server.server_port
    allowed = parse_hosts([f"http://{HOST}:{port}", f"http://*.{HOST}:{port}"])
    network = Network(resolve=names, permits=permits)
    return anyio.run(lambda: fetch_image(f"http://{HOST}:{port}{path}", allowed, take, network=network, **limits))


def test_the_content_comes_from_the_address_that_was_checked(server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    names = Names(["127.0.0.1"])
    server.seen.clear()
    assert fetch(server, "/image", names) == CONTENT
    assert names.asked == [HOST]
    (headers,) = server.seen
    assert headers["Host"] == f"{HOST}:{server.server_port}"
    assert headers["Accept-Encoding"] == "identity"
    assert not {"Cookie", "Authorization", "Referer"} & headers.keys()


def test_the_name_is_in_the_tls_handshake_and_its_certificate_is_checked(tmp_path):
    path = write_certificate(tmp_path / "images.pem", HOST)
    trusting = ssl.create_default_context(cafile=path)

    def get(host, tls, port):
        network = Network(Names(["127.0.0.1"]), lambda _: True, tls)
        url, allowed = f"https://{host}:{port}/image", parse_hosts([f"{host}:{port}"])
        return anyio.run(lambda: fetch_image(url, allowed, ignore, network=network))

    with serve(path) as server:
        assert get(HOST, trusting, server.server_port) == CONTENT
        assert server.names == [HOST]
        for host, tls in (("other.test", trusting), (HOST, None)):
            with pytest.raises(Refusal, match="an answer of the host, got ConnectError"):
                get(host, tls, server.server_port)


def test_redirects_are_followed_without_cookies(server):
    server.seen.clear()
    names = Names(["127.0.0.1"])
    target = f"http://a.{HOST}:{server.server_port}/to?/image"
    assert fetch(server, f"/to?{target}", names) == CONTENT
    assert names.asked == [HOST, f"a.{HOST}", f"a.{HOST}"]
    assert all("Cookie" not in headers for headers in server.seen)


REDIRECTS = {
    "metadata": ("http://169.254.169.254/latest/meta-data/", "numeric address"),
    "decimal": ("http://2130706433/", "numeric address"),
    "IPv4-mapped": ("http://[::ffff:7f00:1]/", "numeric address"),
    "another host": ("https://evil.example/", "list of image hosts"),
    "another port": (f"http://{HOST}:22/", "list of image hosts"),
    "https where http is listed": (f"https://{HOST}/", "list of image hosts"),
    "without a scheme": ("//evil.example/", "list of image hosts"),
    "user": (f"http://{HOST}@evil.example/", "with @ before"),
    "file": ("file:///etc/passwd", "begins with https"),
    "data": ("data:text/plain,hello", "https://host/path"),
    "open bracket": ("//[evil/", "a redirect to a URL, got something else"),
    "backslash": ("/\\evil.example/", "redirect to a URL of plain ASCII"),
    "backslashes": ("\\\\evil.example/", "redirect to a URL of plain ASCII"),
    "tab": ("//evil\t.example/", "redirect to a URL of plain ASCII"),
    "zero-width": ("http://images\u00ad.test/", "redirect to a URL of plain ASCII"),
}  # fmt: skip


@pytest.mark.parametrize(("location", "reason"), REDIRECTS.values(), ids=REDIRECTS.keys())
def test_a_redirect_that_is_refused(server, location, reason):
    names = Names(["127.0.0.1"])
    quoted = "".join(f"%{byte:02x}" for byte in location.encode("utf-8"))
    with pytest.raises(Refusal, match=reason):
        fetch(server, f"/to?{quoted}", names)
    assert names.asked == [HOST]


def test_redirects_have_an_end(server):
    server.seen.clear()
    with pytest.raises(Refusal, match="at most 3 redirects, got more"):
        fetch(server, "/loop")
    assert len(server.seen) == 4


ANSWERS = {
    "loopback": ["127.0.0.1"],
    "metadata": ["169.254.169.254"],
    "private": ["10.0.0.5"],
    "IPv6 loopback": ["::1"],
    "IPv4-mapped": ["::ffff:127.0.0.1"],
    "NAT64": ["64:ff9b::7f00:1"],
    "one of two": ["93.184.215.14", "127.0.0.1"],
    "one of two, first": ["127.0.0.1", "93.184.215.14"],
}


@pytest.mark.parametrize("addresses", ANSWERS.values(), ids=ANSWERS.keys())
def test_a_name_with_an_address_that_is_not_public(server, addresses):
    server.seen.clear()
    with pytest.raises(Refusal, match="public addresses alone") as caught:
        fetch(server, "/image", Names(addresses), permits=is_public)
    assert (caught.value.status, server.seen) == (403, [])
    assert addresses[0] not in str(caught.value)


def test_a_name_that_changes_between_redirects(server):
    names = Names(["127.0.0.1"], ["192.168.0.1"])
    with pytest.raises(Refusal, match="public addresses alone"):
        fetch(server, "/to?/image", names)
    assert len(names.asked) == 2


@pytest.mark.parametrize("addresses", [["::1", "127.0.0.1"], ["127.0.0.1", "::1"]])
def test_the_next_address_where_one_does_not_answer(server, addresses):
    assert fetch(server, "/image", Names(addresses), permits=lambda _: True) == CONTENT


@pytest.mark.parametrize(
    ("path", "limits", "status", "reason"),
    [
        ("/endless", {"max_bytes": 10_000}, 413, "at most 10000 bytes, got more"),
        ("/image", {"max_bytes": len(CONTENT) - 1}, 413, "at most 25599 bytes"),
        ("/drip", {"seconds": 0.2}, 422, "the image within 0.2 s"),
        ("/packed", {}, 422, "not compressed, got a Content-Encoding"),
        ("/status?404", {}, 422, "status 200 of the host, got 404"),
        ("/status?304", {}, 422, "status 200 of the host, got 304"),
        ("/broken", {}, 422, "an answer of the host, got RemoteProtocolError"),
    ],
)
def test_content_that_is_not_taken(server, path, limits, status, reason):
    with pytest.raises(Refusal, match=reason) as caught:
        fetch(server, path, **limits)
    assert caught.value.status == status


def test_the_largest_content_is_taken(server):
    assert fetch(server, "/image", max_bytes=len(CONTENT)) == CONTENT


def test_memory_is_taken_as_the_content_comes(server):
    taken = []
    assert fetch(server, "/image", take=taken.append) == CONTENT
    assert sum(taken) == len(CONTENT)
    memory = Memory(10_000)
    with memory.lend() as loan, pytest.raises(Refusal, match="uploads of together 10000 bytes at a time"):
        fetch(server, "/endless", take=loan.take)
    assert memory.held == 0


def test_a_host_that_nobody_knows(server):
    with pytest.raises(Refusal, match="its name resolves to nothing"):
        fetch(server, "/image", Names([]))


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "127.0.0.1"])
def test_the_resolver_of_the_machine(host):
    assert anyio.run(resolve, host, 443) == ([host] if host[0] == "1" else [])
