"""The sweeper behind ``run.py -m hparams_search=...``: typing the same command again continues the same study.

Typed while it runs, here or on another machine, it joins in as one more worker. The search-space syntax is that of
hydra-optuna-sweeper. The loop is this project's: that plugin's counts the trials of one call, restarts the job folders
at 0, ends at the first failing trial and cannot stop a trial early.
Knows nothing of training: a trial is a Hydra job whose result has a `best_score`, a `best_checkpoint` and `metrics`.
"""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from rich.console import Console

from cxr.errors import ConfigError, CxrError, require_extra
from cxr.experiments.sweep_config import make_pruner, make_sampler, parse_search
from cxr.experiments.sweep_page import write_page
from cxr.experiments.sweep_records import summarize, write_records
from cxr.experiments.sweep_search import Search

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

    from cxr.experiments.sweep_storage import Lock, PatientStorage


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


def judged_trial() -> AbstractContextManager[None]:
    """What lets the study judge the running trial while it trains; of several values of a trial there is no judge."""
    from cxr.experiments.sweep_judge import StudyJudge
    from cxr.training.judging import judged_by

    hydra = HydraConfig.get()
    sweeper = hydra.sweeper
    if len(sweeper.metrics) > 1:
        return nullcontext()
    judge = StudyJudge(
        sweeper.storage, sweeper.study_name, hydra.job.num, sweeper.metrics[0], make_pruner(sweeper.pruner),
        sweeper.patience, sweeper.heartbeat,
    )  # fmt: skip
    return judged_by(judge)


class StudySweeper(Sweeper):
    """Runs trials of one Optuna study until it holds `n_trials`, then tests the best one.

    Args:
        n_trials: Total of the study over all calls and workers; trials that were killed or stopped do not count.
        workers: How many processes this command starts; 1: it is the worker itself.
        study_name: Name of the study in the storage.
        storage: Database URL.
        heartbeat: Seconds between two signs of life of a running trial.
        patience: Seconds that the database may be away.
        metrics: What a trial is judged by, the main one first.
        modes: ``"max"`` or ``"min"`` for each of them.
        limits: Worst values that the best trial may have, where there are several metrics.
        sampler: Config of a sampler from ``optuna.samplers``; its seed, unless null, moves on with each existing trial.
        pruner: Config of a pruner from ``optuna.pruners``.
        warm_start: Folder of an earlier sweep, or name of a study in the same storage, whose best points are tried
            first; None: no such thing.
        params: Search space: config keys to ``interval``, ``choice``, ``range`` or ``tag(log, interval)`` expressions.
        when: Conditions such as ``net=custom_cnn`` to what is searched as well where they hold.
        may_change: Config keys or sections that may differ between two calls on one study.
    """

    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def __init__(
        self,
        n_trials: int,
        workers: int,
        study_name: str,
        storage: str,
        heartbeat: int,
        patience: float,
        metrics: Sequence[str],
        modes: Sequence[str],
        limits: DictConfig,
        sampler: DictConfig,
        pruner: DictConfig,
        warm_start: str | None,
        params: DictConfig,
        when: DictConfig,
        may_change: Sequence[str],
    ) -> None:
        self.n_trials = n_trials
        self.workers = workers
        self.study_name = study_name
        self.storage = storage
        self.heartbeat = heartbeat
        self.patience = patience
        self.metrics = list(metrics)
        self.modes = list(modes)
        self.limits = limits
        self.sampler = sampler
        self.pruner = pruner
        self.warm_start = warm_start
        self.params = params
        self.when = when
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
        """Take part in the study; an error ends the process with its sentence and code 1, Ctrl-C with code 130."""
        try:
            self._check_environment()
            self._take_part(arguments)
        except CxrError as error:
            raise SystemExit(f"error: {error}") from error
        except KeyboardInterrupt:
            self.console.print("stopped; the same command continues the study")
            raise SystemExit(130) from None

    def _check_environment(self) -> None:
        for module in ("hydra_plugins", "hydra_plugins.hydra_optuna_sweeper", "optuna", "plotly"):
            require_extra(module, "sweep")
        for name in ("n_trials", "workers", "heartbeat"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"hydra.sweeper.{name} must be a whole number of at least 1, but got {value!r}")
        if isinstance(self.patience, bool) or not isinstance(self.patience, int | float) or self.patience < 0:
            raise ConfigError(f"hydra.sweeper.patience must be a number of seconds >= 0, but got {self.patience!r}")

    def _take_part(self, arguments: list[str]) -> None:
        from cxr.experiments.sweep_trial import handed_trial, needs_own_process, run_handed

        handed = handed_trial()
        if handed is not None:
            run_handed(self._launch, *handed, self._run_dir(handed[0]))
            return
        search = parse_search(self.params, arguments, self.when)
        make_pruner(self.pruner)
        settings = self._preflight(search)
        self.apart = needs_own_process(settings.get("trainer", {}))
        self._work(search, settings)

    def _preflight(self, search: Search) -> dict[str, Any]:
        """Check data, extras and metric on a first trial's config; returns the settings that all trials share."""
        from cxr.training import fit

        first, *others = search.first_points()
        for point in others:
            with self._as_job(search.overrides(point)):
                pass
        with self._as_job(search.overrides(first)) as config:
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

    def _work(self, search: Search, settings: Mapping[str, Any]) -> None:
        from cxr.experiments.goals import make_goals
        from cxr.experiments.study import DATABASE_ERRORS, storage_errors
        from cxr.experiments.sweep_storage import tell_url

        self.goals = make_goals(self.metrics, self.modes, self.limits, settings["monitor"]["metric"])
        with storage_errors(tell_url(self.storage)):
            study, storage = self._open(search, settings)
            if self.workers > 1:
                self._start_workers(study)
                return
            try:
                self._run_trials(study, storage, search)
                self._test_best(study)
            except DATABASE_ERRORS:
                raise  # the records are made from the database
            except BaseException:
                self._conclude(study)
                raise
            self._conclude(study)

    def _open(self, search: Search, settings: Mapping[str, Any]) -> tuple["Study", "PatientStorage"]:
        """Open the study, or make it; one process at a time, so that it is made once."""
        from cxr.experiments import study as studies
        from cxr.experiments.sweep_storage import PatientStorage, holding, try_connecting
        from cxr.experiments.warm_start import queue_best_points

        self.folder.mkdir(parents=True, exist_ok=True)
        try_connecting(self.storage)
        with holding(self._lock("claim")):
            storage = PatientStorage(self.storage, self.patience, self.heartbeat)
            study = studies.open_study(storage, self.study_name, *self.modes)
            study.pruner = make_pruner(self.pruner)
            self._check_folder(study)
            if studies.is_new(study) and self.warm_start is not None:
                queued = queue_best_points(study, storage, self.warm_start, search.whole_space(), self.n_trials)
                self.console.print(f"{queued} points of {self.warm_start} are tried first")
            studies.check_same_search(study, search.whole_space(), settings, self.may_change)
        missing = max(0, self.n_trials - studies.count_ended(study))
        self.console.print(f"study {study.study_name}: {missing} of {self.n_trials} trials to run, in {self.folder}")
        return study, storage

    def _lock(self, name: str) -> "Lock":
        from cxr.experiments.sweep_storage import make_lock

        return make_lock(self.storage, self.folder, self.study_name, name, self.patience)

    def _check_folder(self, study: "Study") -> None:
        if not study.trials and any(self.folder.glob("trial_*")):
            raise ConfigError(
                f"{self.folder} holds trials but study {study.study_name} at {self.storage} holds none; "
                "restore the database, or move the folder away to start anew"
            )

    def _start_workers(self, study: "Study") -> None:
        from cxr.experiments.sweep_workers import run_workers

        launcher = self.config.hydra.runtime.choices["hydra/launcher"]
        run_workers(self.workers, launcher, self.folder, self.console.print)
        self.console.print(summarize(study, self.folder, self.goals))

    def _run_trials(self, study: "Study", storage: "PatientStorage", search: Search) -> None:
        from cxr.experiments.sweep_claims import Claims

        claims = Claims(
            study, storage, self._lock("claim"), self.n_trials,
            lambda existing: make_sampler(self.sampler, existing), self.console.print,
        )  # fmt: skip
        claims.work(lambda trial: self._run(trial, search), self._after_trial)

    def _run(self, trial: "Trial", search: Search) -> list[float]:
        import optuna

        from cxr.experiments.sweep_trial import run_apart, run_here
        from cxr.training.judging import StoppedByJudgeError

        overrides = search.overrides(search.draw(trial))
        run_dir = self._run_dir(trial.number)
        trial.set_user_attr("run_dir", os.path.relpath(run_dir, self.folder))
        try:
            if self.apart:
                outcome = run_apart(overrides, trial.number, run_dir)
            else:
                outcome = run_here(self._launch, overrides, trial.number)
        except StoppedByJudgeError as stopped:
            raise optuna.TrialPruned(str(stopped)) from stopped
        trial.set_user_attr("checkpoint", os.path.relpath(outcome.best_checkpoint, self.folder))
        return self.goals.values(outcome, self.config.monitor.metric, outcome.run_dir)

    def _run_dir(self, number: int) -> Path:
        return self.folder / f"trial_{number}"

    def _launch(self, overrides: Sequence[str], number: int) -> Any:
        return self.launcher.launch([list(overrides)], initial_job_idx=number)[0]

    def _after_trial(self, study: "Study", trial: "FrozenTrial") -> None:
        self.console.print(f"trial {trial.number}: {self._tell(study, trial)}")
        self._write(study)

    def _tell(self, study: "Study", trial: "FrozenTrial") -> str:
        if trial.state.name == "PRUNED":
            return f"stopped after {len(trial.intermediate_values)} epochs, others were better by then"
        if trial.values is None:
            return f"failed: {trial.user_attrs.get('error', 'interrupted')}"
        told = ", ".join(f"{name} {value:.4f}" for name, value in zip(self.goals.metrics, trial.values, strict=True))
        best = self.goals.best(study)
        return told if best is None else f"{told}, best {best.values[0]:.4f} (trial {best.number})"

    def _conclude(self, study: "Study") -> None:
        self._write(study)
        self.console.print(summarize(study, self.folder, self.goals))

    def _write(self, study: "Study") -> None:
        from cxr.experiments.sweep_storage import holding

        with holding(self._lock("records")):
            write_records(study, self.folder, self.goals)
            write_page(study, self.folder, self.goals, self.n_trials)

    def _test_best(self, study: "Study") -> None:
        """Test the best trial, unless it is the one tested before; of several workers, one does."""
        from cxr.experiments.study import require_value
        from cxr.experiments.sweep_storage import holding
        from cxr.training import fit

        require_value(study)
        with holding(self._lock("test")):
            best = self.goals.best(study)
            if best is not None and study.user_attrs.get("test", {}).get("trial") != best.number:
                metrics = fit.test_run(self.folder / best.user_attrs["run_dir"])
                study.set_user_attr("test", {"trial": best.number, "metrics": metrics})
