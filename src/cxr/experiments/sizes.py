"""One recipe on growing shares of its training part: would more images help. Knows nothing of how a run trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from cxr.data.samples import require_every_class
from cxr.data.sampling import take_limit
from cxr.errors import ConfigError
from cxr.evaluation.figure_sizes import METRICS, plot_sizes
from cxr.evaluation.figures import write_figure
from cxr.evaluation.predictions import read_predictions, target_and_probs
from cxr.evaluation.statistics.bootstrap import metric_intervals, resample_metrics
from cxr.evaluation.statistics.resampling import patient_groups
from cxr.experiments.plan import PlannedRun, check_setting
from cxr.experiments.spread import Summary, summarize
from cxr.training.config_rules import Rule
from cxr.training.run_folder import RunFolder
from cxr.training.sources import read_cohort

NOTES = (
    "All runs have the same validation and test parts; each training part holds those before it, patients whole.",
    "One net per size: a step that is smaller than the spread of plan=seeds says nothing.",
)
ENDS = (("", "value"), ("_low", "low"), ("_high", "high"))
SHARE = Rule("a number over 0 and at most 1", lambda share: type(share) in (int, float) and 0 < share <= 1)


@dataclass(frozen=True)
class Sizes:
    """One recipe on shares of the training part, with one validation part and one test part.

    Args:
        shares: Of the training images, rising.

    Raises:
        ConfigError: Fewer than two shares, one out of range, or an order that does not rise.
    """

    shares: Sequence[float]

    def __post_init__(self) -> None:
        if not isinstance(self.shares, list) or len(self.shares) < 2:
            raise ConfigError(f"plan.shares must be a list such as [0.25, 0.5, 1], but got {self.shares!r}")
        for share in self.shares:
            check_setting("each of plan.shares", share, SHARE)
        if sorted(set(self.shares)) != self.shares:
            raise ConfigError(f"plan.shares must rise, but got {self.shares!r}; sort them and name each once")

    def runs(self, config: DictConfig) -> list[PlannedRun]:
        """One run per share, see `Plan`."""
        cohort = read_cohort(config)
        parts = [take_share(cohort.samples, share, config.seed) for share in self.shares]
        names = [f"train_{(part['split'] == 'train').sum()}" for part in parts]
        for name, part in zip(names, parts, strict=True):
            require_every_class(part[part["split"] == "train"], cohort.class_names, f"the training part of {name}")
        if len(set(names)) < len(names):
            raise ConfigError(f"plan.shares={self.shares} must give different sizes, but gives {', '.join(names)}")
        return [PlannedRun(name, part, cohort.class_names) for name, part in zip(names, parts, strict=True)]

    def reduce(self, runs: Sequence[RunFolder], folder: Path) -> Summary:
        """The test metrics side by side, and ``learning_curve.csv`` and ``.png``: the headlines by training images."""
        values = summarize({run.root.name: run.read_metrics() for run in runs}, 0.0, NOTES).values
        curve = pd.DataFrame([measure_size(run) for run in runs if (run.root / "predictions_test.csv").exists()])
        if not curve.empty:
            curve.to_csv(folder / "learning_curve.csv", index=False)
            write_figure(plot_sizes(curve), folder / "learning_curve.png")
        table = values.T
        table.insert(0, "runs", values.notna().sum())
        return Summary(values, table, NOTES)


def take_share(samples: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """A cohort with a share of its training part, patient by patient, classes in proportion; the rest as it is.

    Args:
        samples: Of a cohort.
        share: Over 0, at most 1.
        seed: Decides which patients are taken; a smaller share is a part of a larger one.
    """
    train = samples[samples["split"] == "train"]
    kept = take_limit(train, max(1, round(share * len(train))), seed)
    return samples[(samples["split"] != "train") | samples.index.isin(kept.index)]


def measure_size(run: RunFolder) -> dict[str, float]:
    """Training images of a finished run, and each of `METRICS` on its test part with the ends of its interval."""
    table, class_names = read_predictions(run.root / "predictions_test.csv")
    target, probs = target_and_probs(table)
    groups = patient_groups(table)
    draws = resample_metrics(target, probs, groups, class_names, METRICS)
    found = metric_intervals(target, probs, groups, class_names, draws)
    cells = {f"{name}{end}": getattr(found[name], kind) for name in METRICS for end, kind in ENDS}
    return {"images": float(run.root.name.removeprefix("train_")), **cells}
