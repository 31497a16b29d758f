"""What every model of an AutoML plan is trained and measured on: labelled rows in folds. Knows nothing of models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr.data.splits import groups_of
from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.predictions import make_predictions
from cxr.evaluation.statistics.bootstrap import metric_intervals, resample_metrics
from cxr.evaluation.statistics.resampling import patient_groups
from cxr.experiments.plan import PlannedRun
from cxr.inference.combine import to_logits
from cxr.scaling import UNSCALED, Scaling

Probs = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Task:
    """N samples in folds.

    Attributes:
        samples: Their table.
        class_names: The K names in order.
        folds: (N,) from 0.
        metric: By which models are chosen, the more the better.
        tell_ids: The table with its ids as they may be told.
    """

    samples: pd.DataFrame
    class_names: list[str]
    folds: npt.NDArray[np.int64]
    metric: str
    tell_ids: Callable[[pd.DataFrame], pd.DataFrame]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) class indices."""
        return self.samples["label"].to_numpy(np.int64)

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """(N,) numbers of what belongs together."""
        return np.asarray(pd.factorize(groups_of(self.samples))[0], dtype=np.int64)

    @property
    def num_folds(self) -> int:
        """How many folds there are."""
        return int(self.folds.max()) + 1

    def score(self, probs: Probs, rows: Bools | None = None) -> float:
        """The chosen metric of probabilities (N, K), or of those in `rows` (N,)."""
        kept = slice(None) if rows is None else rows
        return classification_metrics(self.labels[kept], probs[kept], self.class_names)[self.metric]

    def measure(self, probs: Probs) -> dict[str, tuple[float, float, float]]:
        """Value, low and high end of the chosen metric and of the headlines, patients drawn with replacement."""
        names = list(dict.fromkeys((self.metric, "auroc", "balanced_accuracy", "accuracy")))
        of_rows = (self.labels, probs, patient_groups(self._known_ids()), self.class_names)
        found = metric_intervals(*of_rows, resample_metrics(*of_rows, names))
        return {name: (found[name].value, found[name].low, found[name].high) for name in names}

    def tabulate(self, probs: Probs, run: str, scaling: Scaling = UNSCALED) -> pd.DataFrame:
        """The predictions table of out-of-fold probabilities (N, K), as part ``val``."""
        told = self.tell_ids(self.samples)
        table = make_predictions(told, to_logits(probs), self.class_names, "val", run, scaling=scaling)
        return table.assign(fold=pd.array(self.folds, dtype="Int64"))

    def _known_ids(self) -> pd.DataFrame:
        return self.samples.reindex(columns=["patient_id", "study_id"])


def make_task(runs: Sequence[PlannedRun], metric: str, tell_ids: Callable[[pd.DataFrame], pd.DataFrame]) -> Task:
    """The task of the runs of a cross-validation, whose test parts are the folds."""
    tables = [run.samples for run in runs if run.samples is not None]
    samples = tables[0]
    tested = np.stack([(table.loc[samples.index, "split"] == "test").to_numpy() for table in tables])
    return Task(samples.drop(columns="split"), runs[0].class_names, tested.argmax(axis=0), metric, tell_ids)
