"""Who may race: the families of classical models, and small CNNs whose folds are runs of train.py.

Classical models that are kept are fitted again on all rows of the folds: their settings carry over, they need no
validation part, and one model takes the place of as many as there are folds. CNNs need such a part, so the nets of the
folds are kept and vote.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution
from sklearn.pipeline import Pipeline

from cxr.classical.convert import check_parity, to_onnx
from cxr.classical.families import FAMILIES, Rows, Space, fit_model
from cxr.errors import TrainingError
from cxr.evaluation.predictions import read_predictions, target_and_probs
from cxr.experiments.automl.task import Probs, Task
from cxr.experiments.automl.views import View
from cxr.experiments.plan import PlanFolder, word
from cxr.experiments.processes import THREADS, Job, run_jobs
from cxr.inference.bundle import write_ensemble
from cxr.inference.classical_predictor import write_classical
from cxr.inference.combine import Rule

log = logging.getLogger(__name__)

VIEW = "features"
CNN = "cnn"
CNN_SPACE: Space = {
    "optimizer.lr": FloatDistribution(3e-4, 1e-2, log=True),
    "net.filters_1": CategoricalDistribution([8, 16, 32]),
    "net.filters_4": CategoricalDistribution([64, 128]),
    "net.drop_rate": FloatDistribution(0.0, 0.5),
}
FROM_RANDOM_WEIGHTS = tuple(
    f"transfer.{name}=null" for name in ("init_from", "pretrained_upto", "freeze_upto", "unfreeze_every", "layer_decay")
)
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
        return fit_model(self.name, _without_view(params), rows, self.threads, self.seed)

    def write(self, params: Mapping[str, Any], trial: int, bundle: Path, extras: Mapping[str, Any]) -> None:
        """See `Contestant.write`."""
        del trial
        view = self.views[params[VIEW]]
        model = self.fit(params, np.ones(len(self.task.labels), dtype=bool))
        graph = to_onnx(model, view.table.shape[1])
        difference = check_parity(model, graph, view.table, bundle.name)
        log.info("%s as ONNX: probabilities within %.1g of scikit-learn's", bundle.name, difference)
        names = self.task.class_names
        write_classical(bundle, graph, self.name, _without_view(params), view.features, names, extras, view.net)


def _without_view(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key != VIEW}


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

    def write(self, params: Mapping[str, Any], trial: int, bundle: Path, extras: Mapping[str, Any]) -> None:
        """See `Contestant.write`."""
        del params
        folds = [self.run(trial, fold) / "bundle" for fold in range(self.task.num_folds)]
        write_ensemble(bundle, folds, Rule("soft"), self.task.class_names, extras)

    def _words(self, params: Mapping[str, Any], fold: int, run: Path) -> list[str]:
        """Of whatever net the recipe is, this is the small one; the folds were made of what the leak gate links."""
        words = [one for one in self.words if not one.startswith(("net=", "net.", "transfer."))]
        searched = [f"{key}={value}" for key, value in params.items()]
        return [
            *words, "net=custom_cnn", *FROM_RANDOM_WEIGHTS, *searched, "data.leak_gate=off", "report=false",
            word("run_name", f"{run.parent.name}-{run.name}"),
            word("data.split_file", self.folder.split(run.name)), word("hydra.run.dir", run),
        ]  # fmt: skip

    def _read(self, run: Path, fold: int) -> Probs:
        """The probabilities of the fold's rows, in the order of the task."""
        table, _ = read_predictions(run / "predictions_test.csv")
        wanted = self.task.tell_ids(self.task.samples[self.task.folds == fold])["sample_id"].astype(str)
        places = pd.Index(table["sample_id"].astype(str)).get_indexer(pd.Index(wanted))
        return target_and_probs(table.iloc[places])[1]
