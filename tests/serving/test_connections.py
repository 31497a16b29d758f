import asyncio
import socket
import threading
import time
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from cxr.serving.connections import MOST_HEADER_BYTES, BoundedConfig
from cxr.serving.settings import Limits

BYTES = 40_000_000


async def app(scope, receive, send):
    """Reads the body, then answers: much on /large, nothing ever on /never."""
    while (await receive()).get("more_body", False):
        pass
    body = bytes(BYTES) if scope["path"] == "/large" else b"ok"
    if scope["path"] == "/never":
        await receive()
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def address():
    """A server that is patient for a fifth of a second."""
    more = {"port": 0, "lifespan": "off", "log_config": None, "ws": "none", "timeout_keep_alive": 60}
    config = BoundedConfig(lambda: app, Limits(), **more)
    config.header_seconds = config.exchange_seconds = config.read_seconds = 0.2
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[:2]
    server.should_exit = True
    thread.join()


def read_all(connection) -> bytes:
    """What comes until the server ends the connection; a server that never does fails by the timeout."""
    connection.settimeout(20)
    content = b""
    try:
        while chunk := connection.recv(65536):
            content += chunk
    except ConnectionResetError:
        pass
    return content


@pytest.mark.parametrize(
    "sent",
    [
        b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ", b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n12",
    ],
    ids=["nothing", "half a line", "half the headers", "never answered", "half a body"],
)  # fmt: skip
def test_who_keeps_the_server_waiting_is_let_go(address, sent):
    with socket.create_connection(address) as connection:
        connection.sendall(sent)
        assert read_all(connection) == b""


def test_who_asks_and_reads_is_answered_then_let_go(address):
    with socket.create_connection(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        assert read_all(connection).count(b"HTTP/1.1 200 OK") == 2


def test_limits_are_those_of_the_settings():
    config = BoundedConfig(lambda: app, Limits(seconds=20, header_seconds=5))
    assert (config.header_seconds, config.exchange_seconds) == (5, 50)


def test_who_never_reads_is_let_go(address):
    with socket.create_connection(address) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(1)
        assert len(read_all(connection)) < BYTES


REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = b"a" * 1000


def feed(*pieces) -> tuple[bytes, int]:
    """What a connection answers at once to bytes that come in these pieces, and how many of them it takes."""

    async def run():
        config = BoundedConfig(lambda: app, Limits(), lifespan="off", log_config=None, ws="none")
        config.load()
        transport = Mock(is_closing=lambda: transport.close.called, get_extra_info=lambda _: None)
        connection = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})
        connection.connection_made(transport)
        taken = 0
        for piece in pieces:
            if transport.is_closing():
                break
            connection.data_received(piece)
            taken += len(piece)
        connection.connection_lost(None)
        return b"".join(call.args[0] for call in transport.write.call_args_list), taken

    return asyncio.run(run())


@pytest.mark.parametrize(
    "pieces",
    [
        [b"\r\n" * 500] * 200,
        [b"GET /", *[PIECE] * 200],
        [b"GET / HTTP/1.1\r\nHost: a\r\n", *[b"X-A: " + PIECE + b"\r\n"] * 200],
        [b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ", *[PIECE] * 200],
        [b"GET / HTTP/1.1\r\nHost: a\r\n", *[PIECE] * 200],
        [REQUEST + b"1\r\na\r\n0\r\n", *[b"X-A: " + PIECE + b"\r\n"] * 200],
        [REQUEST, b"1;", *[PIECE] * 200],
        [b"GET / HTTP/1.1\r\n" + b"X-A: " + PIECE * 70 + b"\r\n\r\n"],
    ],
    ids=["empty lines", "URL", "many", "value", "name", "after the body", "in the body", "at once"],
)
def test_headers_that_are_too_large(pieces):
    answer, taken = feed(*pieces)
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"connection: close" in answer
    assert b"expected headers of at most 65536 bytes, got more" in answer
    assert taken <= MOST_HEADER_BYTES + 10_000


def test_large_bodies_and_many_requests_have_small_headers():
    body = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    assert (
        feed(REQUEST + body, *[body] * 9, b"0\r\n\r\n", *[b"GET / HTTP/1.1\r\nX-A: %s\r\n\r\n" % PIECE] * 99)[0] == b""
    )
    assert feed(b"GET / HTTP/1.1\r\nX-A: " + PIECE * 65 + b"\r\n\r\n")[0] == b""


def test_broken_requests_are_told_so():
    assert feed(b"broken\r\n\r\n")[0].startswith(b"HTTP/1.1 400 ")
