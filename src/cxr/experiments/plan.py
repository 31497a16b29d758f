"""What a plan is: a list of runs and one reducer, in one folder whose record says what it was started with.

Knows nothing of processes, of training, or of any particular plan.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from cxr.data.cohort import fingerprint
from cxr.data.splits import write_split
from cxr.errors import ConfigError, DataError
from cxr.experiments.spread import Summary
from cxr.experiments.sweep_records import replace_file
from cxr.training.config_rules import Rule, flatten, lies_in
from cxr.training.run_folder import RunFolder

PLAN_FILE = "plan.yaml"
MAY_CHANGE = (
    "plan.jobs", "plan.folder", "plan.budget_minutes", "plan.trials", "plan.max_cores", "paths", "logger",
    "callbacks.progress", "trainer.accelerator", "trainer.devices", "data.num_workers", "data.about",
)  # fmt: skip
"""Config keys or sections with no bearing on what a plan finds: they may differ between two calls on one folder."""
LOCK_SECONDS = 5.0
REMEDY = "repeat its first command with plan.folder, or start a new plan without it"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan.

    Attributes:
        name: Name of its folder in the plan's folder.
        samples: Its samples, each with its part in `split`; ids, labels and content hashes as in a cohort. None where
            the run divides its dataset itself.
        class_names: Names of the labels.
        overrides: Words for train.py beside those of the command, for example ``("seed=1",)``.
        after: Names of the runs that must be finished before it starts.
    """

    name: str
    samples: pd.DataFrame | None
    class_names: list[str]
    overrides: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


class Plan(Protocol):
    """A list of runs and one reducer."""

    def runs(self, config: DictConfig) -> list[PlannedRun]:
        """The runs on the dataset of a composed config, the same on every call.

        Raises:
            CxrError: The data cannot be used in this way.
        """

    def reduce(self, runs: Sequence[RunFolder], folder: Path) -> Summary:
        """What the finished runs show together.

        Args:
            runs: Their folders, in the order of `runs`.
            folder: The plan's folder, for tables of its own.
        """


class PlanFolder:
    """One plan on disk: plan.yaml, splits/, a run folder per run, and what the reducer leaves.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.record = self.root / PLAN_FILE

    def run(self, name: str) -> RunFolder:
        """The folder of a run, there or not."""
        return RunFolder(self.root / name)

    def split(self, name: str) -> Path:
        """The split of a run."""
        return self.root / "splits" / f"{name}.csv"

    def kind(self) -> str:
        """Which plan it is, as in ``plan=cv``.

        Raises:
            DataError: The record is damaged.
        """
        return str(self._read()["config"]["plan"]["name"])

    def run_names(self) -> list[str]:
        """The names of all runs, in their order.

        Raises:
            DataError: The record is damaged.
        """
        return list(self._read()["data"])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out.

        Raises:
            ConfigError: Another process is running this plan.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise ConfigError(
                f"another process is running the plan in {self.root}; wait for it, or start a new plan "
                "without plan.folder"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def check_same_settings(self, config: DictConfig) -> None:
        """Raise ConfigError when the plan was started with settings that would have given other runs.

        Args:
            config: The composed config, with its section `plan`.
        """
        if not self.record.exists():
            return
        before, now = flatten(self._read()["config"]), flatten(as_written(config))
        pairs = {key: (before.get(key), now.get(key)) for key in sorted(before | now) if not lies_in(key, MAY_CHANGE)}
        changes = [f"{key} was {old} and is {new}" for key, (old, new) in pairs.items() if old != new]
        if changes:
            raise ConfigError(f"the plan in {self.root} was started with others: {'; '.join(changes[:5])}; {REMEDY}")

    def begin(self, config: DictConfig, runs: Sequence[PlannedRun], salt: str | None) -> None:
        """Write record and splits, or find that those of an earlier call belong to the same data.

        Args:
            config: The composed config, with its section `plan`.
            runs: All runs.
            salt: With which ids in the splits are hashed; None writes them as they are.

        Raises:
            DataError: The plan was started on other images or labels.
        """
        data = {run.name: None if run.samples is None else _fingerprint(run.samples) for run in runs}
        if self.record.exists():
            if self._read()["data"] != data:
                raise DataError(
                    f"the images or labels are not those that the plan in {self.root} was started with; restore them, "
                    "or start a new plan without plan.folder"
                )
            return
        self.split("").parent.mkdir(exist_ok=True)
        for run in runs:
            if run.samples is not None:
                write_split(run.samples, self.split(run.name), class_names=run.class_names, salt=salt)
        record = {"config": as_written(config), "data": data}
        replace_file(self.record, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))

    def _read(self) -> dict[str, Any]:
        try:
            return dict(yaml.safe_load(self.record.read_text(encoding="utf-8")))
        except (yaml.YAMLError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{self.record} is damaged ({reason}); start a new plan without plan.folder") from error


def take_turns(runs: Sequence[PlannedRun]) -> Iterator[list[PlannedRun]]:
    """The runs in groups, in which none waits for another of its own group or of a later one."""
    waiting = list(runs)
    while waiting:
        names = {run.name for run in waiting}
        ready = [run for run in waiting if names.isdisjoint(run.after)]
        yield ready
        waiting = [run for run in waiting if not names.isdisjoint(run.after)]


def as_written(config: DictConfig) -> dict[str, Any]:
    """The config with its references as they are written, so that a folder that moves changes nothing."""
    values = OmegaConf.to_container(config, resolve=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _fingerprint(samples: pd.DataFrame) -> str:
    """SHA-256 over id, bytes, label and part of every sample."""
    parts = "\n".join(samples["sample_id"] + "\n" + samples["split"])
    return hashlib.sha256(f"{fingerprint(samples)}\n{parts}".encode()).hexdigest()


def word(key: str, text: object) -> str:
    """One override of train.py, quoted so that the text arrives as it is."""
    quoted = str(text).replace("'", "\\'")
    return f"{key}='{quoted}'"


def recipe_words(words: Sequence[str]) -> list[str]:
    """The overrides of a command that say nothing of its plan."""
    return [one for one in words if re.match(r"\+{0,2}plan[.=]", one) is None]


def plan_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one plan, without what all plans have."""
    return {key: value for key, value in settings.items() if key not in ("name", "jobs", "folder")}


def check_setting(key: str, value: object, rule: Rule) -> None:
    """Raise ConfigError when the value of a setting breaks its rule."""
    if not rule.holds(value):
        raise ConfigError(f"{key} must be {rule.words}, but got {value!r}")
