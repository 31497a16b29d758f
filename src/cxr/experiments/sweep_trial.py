"""One trial carried out: as a job of Hydra's launcher, or as a process of its own where it uses several devices.

Lightning starts the processes of the other devices by repeating the command. In the environment of a trial that has a
process of its own, `TRIAL` holds its number and words, and a command that finds it there carries out this trial alone
instead of taking part in the study. Knows nothing of studies.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from cxr.errors import TrainingError
from cxr.experiments.goals import TrialResult
from cxr.experiments.processes import Job, run_jobs
from cxr.experiments.study import StorageError
from cxr.training.judging import StoppedByJudgeError

TRIAL = "CXR_TRIAL"
ONE_DEVICE = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
OUTCOME_FILE, LOG_FILE = "outcome.json", "output.log"


class LaunchedJob(Protocol):
    """What Hydra's launcher gives back."""

    hydra_cfg: Any
    return_value: Any


Launch = Callable[[Sequence[str], int], LaunchedJob]
"""(override lines, number of the trial) -> the job, which has ended."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        run_dir: Its run folder.
        best_score: Best monitored value.
        best_checkpoint: Checkpoint of that value.
        metrics: ``val/...`` of that checkpoint.
    """

    run_dir: Path
    best_score: float
    best_checkpoint: Path
    metrics: Mapping[str, float]


def needs_own_process(trainer: Mapping[str, Any]) -> bool:
    """Whether Lightning may start more processes with these settings; several GPUs do it without a strategy's name."""
    return any(trainer.get(name, value) != value for name, value in ONE_DEVICE.items())


def run_here(launch: Launch, overrides: Sequence[str], number: int) -> Outcome:
    """Carry out a trial by Hydra's launcher; the traceback of one that fails goes to ``error.txt`` in its folder.

    Raises:
        StoppedByJudgeError: It was stopped before its end.
        StorageError: The database of its study was away for too long.
        TrainingError: It ended the process.
        Exception: Whatever the trial raised.
    """
    job = _launch(launch, overrides, number)
    run_dir = Path(job.hydra_cfg.hydra.runtime.output_dir)
    try:
        result: TrialResult = job.return_value
    except (StoppedByJudgeError, StorageError):
        raise
    except Exception:
        (run_dir / "error.txt").write_text(traceback.format_exc())
        raise
    return Outcome(run_dir, result.best_score, result.best_checkpoint, result.metrics)


def _launch(launch: Launch, overrides: Sequence[str], number: int) -> LaunchedJob:
    try:
        return launch(overrides, number)
    except SystemExit as error:  # the trainer turns Ctrl-C into an exit
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise TrainingError(
            f"the trial ended the process with exit code {error.code}; it must return or raise"
        ) from error


def repeated_command(*more: str) -> tuple[str, ...]:
    """The words that started this process, as a process that ends with it."""
    script = str(Path(sys.argv[0]).absolute())
    return (sys.executable, "-m", "cxr.experiments.child", script, *sys.argv[1:], *more)


def run_apart(overrides: Sequence[str], number: int, run_dir: Path) -> Outcome:
    """Carry out a trial in a process of its own.

    Args:
        overrides: Its override lines.
        number: Its number.
        run_dir: Its run folder.

    Raises:
        StoppedByJudgeError: It was stopped before its end.
        StorageError: The database of its study was away for too long.
        TrainingError: It failed, or its process did.
    """
    handed = {TRIAL: json.dumps({"number": number, "overrides": list(overrides)})}
    job = Job(f"trial {number}", repeated_command(), run_dir / LOG_FILE)
    (ended,) = run_jobs([job], [handed], lambda job: None)
    path = run_dir / OUTCOME_FILE
    if ended.exit_code != 0 or not path.exists():
        raise TrainingError(f"the process of the trial ended with exit code {ended.exit_code}; its log: {job.log}")
    told = json.loads(path.read_text(encoding="utf-8"))
    if "stopped" in told:
        raise StoppedByJudgeError(told["stopped"])
    if "lost" in told:
        raise StorageError(told["lost"])
    if "error" in told:
        raise TrainingError(told["error"])
    return Outcome(run_dir, told["best_score"], Path(told["best_checkpoint"]), told["metrics"])


def handed_trial() -> tuple[int, list[str]] | None:
    """Number and override lines of the trial that this process was started for; None if it was not."""
    text = os.environ.get(TRIAL)
    if text is None:
        return None
    handed = json.loads(text)
    return handed["number"], handed["overrides"]


def run_handed(launch: Launch, number: int, overrides: Sequence[str], run_dir: Path) -> None:
    """Carry out the trial that this process was started for; of several devices, the first one writes how it ended."""
    told = _tell(launch, overrides, number)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        (run_dir / OUTCOME_FILE).write_text(json.dumps(told), encoding="utf-8")


def _tell(launch: Launch, overrides: Sequence[str], number: int) -> dict[str, Any]:
    try:
        outcome = run_here(launch, overrides, number)
    except StoppedByJudgeError as stopped:
        return {"stopped": str(stopped)}
    except StorageError as error:
        return {"lost": str(error)}
    except Exception as error:
        return {"error": str(error) or type(error).__name__}
    return asdict(outcome) | {"run_dir": str(outcome.run_dir), "best_checkpoint": str(outcome.best_checkpoint)}
