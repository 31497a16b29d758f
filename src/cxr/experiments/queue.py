"""A queue of runs: one line of a file is the command line of one run, each in a process of its own, one after another.

Knows nothing of configs or training: a run is a command that ends with an exit code.
"""

import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from cxr.errors import ConfigError


@dataclass(frozen=True)
class QueuedRun:
    """One line of a queue.

    Attributes:
        line: Its line number in the file, from 1.
        overrides: Its words, for example ``("experiment=demo", "seed=1")``.
    """

    line: int
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class FinishedRun:
    """How a run ended.

    Attributes:
        run: The run.
        exit_code: 0 for success; minus the signal number if a signal ended it.
        seconds: How long it took.
    """

    run: QueuedRun
    exit_code: int
    seconds: float


def read_queue(path: Path) -> list[QueuedRun]:
    """Read a queue file: overrides quoted as in a shell, ``#`` starts a comment, blank lines are skipped.

    Raises:
        ConfigError: The file is absent, holds no run, or a line has an open quote.
    """
    if not path.is_file():
        raise ConfigError(
            f"a queue is a text file with one run per line, but {path} is no file; write one, or mend the path"
        )
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    runs = [QueuedRun(number, words) for number, text in lines if (words := _split(text, number, path))]
    if not runs:
        raise ConfigError(
            f"expected at least one run in {path}, but it has none; a run is a line like: experiment=demo seed=1"
        )
    return runs


def _split(text: str, number: int, path: Path) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text, comments=True))
    except ValueError as error:
        raise ConfigError(f"line {number} of {path} cannot be read ({error}): {text}; close the quote") from error


def run_queue(runs: Sequence[QueuedRun], command: Sequence[str]) -> Iterator[FinishedRun]:
    """Run each line as `command` and its overrides, yielding how it ended; a failing run does not stop the next.

    Args:
        runs: What to run.
        command: What comes before the overrides, for example ``[sys.executable, "train.py"]``.
    """
    for run in runs:
        start = time.monotonic()
        exit_code = subprocess.run([*command, *run.overrides], check=False).returncode
        yield FinishedRun(run, exit_code, time.monotonic() - start)


def queue_table(finished: Sequence[FinishedRun], runs: Sequence[QueuedRun]) -> Table:
    """A table for the terminal: one row per run of the queue; those not in `finished` were not started."""
    ends = {end.run.line: end for end in finished}
    table = Table("line", "run", "exit code", "seconds")
    for run in runs:
        end = ends.get(run.line)
        told = ("not started", "") if end is None else (str(end.exit_code), f"{end.seconds:.1f}")
        table.add_row(str(run.line), shlex.join(run.overrides), *told)
    return table
