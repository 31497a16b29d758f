"""Answers per second and their delays, this server beside a plain one: python benchmarks/serving.py.

The same DenseNet121 of random weights at 224 px answers 224 px PNG files over HTTP on this machine:

- this server with torch, ONNX Runtime and 8-bit integers, as `cxr serve` starts it;
- plain: Flask behind waitress, Pillow, torch in evaluation mode on contiguous float32, loaded once; one request at a
  time with a compute thread per core, and a request per core with one compute thread each.

All servers stay open and are asked in turns, so that whatever else the machine does falls on all alike; numbers are
medians over the rounds, delays those of all requests of a round. Clients run beside the servers on the same cores, each
with a connection of its own, and ask again as soon as they are answered. Last lines: what HTTP, decoding and
preprocessing add to the net alone, in processor time and in waiting, and the memory of a server with a tiny net over
many requests.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import cv2
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from cxr.errors import require_extra
from cxr.imaging.preprocess import Preprocess
from cxr.inference.engines import ENGINES, ONNX, TORCH, open_predictor
from cxr.serving.settings import usable_cores

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cxr.inference.predictor import Predictor
    from cxr.serving.settings import Settings

SIZE, CLASSES, FILES = 224, ["normal", "pneumonia"], 16
DENSENET = {"name": "xrv_densenet121", "weights": None}
TINY = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}
PLAIN = {"plain, all cores each": (1, usable_cores()), "plain, a core each": (usable_cores(), 1)}
"""Name -> (requests at a time, compute threads of each)."""

PORTS = count(18_400)
NET_SECONDS = "/net_seconds"
BOUNDARY = "benchmark"
SECONDS_TO_START = 300
MIB = 2**20


@dataclass(frozen=True)
class Round:
    """What some clients saw of a server.

    Attributes:
        delays: Seconds of each request.
        seconds: From the first request to the last answer.
        statuses: Of HTTP, with their number.
    """

    delays: list[float]
    seconds: float
    statuses: Counter[int]

    @property
    def rate(self) -> float:
        """Images per second that were answered."""
        return self.statuses[200] / self.seconds

    def percentile(self, percent: float) -> float:
        """Of the delays, in milliseconds."""
        return 1e3 * float(np.percentile(self.delays, percent))


def shared_memory(process: psutil.Process) -> int:
    """Bytes of a process, its part of what it shares; 0 of one that has ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


def processor_seconds(process: psutil.Process) -> float:
    """What a process has computed so far, in all its threads."""
    times = process.cpu_times()
    return float(times.user + times.system)


class Server:
    """A server in a process of its own, and the largest memory that it was seen to use.

    Args:
        line: Code that serves at a port.
        port: The port.
        path: Where images are sent to.
    """

    def __init__(self, line: str, port: int, path: str) -> None:
        command = [sys.executable, "-c", f"import serving; serving.{line}"]
        self.process = subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)
        self.port, self.path, self.peak = port, path, 0.0
        self._ended = Event()
        self._watch = Thread(target=self._look)

    def start(self) -> None:
        """Wait until it answers, and watch its memory from then on."""
        end = time.monotonic() + SECONDS_TO_START
        while ask(self, make_forms(1), 1, 1).statuses[200] != 1:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"expected a server that starts at port {self.port}, but it did not")
            time.sleep(0.5)
        self._watch.start()

    def memory(self) -> float:
        """MiB of all its processes; what they share is counted once."""
        return sum(map(shared_memory, self._processes())) / MIB

    def seconds_beside_the_net(self) -> float:
        """Processor time so far of all its processes, but for what its net took: HTTP, decoding and preprocessing."""
        with urlopen(f"http://127.0.0.1:{self.port}{NET_SECONDS}", timeout=SECONDS_TO_START) as answer:
            net = float(json.load(answer))
        return sum(processor_seconds(process) for process in self._processes()) - net

    def stop(self) -> None:
        """End it."""
        self._ended.set()
        if self._watch.ident is not None:
            self._watch.join()
        self.process.terminate()
        self.process.wait()

    def _processes(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            self.peak = max(self.peak, self.memory())


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64], help="clients at a time")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, in each of which every server is asked")
    parser.add_argument(
        "--requests", type=int, default=4, help="requests of each client in a round, at least 16 in all"
    )
    parser.add_argument("--memory-requests", type=int, default=20_000, help="requests over which memory is watched")
    parser.add_argument("--tiny", action="store_true", help="a tiny net everywhere, to see whether this file works")
    arguments = parser.parse_args()
    require_extra("waitress", "bench")
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_model(Path(folder) / "net", TINY if arguments.tiny else DENSENET)
        compare(bundle, arguments)
        if arguments.memory_requests > 0:
            watch_memory(write_model(Path(folder) / "tiny", TINY), arguments.memory_requests)


def compare(bundle: Path, arguments: argparse.Namespace) -> None:
    """Ask every server in turns, and print the tables."""
    forms = make_forms(FILES)
    nets = {engine: make_net(bundle, engine) for engine in ENGINES}
    alone: dict[str, list[tuple[float, float]]] = {engine: [] for engine in ENGINES}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(opened(*made)) for name, made in list_servers(bundle).items()}
        for server in servers.values():
            server.start()
            ask(server, forms, max(arguments.clients), max(arguments.clients))  # warms up
        before = {engine: servers[engine].seconds_beside_the_net() for engine in ENGINES}
        rounds: dict[tuple[str, int], list[Round]] = {(name, n): [] for name in servers for n in arguments.clients}
        for number in range(1, arguments.rounds + 1):
            for clients in arguments.clients:
                for name, server in servers.items():
                    rounds[name, clients].append(ask(server, forms, clients, max(16, clients * arguments.requests)))
            for engine, net in nets.items():
                alone[engine].append(time_net(net))
            print(f"round {number} of {arguments.rounds}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
        spent = {engine: servers[engine].seconds_beside_the_net() - before[engine] for engine in ENGINES}
        print_rounds(rounds, {name: server.peak for name, server in servers.items()})
    print_added(rounds, alone, spent)


def list_servers(bundle: Path) -> dict[str, tuple[str, int, str]]:
    """Name -> arguments of `Server`."""
    servers = {}
    for engine in ENGINES:
        port = next(PORTS)
        servers[engine] = (f"serve_ours({str(bundle)!r}, {engine!r}, {port})", port, "/v1/predict")
    for name, (requests, threads) in PLAIN.items():
        port = next(PORTS)
        servers[name] = (f"serve_plain({str(bundle)!r}, {requests}, {threads}, {port})", port, "/predict")
    return servers


@contextmanager
def opened(line: str, port: int, path: str) -> Iterator[Server]:
    """A server, which is ended again."""
    server = Server(line, port, path)
    try:
        yield server
    finally:
        server.stop()


def serve_ours(bundle: str, engine: str, port: int) -> None:
    """This server, as the command line starts it; the limit of requests per key is out of the way."""
    from cxr.entry import prepare_environment
    from cxr.serving import run
    from cxr.serving.settings import Settings

    prepare_environment()
    run.make_worker_app = make_counting_app
    most = 10**6
    settings = Settings(bundle=Path(bundle), engine=engine, port=port, key_file=None, requests_per_second=most)
    run.serve(settings, tell=lambda address: None)


def make_counting_app(settings: "Settings") -> "FastAPI":
    """The application of a worker, which also tells what its net has computed so far."""
    from cxr.serving import run, service

    seconds = NetSeconds()
    open_alone = service.open_predictor

    def open_watched(*choice: Any) -> "Predictor":
        predictor = open_alone(*choice)
        seconds.watch(type(predictor))
        return predictor

    service.open_predictor = open_watched
    app = run.make_worker_app(settings)
    app.get(NET_SECONDS)(seconds.total)
    return app


class NetSeconds:
    """Processor time of a net in this process: that of compute threads, and of whoever asks it meanwhile."""

    def __init__(self) -> None:
        self._asking = 0.0

    def watch(self, kind: Any) -> None:
        """Count what its `ask` takes of the thread that calls it."""
        ask = kind.ask

        def counted(*given: Any) -> Any:
            start = time.thread_time()
            try:
                return ask(*given)
            finally:
                self._asking += time.thread_time() - start

        kind.ask = counted

    def total(self) -> float:
        """Seconds so far. Python's own threads compute no net but where they ask it."""
        own = {thread.native_id for thread in threading.enumerate()}
        return self._asking + sum(
            thread.user_time + thread.system_time for thread in psutil.Process().threads() if thread.id not in own
        )


def serve_plain(bundle: str, requests: int, threads: int, port: int) -> None:
    """What is written first: an app with a route, the model in a global, an image by Pillow."""
    import torch
    import waitress
    from flask import Flask, jsonify, request
    from PIL import Image

    from cxr.inference.bundle import load_net

    torch.set_num_threads(threads)
    net = load_net(Path(bundle)).net.to(memory_format=torch.contiguous_format).eval()
    app = Flask(__name__)

    @app.post("/predict")
    def predict() -> Any:
        image = Image.open(request.files["files"].stream).convert("L").resize((SIZE, SIZE))
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)) / 255 * 2048 - 1024
        with torch.no_grad():
            probs = torch.softmax(net(pixels[None, None]), dim=1)[0]
        return jsonify({"label": CLASSES[int(probs.argmax())], "probs": probs.tolist()})

    waitress.serve(app, port=port, host="127.0.0.1", threads=requests, backlog=1024, _quiet=True)


def write_model(folder: Path, config: dict[str, Any]) -> Path:
    """A bundle of random weights, exported with integers too, as a run would give it."""
    from cxr.inference.bundle import Fitted, write_bundle
    from cxr.inference.onnx_bundle import add_int8, read_with_graphs, write_exported
    from cxr.inference.outliers import fit_outliers
    from cxr.models.build import build_net
    from cxr.scaling import Scaling

    preprocess = Preprocess(size=(SIZE, SIZE), low=-1024.0, high=1024.0) if "xrv" in config["name"] else TINY_INPUT
    stored = preprocess.store_all([film / np.float32(255) for film in draw_films(512)])
    fitted = Fitted(Scaling(1.5), outliers=fit_outliers([stored[:400]], [stored[400:]]))
    net = build_net(num_classes=len(CLASSES), **config)
    write_bundle(folder, net, config, CLASSES, preprocess, {}, fitted=fitted)
    files = add_int8(read_with_graphs(folder), lambda one: [one.finish(stored[:8])])
    write_exported(files, folder, {})
    return folder


TINY_INPUT = Preprocess(size=(SIZE, SIZE))


def draw_films(number: int) -> np.ndarray:
    """(N, SIZE, SIZE) uint8: smooth random films with grain; nothing in them looks like a chest."""
    draws = np.random.default_rng(0)
    smooth = [cv2.resize(draws.random((9, 9), dtype=np.float32), (SIZE, SIZE)) for _ in range(number)]
    return np.uint8(np.clip(np.stack(smooth) * 230 + draws.normal(12, 3, (number, SIZE, SIZE)), 0, 255))


def make_forms(number: int) -> list[bytes]:
    """Bodies of requests, each with a PNG file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode()
    files = [cv2.imencode(".png", film)[1].tobytes() for film in draw_films(number)]
    return [head + file + f"\r\n--{BOUNDARY}--\r\n".encode() for file in files]


def ask(server: Server, forms: list[bytes], clients: int, requests: int) -> Round:
    """Clients who together send so many requests, each as soon as its last one is answered."""
    turns, delays, statuses = iter(range(requests)), [], Counter[int]()

    def be_client(_: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS_TO_START)
        for turn in turns:
            start = time.perf_counter()
            statuses[post(connection, server.path, forms[turn % len(forms)])] += 1
            delays.append(time.perf_counter() - start)
        connection.close()

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(be_client, range(clients)))
    return Round(delays, time.perf_counter() - start, statuses)


def post(connection: http.client.HTTPConnection, path: str, form: bytes) -> int:
    """The status of the answer; 0 where there is none."""
    try:
        connection.request("POST", path, form, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0
    return answer.status


def make_net(bundle: Path, engine: str) -> Callable[[], object]:
    """One image through the net alone, as its input."""
    predictor = open_predictor(bundle, engine)
    image = predictor.preprocess.finish(predictor.preprocess.store_all(list(draw_films(1) / np.float32(255))))
    return lambda: predictor.ask(image)


def time_net(net: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds on the clock and of the processor, medians of some runs after one."""
    times = []
    for _ in range(13):
        start, used = time.perf_counter(), time.process_time()
        net()
        times.append((1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - used)))
    seconds, processor = zip(*times[1:], strict=True)
    return median(seconds), median(processor)


def print_rounds(rounds: dict[tuple[str, int], list[Round]], peaks: dict[str, float]) -> None:
    """Medians over the rounds; each rate and p50 beside that of the better plain server."""
    table = Table(title=describe(), title_justify="left")
    for column in (
        "server",
        "clients",
        "images/s",
        "x plain",
        "p50 ms",
        "p50 x plain",
        "p95",
        "p99",
        "not 200",
        "peak MiB",
    ):
        table.add_column(column, justify="left" if column == "server" else "right")
    rate = {key: median(one.rate for one in seen) for key, seen in rounds.items()}
    p50, p95, p99 = (
        {key: median(one.percentile(percent) for one in seen) for key, seen in rounds.items()}
        for percent in (50, 95, 99)
    )
    for key, seen in rounds.items():
        name, clients = key
        fastest, soonest = max(rate[one, clients] for one in PLAIN), min(p50[one, clients] for one in PLAIN)
        refused = sum((one.statuses for one in seen), Counter[int]())
        del refused[200]
        table.add_row(name, str(clients), f"{rate[key]:.1f}", f"{rate[key] / fastest:.2f}", f"{p50[key]:.0f}",
                      f"{p50[key] / soonest:.2f}", f"{p95[key]:.0f}", f"{p99[key]:.0f}",
                      json.dumps(refused) if refused else "0", f"{peaks[name]:.0f}")  # fmt: skip
    Console(width=120).print(table)


def print_added(
    rounds: dict[tuple[str, int], list[Round]], alone: dict[str, list[tuple[float, float]]], spent: dict[str, float]
) -> None:
    """What an image takes beside the net: processor time, and what a single client waits for."""
    for engine in ENGINES:
        net, processor = (median(each) for each in zip(*alone[engine], strict=True))
        images = sum(one.statuses[200] for (name, _), seen in rounds.items() if name == engine for one in seen)
        beside = 1e3 * spent[engine] / images
        print(
            f"{engine}: the net alone {net:.1f} ms an image, {processor:.1f} ms of processor time; HTTP, decoding and"
        )
        print(f"  preprocessing take {beside:.1f} ms of processor time, {beside / processor:.0%} of that", end="")
        if (engine, 1) in rounds:
            whole = median(one.percentile(50) for one in rounds[engine, 1])
            print(f"; a single client waits {whole - net:.1f} ms longer than the net takes", end="")
        print()


def watch_memory(bundle: Path, requests: int) -> None:
    """The memory of a server, while it answers."""
    forms = make_forms(FILES)
    for engine in (ONNX, TORCH):
        port = next(PORTS)
        with opened(f"serve_ours({str(bundle)!r}, {engine!r}, {port})", port, "/v1/predict") as server:
            server.start()
            parts, statuses = [], Counter[int]()
            for _ in range(10):
                statuses += ask(server, forms, 16, requests // 10).statuses
                parts.append(server.memory())
        told = ", ".join(f"{part:.0f}" for part in parts)
        print(f"{engine}, tiny net: MiB after each tenth of {requests} requests: {told}; answers {dict(statuses)}")


def describe() -> str:
    """What the numbers hold for."""
    import torch

    return (
        f"DenseNet121, {SIZE} px PNG, clients and servers on the same {usable_cores()} cores, load average "
        f"{os.getloadavg()[0]:.1f}; torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
