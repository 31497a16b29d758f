"""Cross-validation: folds as runs, their predictions pooled. Knows nothing of how a run trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from cxr.data.folds import make_folds
from cxr.data.samples import PARTS, require_every_class, target_names
from cxr.data.splits import groups_of, make_split
from cxr.errors import ConfigError
from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.predictions import (
    aggregate_by_study,
    has_studies,
    read_predictions,
    target_and_probs,
    write_predictions,
)
from cxr.evaluation.report.collect import Options
from cxr.evaluation.report.material import Material, Question
from cxr.evaluation.report.page import write_report
from cxr.experiments.plan import PlannedRun, check_setting
from cxr.experiments.spread import Summary, summarize
from cxr.training.config_rules import whole
from cxr.training.run_folder import RunFolder, mean_headlines
from cxr.training.sources import read_pool

NOTES = (
    "low and high: 95% t interval of the mean over folds, widened for the training data that folds share (Nadeau and "
    "Bengio 2003); it stays a heuristic, since that variance has no unbiased estimate (Bengio and Grandvalet 2004).",
    "pooled: the metric over the predictions of all folds together, each by the net that did not see the patient.",
)


@dataclass(frozen=True)
class CrossValidation:
    """Every sample outside an official test part is tested once per repeat, patients whole and classes in proportion.

    The test part of a run is its fold; validation is carved from the other folds by patient, in the ratio of
    ``data.fractions``.

    Args:
        folds: Number of folds, 2 or more.
        repeats: How often to divide, each time anew.

    Raises:
        ConfigError: Fewer than two folds or than one repeat.
    """

    folds: int
    repeats: int

    def __post_init__(self) -> None:
        check_setting("plan.folds", self.folds, whole(2))
        check_setting("plan.repeats", self.repeats, whole(1))

    def runs(self, config: DictConfig) -> list[PlannedRun]:
        """One run per repeat and fold, see `Plan`."""
        samples, class_names = read_pool(config)
        return self.divide(samples, class_names, list(config.data.fractions), config.seed)

    def divide(
        self, samples: pd.DataFrame, class_names: list[str], fractions: Sequence[float], seed: int
    ) -> list[PlannedRun]:
        """One run per repeat and fold.

        Args:
            samples: A cohort that is not divided, an official test part apart.
            class_names: Names of the labels.
            fractions: Shares of (train, val, test); the last plays no part.
            seed: Decides which groups go where.

        Raises:
            CxrError: A class has fewer patients than there are folds, or a part would lack a class.
        """
        folds = make_folds(samples, self.folds, seed, repeats=self.repeats)
        pool = samples.loc[folds.index]
        self._check_classes(pool, class_names)
        return [
            PlannedRun(name, _split(pool, folds[repeat] == fold, class_names, fractions, seed, name), class_names)
            for repeat, fold, name in self._names()
        ]

    def reduce(self, runs: Sequence[RunFolder], folder: Path) -> Summary:
        """Spread over the folds beside the pooled predictions: ``predictions_oof*.csv`` and their report."""
        summary = summarize({run.root.name: run.read_metrics() for run in runs}, 1 / (self.folds - 1), NOTES)
        pooled: dict[str, float] = {}
        questions = []
        for path in _tables(runs[0]):
            predictions, class_names = self._pool([run.root / path.name for run in runs])
            part = path.stem.removeprefix("predictions_")
            write_predictions(predictions, class_names, folder / f"predictions_{part.replace('test', 'oof', 1)}.csv")
            pooled |= pooled_metrics(predictions, class_names, part)
            questions.append(Question(part.partition("_")[2], class_names, {"out of fold": predictions}))
        write_report(Material(f"{self.folds}-fold cross-validation {folder.name}", questions), folder, Options())
        pooled |= mean_headlines(pooled, "test")
        table = summary.table.assign(pooled=[pooled.get(str(name), np.nan) for name in summary.table.index])
        return Summary(summary.values, table, summary.notes)

    def _names(self) -> list[tuple[int, int, str]]:
        """(repeat, fold, name) of each run."""
        pairs = [(repeat, fold) for repeat in range(self.repeats) for fold in range(self.folds)]
        if self.repeats == 1:
            return [(repeat, fold, f"fold_{fold}") for repeat, fold in pairs]
        return [(repeat, fold, f"repeat_{repeat}_fold_{fold}") for repeat, fold in pairs]

    def _check_classes(self, pool: pd.DataFrame, class_names: list[str]) -> None:
        """Raise ConfigError when a class cannot be in every fold; a target that a fold lacks is not measured there."""
        if target_names(pool):
            return
        groups = groups_of(pool)
        patients = [groups[pool["label"] == label].nunique() for label in range(len(class_names))]
        if min(patients) < self.folds:
            rarest = class_names[patients.index(min(patients))]
            raise ConfigError(
                f"plan.folds={self.folds} must not exceed the patients of the rarest class, but {rarest} has "
                f"{min(patients)}; ask for fewer folds, or add data"
            )

    def _pool(self, paths: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
        """The predictions of all runs with their folds, and the class names."""
        tables = [read_predictions(path) for path in paths]
        numbered = [
            table.assign(fold=pd.array([fold] * len(table), dtype="Int64"))
            for (table, _), (_, fold, _) in zip(tables, self._names(), strict=True)
        ]
        return pd.concat(numbered, ignore_index=True), tables[0][1]


def pooled_metrics(predictions: pd.DataFrame, class_names: list[str], part: str) -> dict[str, float]:
    """The metrics of pooled predictions per image and, where a study has several images, per study.

    Args:
        predictions: Those of all folds, each sample once per repeat.
        class_names: The K names in order.
        part: ``test``, or ``test_<target>`` of a multi-label dataset.

    Returns:
        ``<part>/<metric>`` and maybe ``<part>_study/<metric>``, as in a run.
    """
    metrics = _metrics(predictions, class_names, part)
    if has_studies(predictions):
        metrics |= _metrics(aggregate_by_study(predictions), class_names, f"{part}_study")
    return metrics


def _metrics(predictions: pd.DataFrame, class_names: list[str], part: str) -> dict[str, float]:
    target, probs = target_and_probs(predictions)
    return {f"{part}/{key}": value for key, value in classification_metrics(target, probs, class_names).items()}


def _tables(run: RunFolder) -> list[Path]:
    """The tables of test predictions per image: one, or one per target."""
    return [path for path in sorted(run.root.glob("predictions_test*.csv")) if not path.stem.endswith("_study")]


def _split(
    pool: pd.DataFrame, is_tested: pd.Series, class_names: list[str], fractions: Sequence[float], seed: int, name: str
) -> pd.DataFrame:
    """The pool with one fold as its test part and validation carved from the rest."""
    samples = pool.assign(split=np.where(is_tested, "test", "train"))
    samples["split"] = make_split(samples, fractions, seed)
    parts = PARTS if not target_names(samples) else PARTS[:1]
    for part in parts:
        require_every_class(samples[samples["split"] == part], class_names, f"the part {part} of {name}")
    return samples
