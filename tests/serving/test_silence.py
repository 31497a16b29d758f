import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest

from cxr.serving.silence import SilentFormatter, describe_error

from ..imaging.dicom_files import make_dataset, save

NAME = "PLANTED"


def line_of(name, message, *arguments, **values):
    record = logging.LogRecord(name, logging.WARNING, "/home/planted/library/reader.py", 7, message, arguments, None)
    vars(record).update(values)
    return json.loads(SilentFormatter().format(record))


def test_of_others_only_the_place_is_written():
    line = line_of("library", "could not read %s", NAME)
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "warning", "event": "log", "logger": "library", "at": "library/reader.py:7"}


def test_what_uvicorn_says_of_itself_is_written():
    assert line_of("uvicorn.error", "Started server process [%d]", 12)["message"] == "Started server process [12]"
    assert "message" not in line_of("uvicorn.error", "Exception in ASGI application\n")
    assert "message" not in line_of("library", "Shutting down")


def test_our_own_events_are_written_with_their_values():
    line = line_of("cxr.serving", "batch", told={"images": 3})
    assert (line["event"], line["images"]) == ("batch", 3)
    assert "event" not in str(line_of("cxr.serving", NAME).values())


def test_an_error_is_its_types_and_places():
    try:
        try:
            raise KeyError(NAME)
        except KeyError as error:
            raise ValueError(NAME) from error
    except ValueError as error:
        error.__cause__.__context__ = error
        described = describe_error(error)
    assert described["types"] == ["ValueError", "KeyError"]
    assert described["frames"][0].startswith("serving/test_silence.py:")
    assert described["frames"][0].endswith(" test_an_error_is_its_types_and_places")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The URL of a running server, and what to call to end it and get all that it wrote, also into files."""
    folder = tmp_path_factory.mktemp("server")
    program, port, output = Path(__file__).with_name("silent_server.py"), folder / "port", folder / "output"
    environment = {**os.environ, "TMPDIR": str(folder)}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, program, port], stdout=file, stderr=subprocess.STDOUT, cwd=folder, env=environment
        )
    until = time.monotonic() + 60
    while b'"ready"' not in output.read_bytes() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)

    def finish():
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        assert {path.name for path in folder.rglob("*")} == {"port", "output"}
        return output.read_text()

    yield f"http://127.0.0.1:{port.read_text()}", finish
    process.kill()
    process.wait()


def write_planted(path, **elements):
    pixels = np.linspace(0, 4095, 40 * 50).reshape(40, 50).astype(np.uint16)
    dataset = make_dataset(pixels, bits=12, PatientName=NAME, PatientID=NAME, StudyDescription=NAME, **elements)
    return save(path, dataset, pixels).read_bytes()


@pytest.mark.slow
def test_nothing_that_a_client_sent_is_written(server, tmp_path):
    url, finish = server
    dicom = write_planted(tmp_path / "a.dcm")
    uploads = [dicom, dicom[:-100], dicom.replace(b"1.2.840", b"PLANTED", 1), b"\x89PNG\r\n\x1a\n" + NAME.encode(), b""]
    headers = {"X-Request-ID": NAME, "User-Agent": NAME, "Cookie": f"a={NAME}", "Authorization": f"Bearer {NAME}"}
    statuses = set()
    with httpx2.Client(base_url=url, headers=headers, params={"patient": NAME}, timeout=30) as client:
        for content in uploads:
            for path in (f"/upload/{NAME}", "/image", "/pillow", f"/{NAME}"):
                files = {"file": (f"{NAME}.dcm", content, "application/dicom")}
                statuses.add(client.post(path, files=files).status_code)
        statuses.add(client.post("/refuse", json={NAME: NAME}).status_code)
        statuses.add(client.post(f"/http/{NAME}").status_code)
        statuses.add(client.request(NAME, f"/{NAME}").status_code)
        broken = {"Content-Type": f"multipart/form-data; boundary={NAME}"}
        statuses.add(client.post("/image", content=f"--{NAME}\r\n{NAME}: {NAME}".encode(), headers=broken).status_code)
        statuses.add(client.post("/image", content=NAME.encode(), headers={"Content-Type": NAME}).status_code)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as raw:
        raw.sendall(f"{NAME} {NAME}\r\n{NAME}\r\n\r\n".encode())
        assert raw.recv(1000).startswith(b"HTTP/1.1 400")
    written = finish()
    assert statuses == {200, 400, 404, 422, 500}
    assert NAME.lower() not in written.lower()
    lines = [json.loads(line) for line in written.splitlines()]
    events = {line["event"] for line in lines}
    assert {"ready", "request", "failed", "log", "warning", "uncaught"} <= events
    assert {"library", "uvicorn.error", "asyncio"} <= {line.get("logger") for line in lines}
    assert (
        sum(line["event"] == "request" for line in lines) == 5 * 4 + 4
    )  # the unknown method got no further than uvicorn
    assert {line.get("message") for line in lines} >= {"Application startup complete.", "Shutting down"}


def test_a_line_that_cannot_be_written_is_dropped():
    code = (
        "import io, sys, logging; from cxr.serving.silence import set_up_logging\n"
        "class Broken(io.StringIO):\n"
        "    def write(self, text): raise OSError('PLANTED')\n"
        "set_up_logging(Broken())\n"
        "logging.getLogger('library').error('PLANTED')\n"
        "raise ValueError('PLANTED')\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (1, "", "")
