"""Several workers, one study: each trial is claimed by one of them, and what a killed one leaves is claimed again.

Whoever holds the lock claims: it fails what is lost, queues its parameters once more, and asks for a trial if the study
does not hold enough yet. The lock is given back when the trial has its first heartbeat, so that a running trial without
the name of a worker can only be that of one that died. Knows nothing of what a trial does.
"""

import os
import platform
import time
import warnings
from collections.abc import Callable, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from cxr.experiments.study import count_ended, run_trials
from cxr.experiments.sweep_storage import Lock, PatientStorage

POLL_SECONDS = 1.0
WORKER, RERUN = "worker", "rerun_of"
Objective = Callable[[Trial], float | Sequence[float]]
AfterTrial = Callable[[optuna.Study, FrozenTrial], None]


class Claims:
    """One worker's part in a study.

    Args:
        study: The study.
        storage: Its database.
        lock: Held by one worker at a time, over all machines.
        n_trials: Total of the study; trials that were interrupted do not count.
        make_sampler: Number of trials that exist -> sampler, so that no two trials draw with the same seed.
        say: Tells the user a line.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: PatientStorage,
        lock: Lock,
        n_trials: int,
        make_sampler: Callable[[int], BaseSampler],
        say: Callable[[str], None],
    ) -> None:
        self.study = study
        self.storage = storage
        self.lock = lock
        self.n_trials = n_trials
        self.make_sampler = make_sampler
        self.say = say

    def work(self, objective: Objective, after_trial: AfterTrial) -> None:
        """Run trials until the study has its total, waiting for those of other workers, which may be lost yet.

        Raises:
            DataError: The database was away for too long.
        """
        waiting = False
        while not self.is_complete():
            claimed = self._run_next(objective, after_trial)
            if not claimed and not waiting:
                self.say("all trials are taken; waiting for those that other workers run")
            waiting = not claimed
            if waiting:
                time.sleep(POLL_SECONDS)

    def is_complete(self) -> bool:
        """Whether all trials have come to an end of their own."""
        return count_ended(self.study) >= self.n_trials

    def _run_next(self, objective: Objective, after_trial: AfterTrial) -> bool:
        """Claim and run a trial; returns whether there was one."""
        self.lock.acquire()
        try:
            self._recover()
            running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if count_ended(self.study) + len(running) >= self.n_trials:
                return False
            self.study.sampler = self.make_sampler(len(self.study.trials))
            self._run(objective, after_trial)
        finally:
            self.lock.release()
        return True

    def _run(self, objective: Objective, after_trial: AfterTrial) -> None:
        mine: list[int] = []

        def claimed(trial: Trial) -> float | Sequence[float]:
            mine.append(trial.number)
            self._sign(trial)
            self.lock.release()
            return objective(trial)

        try:
            run_trials(self.study, 1, claimed, after_trial)
        except (UpdateFinishedTrialError, ValueError, AssertionError):  # Optuna asserts that nobody else ends a trial
            if not mine or not self._was_lost(mine[0]):
                raise
            self.say(f"trial {mine[0]} was taken for lost, since its heartbeat was missing; its result does not count")
        except UnboundLocalError as error:  # Optuna's own, where its storage fails as it looks how the trial ended
            if error.__context__ is None:
                raise
            raise error.__context__ from None

    def _sign(self, trial: Trial) -> None:
        """Give the trial its first heartbeat, then the name of this worker."""
        self.storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr(WORKER, f"{platform.node()}:{os.getpid()}")

    def _was_lost(self, number: int) -> bool:
        return self.study.get_trials(deepcopy=False)[number].state is TrialState.FAIL

    def _recover(self) -> None:
        """Fail trials whose worker is gone, and queue the parameters of those that were interrupted, each once."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if WORKER not in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.FAIL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)
        for number in requeue(self.study):
            self.say(f"trial {number} was interrupted; its parameters are tried again")


def find_interrupted(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that failed without an error of their own: stopped, killed or lost."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [trial for trial in failed if "error" not in trial.user_attrs]


def requeue(study: optuna.Study) -> list[int]:
    """Queue the parameters of each interrupted trial once more; those that were interrupted twice are given up.

    Returns:
        The numbers of the trials whose parameters wait now.
    """
    again = {trial.user_attrs.get(RERUN) for trial in study.get_trials(deepcopy=False)}
    queued = []
    for trial in find_interrupted(study):
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        given_up = RERUN in trial.user_attrs and WORKER in trial.user_attrs
        if params and trial.number not in again and not given_up:
            study.enqueue_trial(params, user_attrs={RERUN: trial.number})
            queued.append(trial.number)
    return queued
