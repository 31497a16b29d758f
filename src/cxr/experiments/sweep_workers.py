"""Several workers of one sweep on this machine, each the same command once more. Knows nothing of studies."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from cxr.errors import TrainingError
from cxr.experiments.processes import Job, available_cores, run_jobs, share_machine
from cxr.experiments.sweep_trial import repeated_command
from cxr.training.devices import visible_gpus

ALONE = "hydra.sweeper.workers=1"
LAUNCHERS_HERE = ("basic", "joblib", "submitit_local")
"""Hydra's launchers whose jobs run on the machine of the worker; others have cores and GPUs of their own."""


def run_workers(count: int, launcher: str, folder: Path, say: Callable[[str], None]) -> None:
    """Start `count` workers, which share GPUs and cores where their trials run here, and wait until all have ended.

    Args:
        count: How many.
        launcher: Name of Hydra's launcher, which carries out their trials.
        folder: Folder of the sweep, which gets a log of each.
        say: Tells the user a line.

    Raises:
        TrainingError: None came to the end of the study.
    """
    here = launcher in LAUNCHERS_HERE
    places = share_machine(count, visible_gpus(), available_cores(), os.environ) if here else [{}] * count
    command = repeated_command(ALONE)
    jobs = [Job(f"worker {number}", command, folder / f"worker_{number}.log") for number in range(count)]
    failed = []
    with closing(run_jobs(jobs, places, lambda job: say(f"{job.name} starts; its log: {job.log}"))) as ended:
        for one in ended:
            if one.exit_code != 0:
                failed.append(one)
                say(f"{one.job.name} ended with exit code {one.exit_code}; its log: {one.job.log}")
    if len(failed) == count:
        raise TrainingError(
            f"no worker came to the end of the sweep; {failed[-1].job.log} says why; mend that, then repeat the command"
        )
