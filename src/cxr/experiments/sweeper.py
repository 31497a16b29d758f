"""The sweeper behind ``run.py -m hparams_search=...``: typing the same command again continues the same study.

The search-space syntax and its parser are those of hydra-optuna-sweeper. The loop is this project's: that plugin's
counts the trials of one call, restarts the job folders at 0 and ends at the first failing trial.
Knows nothing of training: a trial is a Hydra job whose result has a `best_score` and a `best_checkpoint`.
Does not guarantee anything to two processes on one study: the second is refused.
"""

import copy
import importlib
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import InstantiationException, OverrideParseException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from rich.console import Console

from cxr.errors import ConfigError, CxrError, TrainingError, require_extra
from cxr.experiments.sweep_page import write_page
from cxr.experiments.sweep_records import summarize, write_records

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

LOCK_SECONDS = 10.0  # data loader workers of a killed sweep hold its lock until they notice, about 5 s later


class TrialResult(Protocol):
    """What the task of a trial returns."""

    best_score: float
    best_checkpoint: Path


@dataclass(frozen=True)
class Search:
    """What a sweep varies and what it holds fixed.

    Attributes:
        space: Config key to Optuna distribution.
        fixed: Override lines that every trial gets.
    """

    space: Mapping[str, Any]
    fixed: tuple[str, ...]

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The command line of one trial; trials never touch the test part."""
        return [*self.fixed, *(f"{key}={value}" for key, value in params.items()), "test=false", "report=false"]


def parse_search(params: Mapping[str, Any], arguments: Sequence[str]) -> Search:
    """Read a search space; a fixed value on the command line takes its key out of it.

    Args:
        params: Config keys to sweep expressions, or to fixed values.
        arguments: The override lines of the command, which may hold sweep expressions too.

    Raises:
        ConfigError: An expression has no meaning, or nothing is left to search.
    """
    parser = importlib.import_module("hydra_plugins.hydra_optuna_sweeper._impl")
    lines = [f"{key}={value}" for key, value in params.items()]
    try:
        space, fixed, deletions = parser.create_params_from_overrides([*lines, *arguments])
    except (ValueError, OverrideParseException) as error:
        raise ConfigError(f"the search space cannot be read: {error}; mend hydra.sweeper.params") from error
    space = {key: distribution for key, distribution in space.items() if key not in fixed}
    if not space:
        raise ConfigError(
            "nothing to search: every key has a fixed value; give one a range, for example "
            "'optimizer.lr=tag(log,interval(1e-4,1e-2))'"
        )
    return Search(space, (*(f"{key}={value}" for key, value in fixed.items()), *deletions))


def make_sampler(config: DictConfig, existing: int) -> "BaseSampler":
    """A sampler of Optuna whose seed, unless null, is moved on by the number of trials that exist.

    Raises:
        ConfigError: The config names no sampler, or gives it arguments that it does not have.
    """
    seed = config.get("seed")
    seed = None if seed is None else seed + existing
    try:
        return instantiate(config, seed=seed, _execution_whitelist_=("optuna.samplers.*",))
    except (InstantiationException, TypeError, ValueError) as error:
        raise ConfigError(
            f"hydra.sweeper.sampler must be a class of optuna.samplers and its arguments, but got {config}: {error}"
        ) from error


def register_sweeper() -> None:
    """Make StudySweeper known to Hydra; call it before the ``hydra.main`` function."""
    Plugins.instance().register(StudySweeper)


def is_trial() -> bool:
    """Whether the running Hydra job is a trial of a search.

    Raises:
        ConfigError: A search was chosen without ``-m``.
    """
    hydra = HydraConfig.get()
    search = hydra.runtime.choices["hparams_search"]
    if search is not None and hydra.mode != RunMode.MULTIRUN:
        raise ConfigError(f"hparams_search={search} needs many runs; add -m: python run.py -m hparams_search={search}")
    return search is not None


class StudySweeper(Sweeper):
    """Runs the trials of one Optuna study until it holds `n_trials`, then tests the best one.

    Args:
        n_trials: Total of the study over all calls; trials that were killed or stopped do not count.
        study_name: Name of the study in the storage.
        storage: Database URL.
        metric: What the objective is, for the records.
        mode: ``"max"`` or ``"min"``.
        sampler: Config of a sampler from ``optuna.samplers``; its seed, unless null, moves on with each existing trial.
        params: Search space: config keys to ``interval``, ``choice``, ``range`` or ``tag(log, interval)`` expressions.
        may_change: Config keys or sections that may differ between two calls on one study.
    """

    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def __init__(
        self,
        n_trials: int,
        study_name: str,
        storage: str,
        metric: str,
        mode: str,
        sampler: DictConfig,
        params: DictConfig,
        may_change: Sequence[str],
    ) -> None:
        self.n_trials = n_trials
        self.study_name = study_name
        self.storage = storage
        self.metric = metric
        self.mode = mode
        self.sampler = sampler
        self.params = params
        self.may_change = tuple(may_change)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take over the composed config and make the launcher, as Hydra asks of a sweeper."""
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.folder = Path(config.hydra.sweep.dir).absolute()
        self.console = Console(soft_wrap=True, highlight=False, markup=False)

    def sweep(self, arguments: list[str]) -> None:
        """Continue the study; an error ends the process with its sentence and code 1, Ctrl-C with code 130."""
        try:
            self._check_environment()
            search = parse_search(self.params, arguments)
            settings = self._preflight(search)
            with self._locked():
                self._continue(search, settings)
        except CxrError as error:
            raise SystemExit(f"error: {error}") from error
        except KeyboardInterrupt:
            self.console.print("stopped; the same command continues the study")
            raise SystemExit(130) from None

    def _check_environment(self) -> None:
        for module in ("hydra_plugins", "hydra_plugins.hydra_optuna_sweeper", "optuna", "plotly"):
            require_extra(module, "sweep")
        if isinstance(self.n_trials, bool) or not isinstance(self.n_trials, int) or self.n_trials < 1:
            raise ConfigError(f"hydra.sweeper.n_trials must be a whole number of at least 1, but got {self.n_trials!r}")

    def _preflight(self, search: Search) -> dict[str, Any]:
        """Check data, extras and metric on a first trial's config; returns the settings that all trials share."""
        from cxr.experiments.study import first_point
        from cxr.training import fit

        with self._as_job(search.overrides(first_point(search.space))) as config:
            fit.preflight(config)
            return cast(dict[str, Any], OmegaConf.to_container(config))

    @contextmanager
    def _as_job(self, overrides: list[str]) -> Iterator[DictConfig]:
        """The config of a job that is not started, with the ``hydra:`` values it would see."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config), read_write(config):
            config.hydra.job.num = 0
            config.hydra.job.id = "0"
            config.hydra.runtime.output_dir = str(self.folder)
        state = HydraConfig.instance()
        before = state.cfg
        state.set_config(config)
        try:
            job_config = copy.deepcopy(config)
            with open_dict(job_config), read_write(job_config):
                del job_config["hydra"]
            yield job_config
        finally:
            state.cfg = before

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise ConfigError(
                f"another process is running the sweep in {self.folder}; "
                "wait for it, or start another with study_name=NAME"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _continue(self, search: Search, settings: Mapping[str, Any]) -> None:
        from cxr.experiments import study as studies

        with studies.storage_errors(self.storage):
            study = studies.open_study(self.storage, self.study_name, self.mode)
            self._check_folder(study)
            studies.check_same_search(study, search.space, settings, self.may_change)
            stale = studies.fail_stale_trials(study)
            for number in stale:
                self.console.print(f"trial {number} was interrupted; it is recorded as failed")
            study.sampler = make_sampler(self.sampler, len(study.trials))
            missing = max(0, self.n_trials - studies.count_ended(study))
            self.console.print(
                f"study {study.study_name}: {missing} of {self.n_trials} trials to run, in {self.folder}"
            )
            try:
                studies.run_trials(study, missing, lambda trial: self._run(trial, search), self._after_trial)
                self._test_best(study)
            finally:
                self._write(study)
                self.console.print(summarize(study, self.folder, self.metric))

    def _check_folder(self, study: "Study") -> None:
        if not study.trials and any(self.folder.glob("trial_*")):
            raise ConfigError(
                f"{self.folder} holds trials but study {study.study_name} at {self.storage} holds none; "
                "restore the database, or move the folder away to start anew"
            )

    def _run(self, trial: "Trial", search: Search) -> float:
        from cxr.experiments.study import suggest

        overrides = search.overrides(suggest(trial, search.space))
        job = self._launch(overrides, trial.number)
        run_dir = Path(cast(DictConfig, job.hydra_cfg).hydra.runtime.output_dir)
        trial.set_user_attr("run_dir", os.path.relpath(run_dir, self.folder))
        try:
            result = cast(TrialResult, job.return_value)
        except Exception:
            (run_dir / "error.txt").write_text(traceback.format_exc())
            raise
        trial.set_user_attr("checkpoint", os.path.relpath(result.best_checkpoint, self.folder))
        return result.best_score

    def _launch(self, overrides: list[str], number: int) -> JobReturn:
        try:
            return self.launcher.launch([overrides], initial_job_idx=number)[0]
        except SystemExit as error:  # the trainer turns Ctrl-C into an exit
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise TrainingError(
                f"the trial ended the process with exit code {error.code}; it must return or raise"
            ) from error

    def _after_trial(self, study: "Study", trial: "FrozenTrial") -> None:
        if trial.value is None:
            told = f"failed: {trial.user_attrs['error']}"
        else:
            told = f"{self.metric} {trial.value:.4f}, best {study.best_value:.4f} (trial {study.best_trial.number})"
        self.console.print(f"trial {trial.number}: {told}")
        self._write(study)

    def _write(self, study: "Study") -> None:
        write_records(study, self.folder, self.metric)
        write_page(study, self.folder, self.metric, self.n_trials)

    def _test_best(self, study: "Study") -> None:
        """Test the best trial, unless it is the one tested before."""
        from cxr.experiments.study import best_trial
        from cxr.training import fit

        best = best_trial(study)
        if study.user_attrs.get("test", {}).get("trial") != best.number:
            metrics = fit.test_run(self.folder / best.user_attrs["run_dir"])
            study.set_user_attr("test", {"trial": best.number, "metrics": metrics})
