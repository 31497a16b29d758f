"""Whoever judges a trial while it trains: its study keeps each value, and its pruner says when to stop.

It finds the study by its address, so a trial may run wherever a launcher put it. Knows nothing of training.
"""

from collections.abc import Mapping
from functools import cached_property

import optuna
from optuna.pruners import BasePruner

from cxr.experiments.study import storage_errors
from cxr.experiments.sweep_storage import PatientStorage, tell_url


class StudyJudge:
    """Reports a trial's values to its study and asks the study's pruner; connects when it is first asked.

    Args:
        storage: Address of the database.
        study_name: Name of the study.
        number: Number of the trial.
        metric: What is reported.
        pruner: Who decides.
        patience: Seconds that the database may be away.
        heartbeat: Seconds between two signs of life of a trial.
    """

    def __init__(
        self,
        storage: str,
        study_name: str,
        number: int,
        metric: str,
        pruner: BasePruner,
        patience: float,
        heartbeat: int,
    ) -> None:
        self.storage = storage
        self.study_name = study_name
        self.number = number
        self.metric = metric
        self.pruner = pruner
        self.patience = patience
        self.heartbeat = heartbeat

    @cached_property
    def study(self) -> optuna.Study:
        """The study, through a connection of its own."""
        storage = PatientStorage(self.storage, self.patience, self.heartbeat)
        return optuna.load_study(study_name=self.study_name, storage=storage, pruner=self.pruner)

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Report the value of this epoch; returns whether the trial should stop.

        Raises:
            StorageError: The database was away for too long, or refuses the value.
        """
        with storage_errors(tell_url(self.storage)):
            storage = self.study._storage
            trial_id = storage.get_trial_id_from_study_id_trial_number(self.study._study_id, self.number)
            storage.set_trial_intermediate_value(trial_id, epoch, metrics[self.metric])
            return bool(self.pruner.prune(self.study, storage.get_trial(trial_id)))
