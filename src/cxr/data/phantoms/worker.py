"""The studies of a cohort in several processes. Knows nothing of layouts or tables.

The processes are fresh interpreters (`python -m cxr.data.phantoms.worker`), not forks, which are unsafe beside the
threads of torch, nor spawned by multiprocessing, which runs the caller's script again. Each takes a job as its argument
and answers with one line of JSON for each study; one whose parent dies ends at its next line.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import cv2
from rich.progress import track

from cxr.data.phantoms.cohort import plan_cohort
from cxr.data.phantoms.job import Job, Row, write_study
from cxr.errors import DataError
from cxr.progress import bar_console

_STUDIES_PER_WORKER = 12  # fewer are drawn sooner than a process starts


def write_studies(job: Job, workers: int | None) -> list[Row]:
    """Write the files of all studies.

    Args:
        job: What and where.
        workers: Processes; None takes one per CPU. Neither files nor rows depend on it.

    Returns:
        The rows of `job.write_study`, in the order of the studies.

    Raises:
        DataError: A process ended early.
        OSError: A file could not be written.
    """
    studies = job.spec.studies
    wanted = os.cpu_count() if workers is None else workers
    processes = min(1 if wanted is None else wanted, studies // _STUDIES_PER_WORKER)
    results = (
        _write_apart(job, processes) if processes > 1 else (write_study(plan, job) for plan in plan_cohort(job.spec))
    )
    console = bar_console()
    shown = track(results, "Drawing phantoms", studies, console=console, transient=True, disable=studies < 50)
    return [row for rows in shown for row in rows]


def _write_apart(job: Job, processes: int) -> Iterator[list[Row]]:
    """Every process writes every n-th study; their answers are read in turn."""
    workers = [_start(job, first, processes) for first in range(processes)]
    try:
        for study in range(job.spec.studies):
            yield _answer(workers[study % processes])
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()  # waits and closes the pipe


def _start(job: Job, first: int, step: int) -> "subprocess.Popen[str]":
    """A process that writes the studies first, first + step, and so on."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    task = json.dumps({"job": job.to_dict(), "first": first, "step": step})
    command = [sys.executable, "-P", "-m", "cxr.data.phantoms.worker", task]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment)


def _answer(worker: "subprocess.Popen[str]") -> list[Row]:
    """The rows of the next study of a process."""
    line = "" if worker.stdout is None else worker.stdout.readline()
    if not line:
        raise DataError(
            f"expected a process that draws phantoms to go on, but it ended with code {worker.wait()}; "
            "free memory or disk space and try again"
        )
    answer = json.loads(line)
    if "error" in answer:
        raise OSError(answer["error"])
    rows: list[Row] = answer["rows"]
    return rows


def main() -> None:
    """Write the share of a job that the command line names."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    cv2.setNumThreads(1)  # the processes are parallel enough
    task = json.loads(sys.argv[1])
    job = Job.from_dict(task["job"])
    for plan in plan_cohort(job.spec)[task["first"] :: task["step"]]:
        try:
            answer: dict[str, Any] = {"rows": write_study(plan, job)}
        except OSError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
