"""Several commands at a time, each a process of its own that ends when this one does.

Knows nothing of configs or training: a job is a command that ends with an exit code. The command must be one that stops
when its standard input closes, see `cxr.experiments.child`.
"""

import fcntl
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cxr.errors import TrainingError
from cxr.experiments.child import SECONDS_TO_STOP

POLL_SECONDS = 0.1
THREADS = "OMP_NUM_THREADS"
GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: What it is called.
        command: Its words.
        log: File that gets its output, in place of what it held; the folder is made.
    """

    name: str
    command: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class EndedJob:
    """How a job ended.

    Attributes:
        job: The job.
        exit_code: 0 for success; minus the signal number if a signal ended it.
        seconds: How long it took.
    """

    job: Job
    exit_code: int
    seconds: float


@dataclass(frozen=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    start: float


def share_machine(jobs: int, gpus: Sequence[str], cores: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """What each of `jobs` places adds to the environment, so that they share cores and GPUs.

    A single place gets the whole machine. Threads stay as they are where the user has set them.

    Args:
        jobs: How many commands run at a time, 1 or more.
        gpus: Names of the GPUs. All are dealt out, neighbours together; where there are fewer than places, one to each
            place, in turn.
        cores: Cores of the machine, divided among the places.
        environment: That of this process.
    """
    if jobs == 1:
        return [{}]
    threads = {} if THREADS in environment else {THREADS: str(max(1, cores // jobs))}
    return [threads | ({GPUS: ",".join(_deal(gpus, place, jobs))} if gpus else {}) for place in range(jobs)]


def _deal(gpus: Sequence[str], place: int, jobs: int) -> Sequence[str]:
    """The GPUs of one place."""
    count = len(gpus)
    return [gpus[place % count]] if count < jobs else gpus[place * count // jobs : (place + 1) * count // jobs]


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    count = os.cpu_count()
    return 1 if count is None else count


def run_jobs(
    jobs: Sequence[Job], places: Sequence[Mapping[str, str]], on_start: Callable[[Job], None]
) -> Generator[EndedJob, None, None]:
    """Run the jobs, so many at a time as there are places, yielding each as it ends.

    A failing job stops none of the others. Those that run when the iterator is closed, or interrupted, are stopped.

    Args:
        jobs: What to run, in this order.
        places: What each place adds to the environment.
        on_start: Told of each job that starts.

    Raises:
        TrainingError: A job of the same log, started by a process that was killed, does not stop.
    """
    waiting, running = deque(jobs), dict[int, _Running]()
    try:
        while waiting or running:
            for place, additions in enumerate(places):
                if waiting and place not in running:
                    on_start(waiting[0])
                    running[place] = _start(waiting.popleft(), additions)
            yield from _collect(running)
            time.sleep(POLL_SECONDS)
    finally:
        _stop([one.process for one in running.values()])


def _start(job: Job, additions: Mapping[str, str]) -> _Running:
    """Start a job in a session of its own, so that Ctrl-C at the terminal reaches this process alone."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        _own(log, job)
        log.truncate(0)
        process = subprocess.Popen(
            job.command, env={**os.environ, **additions}, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    return _Running(job, process, time.monotonic())


def _own(log: BinaryIO, job: Job) -> None:
    """Lock the log. The job inherits the lock with its output, so that no second one starts while it lives."""
    deadline = time.monotonic() + 2 * SECONDS_TO_STOP
    while True:
        try:
            return fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"{job.name} is still running from an earlier command that was killed; end it, then repeat "
                    "the command"
                ) from None
            time.sleep(POLL_SECONDS)


def _collect(running: dict[int, _Running]) -> Iterator[EndedJob]:
    """Take out and yield what has ended."""
    for place, one in list(running.items()):
        exit_code = one.process.poll()
        if exit_code is not None:
            _close(running.pop(place).process)
            yield EndedJob(one.job, exit_code, time.monotonic() - one.start)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask all to stop, then wait for each, and kill what does not stop by itself."""
    for process in processes:
        _close(process)
    deadline = time.monotonic() + 2 * SECONDS_TO_STOP
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
