"""A plan carried out: its missing runs trained, each by a process of its own, and all of them reduced.

Knows nothing of what a plan's runs are for; what trains is a command that takes the words of train.py.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from cxr.errors import ConfigError, CxrError, DataError, TrainingError
from cxr.experiments.automl.settings import AutoML
from cxr.experiments.cv import CrossValidation
from cxr.experiments.ovr import OneVsRest
from cxr.experiments.plan import (
    Plan,
    PlanFolder,
    PlannedRun,
    check_setting,
    plan_arguments,
    recipe_words,
    take_turns,
    word,
)
from cxr.experiments.processes import EndedJob, Job, available_cores, run_jobs, share_machine
from cxr.experiments.seeds import Seeds
from cxr.experiments.sizes import Sizes
from cxr.experiments.spread import Summary
from cxr.experiments.staged import Staged
from cxr.training.building import plain
from cxr.training.config_rules import TEXT, check_config, optional, whole
from cxr.training.devices import visible_gpus
from cxr.training.fit import preflight
from cxr.training.run_folder import RunFolder, start_logging
from cxr.training.sources import id_salt

PLANS: dict[str, Callable[..., Plan | AutoML]] = {
    "cv": CrossValidation,
    "seeds": Seeds,
    "staged": Staged,
    "sizes": Sizes,
    "ovr": OneVsRest,
    "automl": AutoML,
}
LOG, COMPOSED = "output.log", ".composed.log"
ONLY_COMPOSE = ("--cfg", "job")
"""What makes train.py compose its config and stop."""
HYDRA_RECORD = ".hydra"


def run_plan(config: DictConfig, words: Sequence[str], command: Sequence[str]) -> Summary | None:
    """Carry out the plan of a config, or what is missing of it, and write ``summary.csv`` and the like.

    AutoML is a search instead of a list of runs: it has the record, the folds and the folder of a plan, and carries
    itself out.

    Args:
        config: The composed config (configs/run.yaml) with a section `plan`.
        words: The overrides that it was composed with.
        command: What trains when overrides are added and stops when its standard input closes, for example
            ``[sys.executable, "-m", "cxr.experiments.child", "train.py"]``.

    Raises:
        CxrError: Plan, config or data cannot be used, or a run failed; those that finished are kept.
        SystemExit: Code 130 after Ctrl-C, once every run has stopped.
    """
    try:
        plan = make_plan(plain(config.plan))
        check_recipe(config)
        folder = open_folder(config)
    except CxrError:
        remove_unused(Path(config.paths.output_dir))
        raise
    console = Console(soft_wrap=True, highlight=False, markup=False)
    with folder.locked():
        try:
            if isinstance(plan, AutoML):
                _search(plan, config, folder, recipe_words(words), command, console)
                return None
            return _carry_out(plan, config, folder, _Trainer(config, recipe_words(words), command, folder, console))
        except KeyboardInterrupt:
            console.print(f"stopped; {how_to_continue(folder)}")
            raise SystemExit(130) from None


def make_plan(settings: dict[str, Any]) -> Plan | AutoML:
    """The plan that the section `plan` of a config describes.

    Raises:
        ConfigError: No plan has this name, or its settings cannot be used.
    """
    name = settings["name"]
    if name not in PLANS:
        raise ConfigError(f"plan.name must be one of {', '.join(PLANS)}, but got {name!r}")
    check_setting("plan.jobs", settings.get("jobs", 1), whole(1))
    check_setting("plan.folder", settings["folder"], optional(TEXT))
    arguments = plan_arguments(settings)
    try:
        return PLANS[name](**arguments)
    except TypeError as error:
        raise ConfigError(f"plan={name} cannot be made of {', '.join(arguments)}: {error}") from error


def check_recipe(config: DictConfig) -> None:
    """Raise ConfigError unless the config describes runs that a plan can start and test."""
    check_config(config)
    if config.ckpt_path is not None:
        raise ConfigError(
            "a plan goes on with plan.folder=<its folder>, which continues every run; leave out ckpt_path"
        )
    if not config.test:
        raise ConfigError("a plan is made of test results, but test=false; leave it out")


def open_folder(config: DictConfig) -> PlanFolder:
    """The folder of the plan.

    Raises:
        DataError: ``plan.folder`` holds no plan.
    """
    folder = PlanFolder(Path(config.paths.output_dir))
    if config.plan.folder is not None and not folder.record.exists():
        raise DataError(
            f"plan.folder must be the folder of a plan that was started, but {config.plan.folder} has no "
            f"{folder.record.name}; mend the path, or leave it out to start a new plan"
        )
    return folder


def remove_unused(folder: Path) -> None:
    """Remove the folder that was made for a plan, if it holds Hydra's record alone, and an empty one above it."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {HYDRA_RECORD}:
        shutil.rmtree(folder)
        with suppress(OSError):
            folder.parent.rmdir()


def how_to_continue(folder: PlanFolder) -> str:
    """What to type to train the runs that are missing."""
    if not folder.record.exists():
        return "nothing was trained"
    return f"continue with the same command and {word('plan.folder', folder.root)}"


def is_finished(run: RunFolder) -> bool:
    """Whether the run was tested and has left its bundle, the last of what it writes."""
    if not run.metrics.exists() or not (run.root / "bundle" / "bundle.json").exists():
        return False
    return any(name.startswith("test") for name in json.loads(run.metrics.read_text()).get("metrics", {}))


def _search(
    plan: AutoML, config: DictConfig, folder: PlanFolder, words: Sequence[str], command: Sequence[str], console: Console
) -> None:
    from cxr.experiments.automl.run import run_automl

    run_automl(plan, config, folder, words, command, console)


def _carry_out(plan: Plan, config: DictConfig, folder: PlanFolder, trainer: "_Trainer") -> Summary:
    folder.check_same_settings(config)
    start_logging(folder.root)
    runs = plan.runs(config)
    folder.begin(config, runs, id_salt(config))
    trainer.train(runs)
    summary = plan.reduce([folder.run(run.name) for run in runs], folder.root)
    summary.write(folder.root)
    trainer.console.print(summary.to_table())
    for line in (*summary.notes, f"plan folder: {folder.root}"):
        trainer.console.print(line)
    return summary


class _Trainer:
    """Trains the runs of a plan that are not finished, and says how each went."""

    def __init__(
        self, config: DictConfig, words: Sequence[str], command: Sequence[str], folder: PlanFolder, console: Console
    ) -> None:
        self.config = config
        self.words = words
        self.command = command
        self.folder = folder
        self.console = console

    def train(self, runs: Sequence[PlannedRun]) -> None:
        """Train what is missing.

        Raises:
            CxrError: A run could not be started, or failed.
        """
        missing = [run for run in runs if not is_finished(self.folder.run(run.name))]
        self.console.print(f"{len(missing)} of {len(runs)} runs to train, in {self.folder.root}")
        if not missing:
            return
        jobs = self.config.plan.jobs
        places = share_machine(jobs, visible_gpus(), available_cores(), os.environ)
        self._check(missing, places)
        for ready in take_turns(missing):
            with closing(run_jobs([self._job(run) for run in ready], places, self._tell_start)) as ended:
                failed = [one.job.name for one in ended if not self._tell_end(one)]
            if failed:
                raise TrainingError(
                    f"{len(failed)} of {len(runs)} runs failed ({', '.join(failed)}), so there is no summary; mend the "
                    f"cause, then {how_to_continue(self.folder)}"
                )

    def _check(self, runs: Sequence[PlannedRun], places: Sequence[Mapping[str, str]]) -> None:
        """Raise now what would stop a run; where each has a dataset of its own, only words that make no sense."""
        if runs[0].samples is None:
            self._check_words(runs, places)
        else:
            self._preflight(runs[0])

    def _check_words(self, runs: Sequence[PlannedRun], places: Sequence[Mapping[str, str]]) -> None:
        log = self.folder.root / COMPOSED
        jobs = [Job(run.name, (*self.command, *self._words(run), *ONLY_COMPOSE), log) for run in runs]
        with closing(run_jobs(jobs, places[:1], lambda job: None)) as ended:
            for one in ended:
                if one.exit_code != 0:
                    told = " ".join(log.read_text(encoding="utf-8", errors="replace").split("\n")[:3])
                    raise ConfigError(f"the words of {one.job.name} cannot be used: {told.strip()}")
        log.unlink()

    def _preflight(self, run: PlannedRun) -> None:
        split = {"data": {"split_file": str(self.folder.split(run.name))}, "logger": {}}
        config = OmegaConf.merge(self.config, split)
        assert isinstance(config, DictConfig)
        preflight(config)

    def _words(self, run: PlannedRun) -> list[str]:
        study = f"{self.config.run_name}-{self.config.plan.name}"
        words = [
            *self.words, word("run_name", f"{study}-{run.name}"), word("study_name", study), *run.overrides,
        ]  # fmt: skip
        return words if run.samples is None else [*words, word("data.split_file", self.folder.split(run.name))]

    def _job(self, run: PlannedRun) -> Job:
        folder = self.folder.run(run.name).root
        words = [*self._words(run), word("hydra.run.dir", folder)]
        last = folder / "checkpoints" / "last.ckpt"
        if last.exists():
            words.append(word("ckpt_path", last))
        return Job(run.name, (*self.command, *words), folder / LOG)

    def _tell_start(self, job: Job) -> None:
        self.console.print(f"{job.name} starts; its log: {job.log}")

    def _tell_end(self, ended: EndedJob) -> bool:
        """Say how a run ended; returns whether it is finished."""
        name = ended.job.name
        if not is_finished(self.folder.run(name)):
            self.console.print(
                f"{name} failed after {ended.seconds:.0f} s: {reason_of(ended)}; its log: {ended.job.log}"
            )
            return False
        auroc = self.folder.run(name).read_metrics().get("test/auroc")
        told = "" if auroc is None else f", test AUROC {auroc:.3f}"
        self.console.print(f"{name} is finished ({ended.seconds:.0f} s){told}")
        return True


def reason_of(ended: EndedJob) -> str:
    """Why a run did not finish: the error it told, else how its process ended."""
    lines = ended.job.log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if told:
        return told[-1]
    if ended.exit_code < 0:
        return f"signal {-ended.exit_code} ended it"
    return f"it ended with exit code {ended.exit_code} and no test result"
