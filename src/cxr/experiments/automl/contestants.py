"""Who may race: the families of classical models, and small CNNs whose folds are runs of train.py."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import CategoricalDistribution, FloatDistribution
from sklearn.pipeline import Pipeline

from cxr.classical.families import FAMILIES, Rows, Space, fit_model
from cxr.errors import TrainingError
from cxr.evaluation.predictions import read_predictions
from cxr.evaluation.report.collect import target_and_probs
from cxr.experiments.automl.task import Probs, Task
from cxr.experiments.automl.views import View
from cxr.experiments.plan import PlanFolder, word
from cxr.experiments.processes import THREADS, Job, run_jobs

VIEW = "features"
CNN = "cnn"
CNN_SPACE: Space = {
    "optimizer.lr": FloatDistribution(3e-4, 1e-2, log=True),
    "net.filters_1": CategoricalDistribution([8, 16, 32]),
    "net.filters_4": CategoricalDistribution([64, 128]),
    "net.drop_rate": FloatDistribution(0.0, 0.5),
}
CNN_FIRST = {"optimizer.lr": 3e-3, "net.filters_1": 16, "net.filters_4": 128, "net.drop_rate": 0.2}


@dataclass
class Classical:
    """A family of classical models.

    Attributes:
        name: A key of `FAMILIES`.
        views: What the images may be seen by; of several the search chooses.
        task: The rows.
        threads: The most cores to use.
        seed: Of what is random in a model.
    """

    name: str
    views: Mapping[str, View]
    task: Task
    threads: int
    seed: int
    space: Space = field(init=False)
    first: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        family, names = FAMILIES[self.name], list(self.views)
        self.space = {VIEW: CategoricalDistribution(names), **family.space}
        self.first = {VIEW: names[-1], **family.first}

    def predict(self, params: Mapping[str, Any], fold: int, trial: int) -> Probs:
        """See `Contestant.predict`."""
        tested = self.task.folds == fold
        model = self.fit(params, ~tested)
        probs: Probs = model.predict_proba(self.views[params[VIEW]].table[tested]).astype(np.float64)
        return probs

    def fit(self, params: Mapping[str, Any], chosen: npt.NDArray[np.bool_]) -> Pipeline:
        """The model of the rows where `chosen` (N,) is true, which are all that it sees."""
        rows = Rows(self.views[params[VIEW]].table, self.task.labels, self.task.groups).take(chosen)
        own = {key: value for key, value in params.items() if key != VIEW}
        return fit_model(self.name, own, rows, self.threads, self.seed)


@dataclass
class SmallCnn:
    """The custom CNN by the recipe of the plan's command, each fold a run whose test part is the fold.

    Attributes:
        task: The rows.
        folder: The plan's folder, with the splits of the folds.
        words: Those of the command for train.py.
        command: What trains when words are added, see `cxr.experiments.plan_run.run_plan`.
        threads: The most cores to use.
    """

    task: Task
    folder: PlanFolder
    words: Sequence[str]
    command: Sequence[str]
    threads: int
    name: str = CNN
    space: Space = field(default_factory=lambda: CNN_SPACE)
    first: Mapping[str, Any] = field(default_factory=lambda: CNN_FIRST)

    def predict(self, params: Mapping[str, Any], fold: int, trial: int) -> Probs:
        """See `Contestant.predict`.

        Raises:
            TrainingError: The run failed.
        """
        run = self.run(trial, fold)
        job = Job(
            f"{self.name} {trial}, fold {fold}", (*self.command, *self._words(params, fold, run)), run / "output.log"
        )
        with closing(run_jobs([job], [{THREADS: str(self.threads)}], lambda _: None)) as ended:
            exit_code = next(ended).exit_code
        if exit_code != 0:
            raise TrainingError(f"{job.name} ended with exit code {exit_code}; see {job.log}")
        return self._read(run, fold)

    def run(self, trial: int, fold: int) -> Path:
        """The run folder of a fold."""
        return self.folder.root / "trials" / f"{self.name}_{trial}" / f"fold_{fold}"

    def _words(self, params: Mapping[str, Any], fold: int, run: Path) -> list[str]:
        """The leak gate is off, since the folds were made of what it linked."""
        searched = [f"{key}={value}" for key, value in params.items()]
        return [
            *self.words, "net=custom_cnn", *searched, "data.leak_gate=off", "report=false",
            word("run_name", f"{run.parent.name}-{run.name}"),
            word("data.split_file", self.folder.split(run.name)), word("hydra.run.dir", run),
        ]  # fmt: skip

    def _read(self, run: Path, fold: int) -> Probs:
        """The probabilities of the fold's rows, in the order of the task."""
        table, _ = read_predictions(run / "predictions_test.csv")
        wanted = self.task.tell_ids(self.task.samples[self.task.folds == fold])["sample_id"].astype(str)
        rows = table.set_index(table["sample_id"].astype(str)).loc[wanted]
        return target_and_probs(rows)[1]
