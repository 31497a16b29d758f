"""A server in processes of its own, started as from the command line, for tests of what only these can show."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import psutil

ROOT = Path(__file__).parents[2]
SECONDS = 120
"""In which everything has happened that ever will, however busy the machine."""


class Running:
    """A server, its address, and a client that has a key."""

    def __init__(self, process, lines):
        self.process, self.lines = process, lines
        key = self._wait_for(r"new key, shown only now: (\S+)")
        self.headers = {"X-API-Key": key}
        self.address = self._wait_for(r"serving .* at (http://\S+)")
        self.client = httpx2.Client(base_url=self.address, headers=self.headers, timeout=SECONDS)
        until(self.is_ready)

    def _wait_for(self, pattern):
        def found():
            assert self.process.poll() is None, self.lines
            return next((match[1] for line in self.lines if (match := re.search(pattern, line))), None)

        return until(found)

    def is_ready(self):
        assert self.process.poll() is None, self.lines
        with suppress(httpx2.TransportError):
            return self.client.get("/readyz").status_code == 200

    def predict(self, *files, client=None):
        fields = [("files", ("PATIENT^NAME.dcm", content)) for content in files]
        return (self.client if client is None else client).post("/v1/predict", files=fields)

    def workers(self):
        """The ids of the worker processes."""
        return {child.pid for child in psutil.Process(self.process.pid).children() if _is_worker(child)}

    def decoders(self):
        """The processes that decode: whatever the fork servers of the workers have made."""
        forking = [child for pid in self.workers() for child in psutil.Process(pid).children()]
        return [decoder for one in forking for decoder in one.children()]

    def stop(self, sent=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sent)
        code = self.process.wait(SECONDS)
        self.client.close()
        return code


def _is_worker(process):
    with suppress(psutil.NoSuchProcess):
        return "spawn_main" in " ".join(process.cmdline())


def until(found):
    """The first value of `found()` that is true."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError(f"never: {found}")


@contextmanager
def running(folder, *words, python=sys.executable):
    """A server started with these words of the command line, which keeps its keys in `folder`."""
    environment = {**os.environ, "CXR_LOG_DIR": str(folder)}
    command = [str(python), "-m", "cxr.cli", "serve", "--port", "0", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    lines = []
    threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")), daemon=True).start()
    try:
        yield (server := Running(process, lines))
        server.stop()
    finally:
        process.kill()
        process.wait()


def records(lines):
    """What the server logged, as plain values."""
    return [json.loads(line) for line in lines if line.startswith("{")]
