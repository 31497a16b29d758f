"""Acceptance goals, such as ``test/accuracy >= 0.85``, held against the numbers of a report.

Knows nothing of how the numbers are made, nor of what follows from a goal that is missed.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cxr.errors import ConfigError

GOAL = re.compile(r"\s*(?P<name>\S.*?)\s*(?P<side>>=|<=)\s*(?P<bound>-?[0-9]*\.?[0-9]+)\s*")
ENDS = ("low", "high")
EXAMPLES = "'test/accuracy >= 0.85', 'test/auroc.low >= 0.9' or 'best/epoch <= 20'"

Numbers = Mapping[str, float | None]


@dataclass(frozen=True)
class Goal:
    """What a number must be.

    Attributes:
        name: One of the names of `name_numbers`.
        at_least: Whether the bound is the least that will do; else it is the most.
        bound: The bound, which will do itself.
    """

    name: str
    at_least: bool
    bound: float

    def __str__(self) -> str:
        return f"{self.name} {'>=' if self.at_least else '<='} {self.bound:.12g}"

    def look_up(self, numbers: Numbers) -> float | None:
        """The number in question; None where it is not defined on these rows.

        Raises:
            ConfigError: There is no number of this name.
        """
        if self.name not in numbers:
            near = difflib.get_close_matches(self.name, numbers, n=5, cutoff=0)
            raise ConfigError(
                f"expected a goal for a number of the report, but it has no {self.name!r}; "
                f"near names: {', '.join(near)}"
            )
        return numbers[self.name]

    def is_met(self, value: float | None) -> bool:
        """Whether a value will do; one that is not defined will not."""
        if value is None:
            return False
        return value >= self.bound if self.at_least else value <= self.bound


def parse_goal(text: str) -> Goal:
    """Read a goal from text.

    Raises:
        ConfigError: It is none.
    """
    found = GOAL.fullmatch(text)
    if found is None:
        raise ConfigError(f"expected a goal such as {EXAMPLES}, but got {text!r}")
    return Goal(found["name"], found["side"] == ">=", float(found["bound"]))


def name_numbers(report: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of a report by name.

    Args:
        report: Of `collect`, or the part ``evaluation`` of a run's ``metrics.json``.

    Returns:
        ``<part>/<metric>``, the ends of its interval as ``<part>/<metric>.low`` and ``.high``, and of a run
        ``best/epoch``, ``best/seconds`` and ``best/score``; the part of one of several targets is ``<part>_<target>``.
    """
    values: dict[str, float | None] = {}
    for question in report["questions"]:
        for part in question["parts"]:
            place = f"{part['name']}_{question['name']}" if question["name"] else part["name"]
            values |= {f"{place}/{name}.{end}": told[end] for name, told in part["metrics"].items() for end in ENDS}
            values |= {f"{place}/{name}": told["value"] for name, told in part["metrics"].items()}
    best = {} if report["best"] is None else report["best"]
    return values | {f"best/{name}": best[name] for name in ("epoch", "seconds", "score") if name in best}
