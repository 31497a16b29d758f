"""The test set is opened knowingly: a file beside the dataset tells every evaluation of its test part.

Each choice made after a look at test scores makes them a little too good, so a reader should know how many looks there
were. One line of JSON for each, added and never changed; it holds no ids and no paths. What cannot be written is told
in a warning and in the result, and stops no run. Knows nothing of runs, datasets or metrics.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cxr.errors import DataError

log = logging.getLogger(__name__)

FILE = "test_openings.jsonl"
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Opening:
    """One evaluation of a test part.

    Attributes:
        when: UTC, ISO 8601.
        run: Name of the run, not its folder.
        config_hash: `hash_config` of its config.
        fingerprint: Of the data, as in the run's data report.
        metric: Name of the headline metric.
        score: Its value; None where it is not defined.
    """

    when: str
    run: str
    config_hash: str
    fingerprint: str
    metric: str
    score: float | None


@dataclass(frozen=True)
class Ledger:
    """What a ledger tells.

    Attributes:
        openings: In order.
        damaged: Numbers of the lines, from 1, that could not be read; they stay in the file.
        omitted: Why nothing could be read; empty where it could.
    """

    openings: list[Opening] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    omitted: str = ""


@dataclass(frozen=True)
class OpeningCount:
    """How often the test part of one dataset was evaluated.

    Attributes:
        openings: All times.
        repeats: Of these, those of a run and config that had been there before.
        runs: Different pairs of run and config, ``openings - repeats``.
        damaged: Lines of the ledger that could not be read, each maybe one more opening.
        omitted: Why the ledger could not be read; empty where it could.
    """

    openings: int
    repeats: int
    runs: int
    damaged: int
    omitted: str


def make_opening(run: str, config_hash: str, fingerprint: str, metric: str, score: float) -> Opening:
    """An opening at this moment.

    Raises:
        DataError: The name of the run is a path.
    """
    if "/" in run or "\\" in run:
        raise DataError(f"expected the name of a run in the ledger, got the path {run!r}; give its last part")
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return Opening(when, run, config_hash, fingerprint, metric, float(score) if math.isfinite(score) else None)


def record_opening(path: Path, opening: Opening) -> str:
    """Add a line to the ledger; several processes may do so at once.

    Args:
        path: The ledger, for example `FILE` in the folder of the dataset.
        opening: What to tell.

    Returns:
        Why it could not be written, which is also a warning in the log; empty where it was.
    """
    line = json.dumps(asdict(opening), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_PATIENCE_S):
            _append(path, line)
    except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
        return _warn(f"this opening of the test part is not in the ledger {path.name}: {_reason(error)}")
    return ""


def read_ledger(path: Path) -> Ledger:
    """Read a ledger; one that does not exist is empty. Lines that are damaged are told in a warning."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return Ledger()
    except OSError as error:
        return Ledger(omitted=_warn(f"the ledger {path.name} cannot be read: {_reason(error)}"))
    read = {number: _parse(line) for number, line in enumerate(lines, start=1) if line.strip()}
    damaged = [number for number, opening in read.items() if opening is None]
    if damaged:
        log.warning("the lines %s of the ledger %s are damaged and not counted; mend them there", damaged, path.name)
    return Ledger([opening for opening in read.values() if opening is not None], damaged)


def count_openings(path: Path, fingerprint: str) -> OpeningCount:
    """How often the test part of the dataset with this fingerprint was evaluated, as far as the ledger tells."""
    ledger = read_ledger(path)
    found = [(one.run, one.config_hash) for one in ledger.openings if one.fingerprint == fingerprint]
    runs = len(set(found))
    return OpeningCount(len(found), len(found) - runs, runs, len(ledger.damaged), ledger.omitted)


def hash_config(config: Mapping[str, Any]) -> str:
    """SHA-256 of a config of plain values, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _append(path: Path, line: bytes) -> None:
    """Add a line as a whole, after the end of one that a killed process left without."""
    with path.open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _parse(line: bytes) -> Opening | None:
    try:
        values = json.loads(line)
        opening = Opening(**values)
    except (ValueError, TypeError):
        return None
    texts = (opening.when, opening.run, opening.config_hash, opening.fingerprint, opening.metric)
    sound = all(isinstance(text, str) for text in texts) and isinstance(opening.score, (float, int, type(None)))
    return opening if sound else None


def _reason(error: Exception) -> str:
    """Why in words, without the path that the error's own text has."""
    if isinstance(error, Timeout):
        return "another process holds its lock"
    return str(error.strerror) if isinstance(error, OSError) else "the file system has no locks"


def _warn(text: str) -> str:
    log.warning(text)
    return text
