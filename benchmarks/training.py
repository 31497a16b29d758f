"""How fast training is, beside a bare loop and beside a loop that decodes every epoch: python benchmarks/training.py.

Every way trains the same net from random weights on batches of the same size at 224 px, with AdamW and cross-entropy:

- this project: what train.py does with `experiment=demo`, its callbacks, logger, progress bar and image cache, without
  augmentation;
- bare loop: torch alone, all images in the device's memory as bytes, in the same precision, in channels-last memory,
  with `keep_freed_memory` and the same way of waiting for threads (OMP_WAIT_POLICY);
- files: as the reference systems have it: float32, contiguous memory, a DataLoader with a process per core that reads,
  scales and resizes each file in each epoch; radiographs of 2336 x 2836 pixels as JPEG 2000 or uncompressed DICOM, or
  as 16-bit PNG.

Each way is a process of its own, and they take turns of some steps: all others, and their loader processes, stand still
meanwhile; the first step of a turn does not count. A ratio is the median over the rounds of this project's rate divided
by the other's in the same round, so that whatever else the machine does falls on both. `by processor` is the same of
processor seconds, which other programs change less; it is empty where several processes share the work, and on a GPU.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader

from cxr.compose import compose_config
from cxr.entry import prepare_environment
from cxr.memory import keep_freed_memory
from cxr.models.build import build_net

SIZE, CLASSES, WARM_UP, STEPS_TO_SETTLE = 224, 2, 3, 1
POLICY = "OMP_WAIT_POLICY"
ENCODINGS = ("jpeg2000", "uncompressed", "png")


@dataclass(frozen=True)
class Net:
    """A net by the words of train.py and as `build_net` makes it.

    Attributes:
        words: Override lines.
        arguments: Name and plain arguments.
        steps: Of a turn, so that turns of all nets last about as long.
    """

    words: tuple[str, ...]
    arguments: dict[str, Any]
    steps: int


def timm_net(architecture: str, steps: int) -> Net:
    """A timm net of one channel from random weights."""
    words = ("net=timm", f"net.architecture={architecture}", "net.pretrained=false", "preprocess=unit_224")
    return Net(words, {"name": "timm", "architecture": architecture, "in_channels": 1, "img_size": SIZE}, steps)


NETS = {
    "custom_cnn": Net(("net=custom_cnn", "preprocess=unit_224"), {"name": "custom_cnn"}, 12),
    "mobilenetv3": timm_net("mobilenetv3_large_100", 6),
    "densenet121, torchxrayvision": Net(
        ("net=xrv_densenet121", "net.weights=null", "preprocess=xrv_224"), {"name": "xrv_densenet121"}, 2
    ),
    "densenet121, timm": timm_net("densenet121", 2),
}


@dataclass(frozen=True)
class Job:
    """What every way is told.

    Attributes:
        net: Key of `NETS`.
        folder: Where the images are: `small/` for the cache, and a folder for each encoding.
        batch: Images of a step.
        device: "cpu" or "cuda".
        compile: Whether the net is compiled.
        scale: Factor of the steps of a turn.
    """

    net: str
    folder: Path
    batch: int
    device: str
    compile: bool
    scale: int

    @property
    def steps(self) -> int:
        """Of a turn."""
        return NETS[self.net].steps * self.scale


@dataclass(frozen=True)
class Turn:
    """What one turn of one way took.

    Attributes:
        images: That were trained on.
        seconds: On the clock.
        processor: Seconds of this process, of all its threads.
    """

    images: int
    seconds: float
    processor: float


class Turns:
    """Counts the steps of one way, and waits for the next turn when one is over.

    Args:
        connection: To whoever gives turns.
        job: Of which size a turn is.
        steps: Of a turn.
    """

    def __init__(self, connection: Connection, job: Job, steps: int) -> None:
        self.connection, self.job, self.steps = connection, job, steps
        self.count = -WARM_UP

    def step(self) -> None:
        """Call it when a step has been made."""
        self.count += 1
        if self.count == 0:
            self._wait(None)
        elif self.count == STEPS_TO_SETTLE:
            self._synchronize()
            self.started, self.used = time.perf_counter(), time.process_time()
        elif self.count == STEPS_TO_SETTLE + self.steps:
            self._synchronize()
            seconds, processor = time.perf_counter() - self.started, time.process_time() - self.used
            self._wait(Turn(self.steps * self.job.batch, seconds, processor))

    def _wait(self, turn: Turn | None) -> None:
        self.connection.send(turn)
        self.connection.recv()
        self.count = 0

    def _synchronize(self) -> None:
        if self.job.device == "cuda":
            torch.cuda.synchronize()


def train_by_project(turns: Turns, job: Job) -> None:
    """What `cxr.training.fit.fit` does up to the training loop; it is ended from outside, long before its end."""
    import pytorch_lightning as pl

    from cxr.training.assemble import assemble
    from cxr.training.fit import begin, log_hyperparameters, train
    from cxr.training.run_folder import RunFolder, start_logging

    class Report(pl.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            turns.step()

    keep_freed_memory()
    run = job.folder / f"run {job.net}"
    config = compose_config([
        "experiment=demo", "run_name=bench", "augment=none", *NETS[job.net].words, f"data.batch_size={job.batch}",
        "data=image_folder", f"data.root='{job.folder}/small'", "data.fractions=[0.8,0.1,0.1]", "data.leak_gate=off",
        f"paths.output_dir='{run}'", f"paths.cache_dir='{job.folder / 'cache'}'", f"compile={str(job.compile).lower()}",
        f"trainer.accelerator={'gpu' if job.device == 'cuda' else 'cpu'}",
    ])[1]  # fmt: skip
    folder = RunFolder(run)
    start_logging(folder.root)
    experiment = assemble(config)
    experiment.trainer.callbacks.append(Report())
    begin(experiment, folder)
    log_hyperparameters(experiment)
    os.environ["FORCE_COLOR"] = "1"  # the progress bar draws as on a terminal
    train(experiment)


def train_bare(turns: Turns, job: Job) -> None:
    """The shortest loop that does the same."""
    from cxr.training.precision import MIXED, fastest_precision

    keep_freed_memory()
    device = torch.device(job.device)
    images, labels = (one.to(device) for one in read_small(job.folder / "small"))
    net = build_net(num_classes=CLASSES, **NETS[job.net].arguments).to(device, memory_format=torch.channels_last)
    if job.compile:
        net.compile()
    optimizer = torch.optim.AdamW(net.train().parameters(), lr=0.003, weight_decay=0.01)
    low, high = net.input_contract.low, net.input_contract.high
    mixed = fastest_precision("gpu" if job.device == "cuda" else "cpu") == MIXED
    while True:
        for rows in torch.randperm(len(images), device=device)[: len(images) // job.batch * job.batch].split(job.batch):
            image = images[rows].unsqueeze(1).float() * ((high - low) / 255) + low
            with torch.autocast(job.device, dtype=torch.bfloat16, enabled=mixed):
                logits = net(image.contiguous(memory_format=torch.channels_last))
                loss = nn.functional.cross_entropy(logits, labels[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            turns.step()


def train_from_files(turns: Turns, job: Job, encoding: str) -> None:
    """As the reference systems train: each file is read in each epoch."""
    device = torch.device(job.device)
    net = build_net(num_classes=CLASSES, **NETS[job.net].arguments).to(device)
    optimizer = torch.optim.AdamW(net.train().parameters(), lr=0.003, weight_decay=0.01)
    paths = sorted(str(path) for path in (job.folder / encoding).iterdir())
    files = Repeated(paths, job.batch * 100_000)
    loader = DataLoader(
        files,
        job.batch,
        num_workers=os.cpu_count() or 1,
        prefetch_factor=1,  # used up by the first steps: no turn is fed by what was decoded before it
        pin_memory=job.device == "cuda",
        multiprocessing_context="fork",
    )
    for image, label in loader:
        loss = nn.functional.cross_entropy(net(image.to(device)), label.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        turns.step()


class Repeated(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """A few files as if they were many."""

    def __init__(self, paths: list[str], length: int) -> None:
        self.paths, self.length = paths, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        from input_pipeline import read_plain

        path = self.paths[row % len(self.paths)]
        return (read_png(path) if path.endswith(".png") else read_plain(path)), row % CLASSES


def read_png(path: str) -> torch.Tensor:
    """As `read_plain` reads a DICOM file: (1, SIZE, SIZE) scaled to its range."""
    pixels = cv2.imread(path, cv2.IMREAD_UNCHANGED).astype(np.float32)
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    return torch.from_numpy(cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA))[None]


def read_small(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, SIZE, SIZE) uint8 images and (N,) labels, all in memory."""
    paths = sorted(folder.glob("*/*.png"))
    labels = torch.tensor([int(path.parent.name) for path in paths])
    images = np.stack([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths])
    return torch.from_numpy(images), labels


class Way:
    """A way to train in a process group of its own, which stands still unless it has its turn.

    Args:
        train: Trains for ever, telling the turns of each step.
        job: What it is told.
        steps: Of a turn.
        policy: How its threads wait; None for what the library does by itself.
        words: More arguments of `train`.
    """

    def __init__(self, train: Callable[..., None], job: Job, steps: int, policy: str | None, *words: str) -> None:
        self.connection, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=run_alone, args=(train, other, job, steps, *words))
        with environment(POLICY, policy):
            self.process.start()
        other.close()

    def wait_until_ready(self) -> None:
        """Return after its first steps."""
        self._receive()

    def take_turn(self) -> Turn:
        """Let it run for a turn."""
        os.killpg(self._group, signal.SIGCONT)
        self.connection.send(None)
        turn = self._receive()
        assert turn is not None
        return turn

    def stop(self) -> None:
        """End it and its loader processes."""
        try:
            os.killpg(self._group, signal.SIGKILL)
        except ProcessLookupError:  # it has no group yet, or has ended
            self.process.kill()
        self.process.join()

    def _receive(self) -> Turn | None:
        try:
            turn: Turn | None = self.connection.recv()
        except EOFError:
            raise RuntimeError("a way to train ended; its message is above") from None
        os.killpg(self._group, signal.SIGSTOP)
        return turn

    @property
    def _group(self) -> int:
        assert self.process.pid is not None
        return self.process.pid


def run_alone(train: Callable[..., None], connection: Connection, job: Job, steps: int, *words: str) -> None:
    """In a new process: a group of its own, its output away, and off it goes."""
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    train(Turns(connection, job, steps), job, *words)


@contextmanager
def environment(name: str, value: str | None) -> Iterator[None]:
    """A variable for the processes that are started in this block."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def measure(job: Job, encodings: list[str], rounds: int) -> dict[str, list[Turn]]:
    """Turns of every way, one after the other in each round."""
    policy = os.environ[POLICY]
    with ExitStack() as stack:
        ways: dict[str, Way] = {}

        def start(name: str, *arguments: Any) -> None:
            ways[name] = Way(*arguments)
            stack.callback(ways[name].stop)
            ways[name].wait_until_ready()

        start("this project", train_by_project, job, job.steps, policy)
        start("bare loop", train_bare, job, job.steps, policy)
        workers = os.cpu_count() or 1  # each makes whole batches, which come together
        for encoding in encodings:
            start(f"files: {encoding}", train_from_files, job, workers * job.scale, None, encoding)
        turns: dict[str, list[Turn]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                turns[name].append(way.take_turn())
    return turns


def compare_turns(ours: list[Turn], others: list[Turn], cost: str) -> float:
    """Median over the rounds of how many times fewer seconds an image takes us; `cost` names the seconds."""
    each = zip(ours, others, strict=True)
    return median(getattr(b, cost) / b.images / (getattr(a, cost) / a.images) for a, b in each)


def write_small(folder: Path, count: int) -> None:
    """Small smooth PNG files in a folder for each class; nothing in them looks like a chest."""
    draws = np.random.default_rng(0)
    for number in range(count):
        path = folder / str(number % CLASSES) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(draws.integers(0, 256, (8, 8), dtype=np.uint8), (SIZE, SIZE)))


def write_large(folder: Path, encodings: list[str], count: int) -> None:
    """Radiographs in every encoding."""
    from input_pipeline import write_radiographs
    from pydicom import dcmread

    for encoding in encodings:
        write_radiographs(folder / encoding, count, "uncompressed" if encoding == "png" else encoding)
    if "png" in encodings:
        for path in (folder / "png").glob("*.dcm"):
            cv2.imwrite(str(path.with_suffix(".png")), dcmread(path).pixel_array)
            path.unlink()


def main() -> None:
    """Write the images, measure net by net and print the table."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # no way is left standing still
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--encodings", nargs="*", choices=ENCODINGS, default=list(ENCODINGS))
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--longer", type=int, default=1, help="how many times as many steps a turn has")
    parser.add_argument("--files", type=int, default=8, help="radiographs of each encoding")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile, for this project and the bare loop")
    arguments = parser.parse_args()
    prepare_environment()
    table = make_table(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_large(folder, arguments.encodings, arguments.files)
        turn = STEPS_TO_SETTLE + arguments.longer * max(NETS[net].steps for net in arguments.nets)
        write_small(
            folder / "small", int(arguments.batch * (WARM_UP + 2 + arguments.rounds * turn) / 0.8)
        )  # one epoch: no turn has a validation
        for net in arguments.nets:
            job = Job(net, folder, arguments.batch, arguments.device, arguments.compile, arguments.longer)
            add_rows(table, job, measure(job, arguments.encodings, arguments.rounds))
    Console(width=120).print(table)


def make_table(arguments: argparse.Namespace) -> Table:
    """The empty table, with what its numbers hold for."""
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    title = (
        f"training on {where}, {SIZE} px, batch {arguments.batch}, {POLICY}={os.environ[POLICY]}, load average "
        f"{os.getloadavg()[0]:.1f}; torch {torch.__version__}"
    )
    table = Table(title=title, title_justify="left")
    for column in ("net", "beside", "this project, images/s", "it, images/s", "ratio", "by processor"):
        table.add_column(column, justify="left" if column in ("net", "beside") else "right")
    return table


def add_rows(table: Table, job: Job, turns: dict[str, list[Turn]]) -> None:
    """A row for each other way."""
    ours = turns.pop("this project")
    for name, others in turns.items():
        alone = name == "bare loop" and job.device == "cpu"
        table.add_row(
            job.net, name, *(f"{median(t.images / t.seconds for t in way):.1f}" for way in (ours, others)),
            f"{compare_turns(ours, others, 'seconds'):.2f}",
            f"{compare_turns(ours, others, 'processor'):.2f}" if alone else "",
        )  # fmt: skip


if __name__ == "__main__":
    main()
