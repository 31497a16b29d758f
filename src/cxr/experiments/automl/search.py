"""The race: the family that has used the least time and the best one take turns, until the clock says stop.

So all have a first trial, none is starved, and half of the trials go where most is to be had. One Optuna study per
contestant in one database, so that what was tried is there when the search goes on. Knows nothing of what a contestant
is.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from cxr.errors import ConfigError, TrainingError
from cxr.evaluation.predictions import write_predictions
from cxr.experiments import study as studies
from cxr.experiments.automl.task import Bools, Probs, Task

PATIENCE = 3
"""A contestant whose first so many trials all fail is out of the race."""
OUT_OF_TIME = "out_of_time"


class Contestant(Protocol):
    """One family of models."""

    name: str
    space: studies.Space
    first: Mapping[str, Any]

    def predict(self, params: Mapping[str, Any], fold: int, trial: int) -> Probs:
        """Train on the other folds.

        Args:
            params: A value for each key of the space.
            fold: Which fold not to look at.
            trial: Number of the trial.

        Returns:
            (M, K) probabilities for the rows of that fold.
        """

    def write(self, params: Mapping[str, Any], trial: int, bundle: Path, extras: Mapping[str, Any]) -> None:
        """Write the bundle of a trial that came to an end.

        Args:
            params: As in its `predict`.
            trial: Its number.
            bundle: The bundle to make; the folder above exists.
            extras: Plain values about it.

        Raises:
            ParityError: What would be written does not answer as what was tried.
        """


@dataclass
class Clock:
    """Seconds of trials, over all calls.

    Attributes:
        budget: All there are.
        spent: By trials that have ended.
        now: Tells the time in seconds.
    """

    budget: float
    spent: float
    now: Callable[[], float] = time.monotonic
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.now() - self.spent

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent."""
        return self.now() - self.started >= self.budget


class OutOfTimeError(Exception):
    """A trial was running when the budget ended."""


@dataclass
class Race:
    """All studies of a plan.

    Attributes:
        contestants: At least one.
        task: What they are measured on.
        folder: Gets study.db, and trials/ with the out-of-fold predictions of each trial.
        seed: Of the searches; moves on with each trial that a study holds.
        after_trial: Told after each trial.
    """

    contestants: Sequence[Contestant]
    task: Task
    folder: Path
    seed: int
    after_trial: Callable[["Race", FrozenTrial], None]
    studies: dict[str, optuna.Study] = field(init=False)

    def __post_init__(self) -> None:
        (self.folder / "trials").mkdir(parents=True, exist_ok=True)
        self.studies = {one.name: studies.open_study(self.storage, one.name, "max") for one in self.contestants}
        for contestant in self.contestants:
            study = self.studies[contestant.name]
            studies.fail_stale_trials(study)
            if not study.trials:
                study.enqueue_trial(dict(contestant.first))

    @property
    def storage(self) -> str:
        """Where the studies lie."""
        return f"sqlite:///{self.folder / 'study.db'}"

    @property
    def spent(self) -> float:
        """Seconds of all trials so far, those that came to nothing included."""
        return sum(_spent(study) for study in self.studies.values())

    def trials(self, state: TrialState = TrialState.COMPLETE) -> list[tuple[str, FrozenTrial]]:
        """(name of the contestant, trial) of every trial in that state."""
        return [(name, one) for name, study in self.studies.items() for one in study.get_trials(states=(state,))]

    def run(self, clock: Clock, most_trials: int | None) -> None:
        """Try until the clock is over, so many trials have ended, or no contestant is left.

        Raises:
            ConfigError: The budget is too short for one trial.
            TrainingError: Every trial failed.
        """
        while not clock.is_over and not self._has_enough(most_trials):
            running = [one for one in self.contestants if not self._is_out(one.name)]
            if not running:
                break
            self._try(self._next(running), clock)
        if not self.trials():
            raise self._why_nothing(clock)

    def table(self, name: str, number: int) -> Path:
        """The out-of-fold predictions of a trial."""
        return self.folder / "trials" / f"{name}_{number}.csv"

    def _has_enough(self, most_trials: int | None) -> bool:
        return most_trials is not None and sum(map(studies.count_ended, self.studies.values())) >= most_trials

    def _is_out(self, name: str) -> bool:
        failed = self.studies[name].get_trials(states=(TrialState.FAIL,))
        errors = [one for one in failed if "error" in one.user_attrs and OUT_OF_TIME not in one.user_attrs]
        return len(errors) >= PATIENCE and not self.studies[name].get_trials(states=(TrialState.COMPLETE,))

    def _next(self, running: Sequence[Contestant]) -> Contestant:
        tried = [one for one in running if self.studies[one.name].get_trials(states=(TrialState.COMPLETE,))]
        ended = sum(map(studies.count_ended, self.studies.values()))
        if len(tried) == len(running) and ended % 2:
            return max(tried, key=lambda one: self.studies[one.name].best_value)
        return min(running, key=lambda one: _spent(self.studies[one.name]))

    def _try(self, contestant: Contestant, clock: Clock) -> None:
        study = self.studies[contestant.name]
        study.sampler = optuna.samplers.TPESampler(seed=self.seed + len(study.trials))
        studies.run_trials(
            study, 1, lambda trial: self._run(contestant, trial, clock),
            lambda _, trial: self.after_trial(self, trial), collect_garbage=False,
        )  # fmt: skip

    def _run(self, contestant: Contestant, trial: Trial, clock: Clock) -> float:
        params = studies.suggest(trial, contestant.space)
        trial.set_user_attr("family", contestant.name)
        started = clock.now()
        try:
            probs = self._predict_folds(contestant, params, trial, clock)
            self._keep(probs, contestant.name, trial)
        finally:
            trial.set_user_attr("seconds", clock.now() - started)
        return self.task.score(probs)

    def _keep(self, probs: Probs, name: str, trial: Trial) -> None:
        table = self.task.tabulate(probs, f"{name}_{trial.number}")
        write_predictions(table, self.task.class_names, self.table(name, trial.number))
        trial.set_user_attr("measured", self.task.measure(probs))

    def _predict_folds(self, contestant: Contestant, params: Mapping[str, Any], trial: Trial, clock: Clock) -> Probs:
        """(N, K) out-of-fold probabilities."""
        task = self.task
        probs = np.full((len(task.labels), len(task.class_names)), np.nan)
        for fold in range(task.num_folds):
            if fold > 0 and clock.is_over:
                trial.set_user_attr(OUT_OF_TIME, fold)
                raise OutOfTimeError(f"the budget ended after {fold} of {task.num_folds} folds")
            rows: Bools = task.folds == fold
            probs[rows] = contestant.predict(params, fold, trial.number)
        return probs

    def _why_nothing(self, clock: Clock) -> ConfigError | TrainingError:
        """What no trial came to an end of."""
        failed = self.trials(TrialState.FAIL)
        stopped = [(name, one) for name, one in failed if OUT_OF_TIME in one.user_attrs]
        if not stopped and failed:
            name, last = failed[-1]
            reason = last.user_attrs.get("error", "interrupted")
            return TrainingError(
                f"expected a trial to give a result, but all failed, {name} last with: {reason}; mend that"
            )
        told = f"plan.budget_minutes={clock.budget / 60:g} is too short for one trial"
        if not stopped:
            return ConfigError(f"{told}; raise it")
        name, last = stopped[-1]
        folds, seconds = last.user_attrs[OUT_OF_TIME], last.user_attrs["seconds"]
        whole = seconds / folds * self.task.num_folds
        return ConfigError(
            f"{told}: {folds} of {self.task.num_folds} folds of {name} took {seconds:.1f} s, so one trial takes about "
            f"{whole / 60:.2g} minutes; raise it"
        )


def _spent(study: optuna.Study) -> float:
    return float(sum(one.user_attrs.get("seconds", 0.0) for one in study.get_trials(deepcopy=False)))
