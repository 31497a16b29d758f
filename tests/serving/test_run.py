import asyncio
import io
import logging
import os
import pickle
import random
import shutil
import signal
import socket
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest
from PIL import Image
from uvicorn.config import STARTUP_FAILURE

from cxr.errors import ConfigError, CxrError
from cxr.inference.engines import open_predictor
from cxr.serving.run import bind, check, make_config, make_worker_app, serve
from cxr.serving.silence import SilentFormatter

from ..imaging.dicom_files import make_dataset, save
from .conftest import NAMES, add_card, to_png
from .running import SECONDS, records, running, until


@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    """Two workers; tests leave it working."""
    with running(
        tmp_path_factory.mktemp("logs"), "--bundle", bundle, "--workers", 2, "--decoders", 1, "--max-mb", 4
    ) as started:
        yield started


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    ramp = np.linspace(0, 4095, 80 * 60).reshape(80, 60).astype(np.uint16)
    return save(
        tmp_path_factory.mktemp("dicom") / "a.dcm", make_dataset(ramp, bits=12, PatientName="PLANTED^NAME"), ramp
    )


def test_an_address_that_is_taken():
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=f"listen at 127.0.0.1 port {port}, got .*; choose another --host or --port"
        ):
            bind("127.0.0.1", port)


def test_answers_are_sent_at_once():
    """asyncio turns Nagle's algorithm off where it is told that a socket speaks TCP; else an answer waits 40 ms."""

    async def accept(listener):
        delays = []
        server = await asyncio.start_server(
            lambda _, writer: delays.append(nodelay(writer)) or writer.close(), sock=listener
        )
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        await reader.read()
        writer.close()
        server.close()
        return delays

    def nodelay(writer):
        return writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert asyncio.run(accept(bind("127.0.0.1", 0))) == [1]


def test_what_uvicorn_is_told(make_settings):
    config = make_config(make_settings())
    assert (config.log_config, config.access_log, config.ws) == (None, False, "none")
    assert config.header_seconds == 10
    assert pickle.loads(pickle.dumps(config)).header_seconds == 10
    assert config.timeout_graceful_shutdown > make_settings().limits.seconds


@pytest.mark.parametrize(
    ("change", "damage", "message"),
    [
        ({"allowed_origins": ("*",)}, None, "expected allowed origins as https://host"),
        ({"image_hosts": ("a/b",)}, None, "expected image hosts as host"),
        ({}, lambda folder: (folder / "bundle.json").write_text("{"), r"expected JSON in .*bundle\.json"),
        ({}, lambda folder: (folder / "bundle.json").write_text('{"format": 2}'), "a bundle of format 1 .*, got 2"),
        ({}, lambda folder: add_card(folder, b"\xff"), "expected text in UTF-8"),
    ],
    ids=["origin", "host", "JSON", "format", "card"],
)
def test_what_no_worker_could_start_with_is_told_before_there_is_one(
    bundle, tmp_path, make_settings, change, damage, message
):
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    if damage is not None:
        damage(folder)
    with pytest.raises(CxrError, match=message):
        check(make_settings(bundle=folder, **change))


@pytest.mark.parametrize(
    ("error", "told"), [(ConfigError("a sentence"), "error: a sentence\n"), (KeyError("PLANTED"), '["KeyError"]')]
)
def test_a_worker_that_cannot_be_made_is_not_made_again(make_settings, monkeypatch, capsys, error, told):
    def fail(settings):
        raise error

    monkeypatch.setattr("cxr.serving.run._make_app", fail)
    monkeypatch.setattr("cxr.serving.silence.set_up_logging", lambda: None)
    monkeypatch.setattr("cxr.serving.silence.log", make_log())
    with pytest.raises(SystemExit) as caught:
        make_worker_app(make_settings())
    written = capsys.readouterr().err
    assert caught.value.code == STARTUP_FAILURE
    assert told in written
    assert "PLANTED" not in written


def make_log():
    """A logger of its own, that writes as the server does."""
    log, handler = logging.Logger("cxr.serving"), logging.StreamHandler()
    handler.setFormatter(SilentFormatter())
    log.addHandler(handler)
    return log


@pytest.mark.slow
def test_workers_answer_as_the_bundle_does(server, dicom, png, bundle):
    results = server.predict(dicom.read_bytes(), png).json()["results"]
    (predicted,) = open_predictor(bundle).predict([dicom])[["prob_0", "prob_1"]].to_numpy()
    np.testing.assert_allclose([results[0]["probs"][name] for name in NAMES], predicted, atol=1e-6)
    assert results[1]["status"] == "ok"


@pytest.mark.slow
def test_every_worker_tells_the_measures_of_all(server, png):
    def count():
        (line,) = (
            line
            for line in server.client.get("/metrics").text.splitlines()
            if line.startswith('cxr_images_total{status="ok"}')
        )
        return float(line.split()[-1])

    server.predict(png)
    before = count()
    for _ in range(8):
        with httpx2.Client(base_url=server.address, headers=server.headers, timeout=60) as another:
            server.predict(png, client=another)
    assert {count() for _ in range(4)} == {before + 8}


@pytest.mark.slow
def test_a_killed_worker_is_replaced(server, png):
    before = server.workers()
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len(server.workers() - before) == 1 and len(server.workers()) == 2)
    until(server.is_ready)
    for _ in range(8):
        with httpx2.Client(base_url=server.address, headers=server.headers, timeout=60) as another:
            assert server.predict(png, client=another).status_code == 200


def mutate(content: bytes, draw: random.Random) -> bytes:
    """A file with some bytes changed, cut off, doubled or put in."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        place = draw.randrange(len(changed))
        kind = draw.randrange(4)
        if kind == 0:
            changed[place] = draw.randrange(256)
        elif kind == 1:
            del changed[place : place + draw.randint(1, 64)]
        elif kind == 2:
            changed[place:place] = draw.randbytes(draw.randint(1, 16))
        else:
            del changed[max(place, 1) :]
        if not changed:
            return b""
    return bytes(changed)


@pytest.mark.slow
def test_mutated_uploads_are_answered_or_refused(server, dicom, png):
    draw = random.Random(0)
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(png)).save(jpeg, "JPEG")
    originals = [dicom.read_bytes(), png, jpeg.getvalue()]
    answers = [server.predict(mutate(originals[turn % 3], draw)) for turn in range(300)]
    assert {answer.status_code for answer in answers} <= {200, 422}
    assert {answer.status_code for answer in answers} == {200, 422}
    for answer in answers:
        (result,) = answer.json()["results"]
        assert result["status"] == "ok" or result["error"].startswith("expected")


@pytest.mark.slow
def test_mutated_requests_are_answered_or_refused(server, png):
    draw = random.Random(0)
    request = httpx2.Request("POST", server.address, files=[("files", ("a.png", png))])
    for _ in range(200):
        content, kind = mutate(request.read(), draw), request.headers["content-type"]
        answer = server.client.post("/v1/predict", content=content, headers={"content-type": kind})
        while answer.status_code == 429:  # a hundred requests a second are what one key may send
            time.sleep(float(answer.headers["retry-after"]))
            answer = server.client.post("/v1/predict", content=content, headers={"content-type": kind})
        assert answer.status_code in (200, 400, 422), answer.text


def zeros_as_png(rows: int, columns: int) -> bytes:
    """A PNG that declares its size and holds fewer zeros, deflated: 20 MB of them take 20 kB."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    content = bytearray(file.getvalue())
    content[16:24] = columns.to_bytes(4, "big") + rows.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.slow
def test_bombs_cost_themselves_alone(server, png):
    zeros = to_png(np.zeros((4500, 4500)))
    for content, said in (
        (zeros, "at least two grey values"),
        (zeros_as_png(9000, 9000), "at most 50000000 pixels"),
        (zeros_as_png(60_000, 60_000), "DecompressionBombError"),
        (zeros_as_png(7000, 7000), "expected"),
    ):
        answer = server.predict(content)
        assert answer.status_code == 422
        assert said in answer.text
    assert server.predict(bytes(5 * 2**20)).status_code == 413
    assert server.predict(png).status_code == 200


@pytest.mark.slow
def test_clients_that_go_away_are_no_failure(server, png):
    host, port = server.address.removeprefix("http://").split(":")
    head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nX-API-Key: {server.headers['X-API-Key']}\r\n".encode()
    for rest in (b"Content-Type: multipart/form-data; boundary=a\r\nContent-Length: 999\r\n\r\n--a\r\n", b"Content-"):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head + rest)
    body = httpx2.Request("POST", server.address, files=[("files", ("a.png", png))])
    sent = f"Content-Type: {body.headers['content-type']}\r\nContent-Length: {len(body.read())}\r\n\r\n".encode()
    for _ in range(20):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head + sent + body.read())
    assert server.predict(png).status_code == 200
    assert not [record for record in records(server.lines) if record["level"] in ("error", "critical")]


@pytest.mark.slow
def test_nothing_that_is_written_names_a_patient(server, dicom):
    server.predict(dicom.read_bytes())
    said = server.predict(dicom.read_bytes().replace(b"MONOCHROME2 ", b"PLANTED TOO ")).json()["results"][0]["error"]
    assert "got PLANTED TOO" in said
    server.predict(b"broken")
    written = "".join(server.lines)
    assert "PLANTED" not in written
    assert "PATIENT" not in written
    assert any(record.get("route") == "/v1/predict" for record in records(server.lines))


@contextmanager
def suspended(processes):
    """They stand still."""
    for one in processes:
        one.suspend()
    try:
        yield
    finally:
        for one in processes:
            one.resume()


def count_waiting(server):
    """Images that somebody sent and that are not answered."""
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("cxr_waiting_images "))


def is_deaf(server):
    host, port = server.address.removeprefix("http://").split(":")
    with socket.socket() as one:
        return one.connect_ex((host, int(port))) != 0


@pytest.mark.slow
def test_sigterm_answers_whatever_was_begun(bundle, tmp_path, png):
    """Nothing is decoded until the server listens no more, so all four requests are under way when it is to end."""
    words = ("--bundle", bundle, "--decoders", 1, "--seconds", 120)

    def ask(_):
        with httpx2.Client(base_url=server.address, headers=server.headers, timeout=SECONDS) as client:
            return server.predict(*[png] * 8, client=client).status_code

    with running(tmp_path, *words) as server, ThreadPoolExecutor(4) as threads:
        with suspended(server.decoders()):
            asked = threads.map(ask, range(4))
            until(lambda: count_waiting(server) == 4 * 8)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: is_deaf(server))
            with pytest.raises(httpx2.ConnectError):
                ask(None)
        assert list(asked) == [200] * 4
        assert server.process.wait(SECONDS) == 0
    assert [one["status"] for one in records(server.lines) if one.get("route") == "/v1/predict"] == [200] * 4


@pytest.mark.slow
def test_sigterm_does_not_wait_for_a_reload(bundle, tmp_path):
    """Its new worker never starts, of which nothing is said that would be if it had been waited for."""
    with running(tmp_path, "--bundle", bundle, "--decoders", 1) as server:
        before = server.workers()
        server.process.send_signal(signal.SIGHUP)
        (new,) = until(lambda: server.workers() - before)
        os.kill(new, signal.SIGSTOP)
        assert server.stop() == 0
    assert not [record for record in records(server.lines) if record["level"] in ("error", "critical")]


@pytest.fixture
def short_folder():
    """A folder whose path leaves room for a socket's name, of which a system takes 108 bytes."""
    with tempfile.TemporaryDirectory() as name:
        yield name


@pytest.mark.slow
def test_uploads_leave_nothing_behind(bundle, tmp_path, short_folder, monkeypatch, dicom):
    """No file but measures, and decoders, which may keep what they import, write nothing to any disk."""
    temporary = Path(short_folder)
    monkeypatch.setenv("TMPDIR", short_folder)
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200))

    def send_all():
        for content in (to_png(noise), dicom.read_bytes(), bytes(2 * 2**20)):
            assert server.predict(content).status_code in (200, 422)
            server.client.post("/v1/image", files=[("files", ("a", content))])

    with running(tmp_path, "--bundle", bundle, "--decoders", 1) as server:
        send_all()
        (decoder,) = server.decoders()
        before = decoder.io_counters().write_bytes
        send_all()
        assert decoder.io_counters().write_bytes == before
        left = [file for file in temporary.rglob("*") if file.is_file()]
        assert left
        assert [file for file in left if not file.parent.name.startswith("cxr_measures_")] == []


@pytest.mark.slow
def test_no_process_stays_behind(bundle, tmp_path, png):
    with running(tmp_path, "--bundle", bundle) as server:
        server.predict(png)
        everything = psutil.Process(server.process.pid).children(recursive=True)
        assert len(everything) >= 3
        server.process.kill()
        _, alive = psutil.wait_procs(everything, timeout=60)
        assert alive == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "error: expected the weights of the bundle in"),
        (lambda folder: (folder / "bundle.json").write_text("{"), "error: expected JSON in"),
    ],
    ids=["model", "application"],
)
def test_a_worker_that_cannot_start_ends_the_server(bundle, tmp_path, make_settings, capfd, monkeypatch, damage, told):
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    handlers = {one: signal.getsignal(one) for one in signal.Signals if one not in (signal.SIGKILL, signal.SIGSTOP)}
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    try:
        with pytest.raises(ConfigError, match="expected workers that start, but one did not"):
            serve(make_settings(bundle=folder, port=0), tell=lambda address: damage(folder))
    finally:
        for one, handler in handlers.items():
            with suppress(OSError, TypeError, ValueError):
                signal.signal(one, handler)
    written = capfd.readouterr().err
    assert written.count(told) == 1
    assert "Traceback" not in written
