"""Damaged uploads by the hundred and, marked `verify`, by the thousand; slow clients; a worker that is killed."""

import os
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx2
import pytest

from ..imaging.fuzzing import mutated_file
from .running import records, running, until

SECONDS_PER_UPLOAD = 40
"""Longer than the server allows itself: what takes this long hangs."""


@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    """Two workers; tests leave it working."""
    words = ("--bundle", bundle, "--workers", 2, "--decoders", 1, "--seconds", 20)
    with running(tmp_path_factory.mktemp("logs"), *words) as started:
        yield started


@pytest.mark.slow
def test_damaged_files_are_answered_or_refused(server, tmp_path):
    check_uploads(server, tmp_path, seed=1, count=300)


@pytest.mark.verify
def test_ten_thousand_damaged_files_are_answered_or_refused(server, tmp_path):
    check_uploads(server, tmp_path, seed=2, count=10_000)


def check_uploads(server, folder, seed, count):
    """Send mutated files; no worker ends, none hangs, and every answer says what became of the image."""
    before, statuses = server.workers(), Counter()
    client = httpx2.Client(base_url=server.address, headers=server.headers, timeout=SECONDS_PER_UPLOAD)
    with client:
        for number in range(count):
            name, content = mutated_file(folder, seed, number)
            answer = server.predict(content, client=client)
            while answer.status_code == 429:  # too many in a second
                time.sleep(float(answer.headers["Retry-After"]))
                answer = server.predict(content, client=client)
            statuses[answer.status_code] += 1
            (result,) = answer.json()["results"]
            told = result["status"] == "ok" or result["error"].startswith("expected ")
            assert answer.status_code in (200, 422), f"file {number} of seed {seed} ({name}): {answer.text}"
            assert told, f"file {number} of seed {seed} ({name}): {result}"
            assert ("error" in result) == (answer.status_code == 422)
    print(f"{count} mutated uploads: {dict(statuses)}")
    assert set(statuses) == {200, 422}
    assert server.workers() == before
    assert not [record for record in records(server.lines) if record["level"] in ("error", "critical")]


@pytest.mark.slow
def test_many_slow_clients_keep_nobody_from_being_answered(server, png):
    host, port = server.address.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(200)]
    ended = threading.Event()

    def drip():
        while not ended.wait(0.2):
            for connection in slow:
                with suppress(OSError):  # the server has had enough
                    connection.send(b"X")

    for connection in slow:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nX-Slow: ")
    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        for _ in range(8):
            with httpx2.Client(base_url=server.address, headers=server.headers, timeout=10) as client:
                assert server.predict(png, client=client).status_code == 200
        until(lambda: all(map(is_ended, slow)))
    finally:
        ended.set()
        dripping.join()
        for connection in slow:
            connection.close()
    assert server.predict(png).status_code == 200


def is_ended(connection) -> bool:
    """Whether the server has closed it."""
    connection.settimeout(0.001)
    try:
        return connection.recv(1024) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.slow
def test_a_killed_worker_loses_only_what_it_had_begun(server, png):
    """Eight clients wait for one answer each, so no more than eight requests are lost; all others are answered."""
    before, statuses, lost = server.workers(), Counter(), []
    killed = threading.Event()

    def ask(_):
        with httpx2.Client(base_url=server.address, headers=server.headers, timeout=60) as client:
            for _ in range(40):
                try:
                    statuses[server.predict(png, client=client).status_code] += 1
                except httpx2.TransportError:
                    lost.append(killed.is_set())
                time.sleep(0.05)

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, turn) for turn in range(8)]
        until(lambda: statuses[200] > 60)
        killed.set()
        os.kill(min(before), signal.SIGKILL)
        for one in asked:
            one.result()
    assert set(statuses) == {200}
    assert all(lost)
    assert len(lost) <= 8
    assert statuses[200] + len(lost) == 320
    until(lambda: len(server.workers() - before) == 1 and len(server.workers()) == 2)
