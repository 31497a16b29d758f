"""What a sweep wants: one or several values of a trial, which way each is better, and which trial is best.

A value is the monitored one, another of the validation part, or what the net costs to run. Knows nothing of Hydra.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cxr.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

COSTS = ("parameters", "megabytes", "gflops", "latency_ms")
"""Names of what `cxr.inference.cost` measures."""
MODES = ("max", "min")


class TrialResult(Protocol):
    """What the task of a trial returns."""

    @property
    def best_score(self) -> float:
        """Best monitored value."""

    @property
    def best_checkpoint(self) -> Path:
        """Checkpoint of that value."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """``val/...`` of that checkpoint."""


@dataclass(frozen=True)
class Goals:
    """What is asked of a trial.

    Attributes:
        metrics: Names of its values, the main one first.
        modes: ``"max"`` or ``"min"`` for each.
        limits: Metric to the worst value that the best trial may have; with several metrics, there is a best trial only
            where this is given.
    """

    metrics: tuple[str, ...]
    modes: tuple[str, ...] = ("max",)
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def main(self) -> str:
        """The metric that decides among trials within the limits."""
        return self.metrics[0]

    def best(self, study: "Study") -> "FrozenTrial | None":
        """The finished trial that is best by the main metric within the limits; None where there is none."""
        if len(self.metrics) > 1 and not self.limits:
            return None
        worth = {trial.number: self._worth(trial.values[0], 0) for trial in finished(study) if self._in_limits(trial)}
        return study.trials[max(worth, key=lambda number: (worth[number], -number))] if worth else None

    def _in_limits(self, trial: "FrozenTrial") -> bool:
        places = [(self.metrics.index(name), limit) for name, limit in self.limits.items()]
        return all(self._worth(trial.values[place], place) >= self._worth(limit, place) for place, limit in places)

    def _worth(self, value: float, place: int) -> float:
        return value if self.modes[place] == "max" else -value

    def front(self, study: "Study") -> list[int]:
        """Numbers of the trials than which none is better in every respect."""
        return [trial.number for trial in study.best_trials] if finished(study) else []

    def values(self, result: TrialResult, monitor: str, run_dir: Path) -> list[float]:
        """The values of a trial that has finished.

        Args:
            result: What its task returned.
            monitor: Name of `result.best_score`.
            run_dir: Its run folder, whose net is measured where a cost is asked for.

        Raises:
            ConfigError: A metric is none that the trial has.
        """
        known = dict(result.metrics) | {monitor: result.best_score}
        if any(name in COSTS for name in self.metrics):
            known |= measure(run_dir)
        missing = [name for name in self.metrics if name not in known]
        if missing:
            raise ConfigError(
                f"hydra.sweeper.metrics must name values of a trial, but got {', '.join(missing)}; it has: "
                f"{', '.join(known)}"
            )
        return [float(known[name]) for name in self.metrics]


def make_goals(metrics: Sequence[str], modes: Sequence[str], limits: Mapping[str, float], monitor: str) -> Goals:
    """The goals that a config asks for.

    Raises:
        ConfigError: They do not go together, or name what no trial has.
    """
    for name in metrics:
        if name != monitor and name not in COSTS and not name.startswith("val/"):
            raise ConfigError(
                f"hydra.sweeper.metrics must be values of the validation part such as val/f1_macro, or of "
                f"{', '.join(COSTS)}, but got {name}"
            )
    if len(set(metrics)) != len(modes) or not metrics or not set(modes) <= set(MODES):
        raise ConfigError(
            f"hydra.sweeper.modes must be max or min for each of hydra.sweeper.metrics ({', '.join(metrics)}), but got "
            f"{', '.join(modes)}"
        )
    unknown = sorted(limits.keys() - set(metrics))
    if unknown:
        raise ConfigError(
            f"hydra.sweeper.limits must be about {', '.join(metrics)}, but got {', '.join(unknown)}; add it to "
            "hydra.sweeper.metrics"
        )
    return Goals(tuple(metrics), tuple(modes), dict(limits))


def finished(study: "Study") -> list["FrozenTrial"]:
    """The trials that ended with a value."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


def measure(run_dir: Path) -> dict[str, float]:
    """What the net of a run costs on the CPU: parameters, megabytes, gflops, latency_ms, by name."""
    from cxr.inference.bundle import load_bundle
    from cxr.inference.cost import measure_cost

    cost = measure_cost(load_bundle(run_dir / "bundle"))
    return {name: float(getattr(cost, name)) for name in COSTS}
