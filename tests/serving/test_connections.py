import socket
import threading
import time

import pytest
import uvicorn

from cxr.serving.connections import BoundedConfig
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
