"""One recipe with several seeds on one split. Knows nothing of how a run trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from cxr.errors import ConfigError
from cxr.experiments.plan import PlannedRun, check_setting
from cxr.experiments.spread import Summary, summarize
from cxr.training.config_rules import whole
from cxr.training.run_folder import RunFolder
from cxr.training.sources import read_cohort

NOTES = (
    "All runs have the same split: the spread is that of training alone, and says nothing of other patients.",
    "low and high: 95% t interval of the mean over seeds.",
)


@dataclass(frozen=True)
class Seeds:
    """Several seeds of one recipe, all on the split that the config's own seed makes.

    Args:
        seeds: The seeds, each once.

    Raises:
        ConfigError: No seed, one that is no whole number from 0, or one that is repeated.
    """

    seeds: Sequence[int]

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, list) or not self.seeds:
            raise ConfigError(f"plan.seeds must be a list such as [0, 1, 2], but got {self.seeds!r}")
        for seed in self.seeds:
            check_setting("each of plan.seeds", seed, whole(0))
        repeated = sorted({seed for seed in self.seeds if self.seeds.count(seed) > 1})
        if repeated:
            raise ConfigError(f"plan.seeds must name each seed once, but repeats {repeated}; name others")

    def runs(self, config: DictConfig) -> list[PlannedRun]:
        """One run per seed, see `Plan`."""
        cohort = read_cohort(config)
        return [
            PlannedRun(f"seed_{seed}", cohort.samples, cohort.class_names, (f"seed={seed}",)) for seed in self.seeds
        ]

    def reduce(self, runs: Sequence[RunFolder], folder: Path) -> Summary:
        """Spread over the seeds."""
        return summarize({run.root.name: run.read_metrics() for run in runs}, 0.0, NOTES)
