"""What a sweep varies and what it holds fixed; some keys are searched only where another one has a certain value.

Knows nothing of Hydra: it gets distributions and gives override lines.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import Trial

    from cxr.experiments.study import Space


@dataclass(frozen=True)
class Branch:
    """Keys that are searched only under a condition.

    Attributes:
        key: The key that decides.
        values: Its values, as text, with which the branch is searched.
        space: Config key to Optuna distribution.
    """

    key: str
    values: tuple[str, ...]
    space: "Space"

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether `params` fulfil the condition; true and True are the same."""
        return str(params.get(self.key)).lower() in {value.lower() for value in self.values}


@dataclass(frozen=True)
class Search:
    """What a sweep varies and what it holds fixed.

    Attributes:
        space: Config key to Optuna distribution.
        fixed: Override lines that every trial gets.
        branches: What else is searched, each under a condition.
        given: Values of the keys that `fixed` fixes, as text.
    """

    space: "Space"
    fixed: tuple[str, ...]
    branches: tuple[Branch, ...] = ()
    given: Mapping[str, str] | None = None

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The command line of one trial; trials never touch the test part."""
        return [*self.fixed, *(f"{key}={value}" for key, value in params.items()), "test=false", "report=false"]

    def whole_space(self) -> dict[str, Any]:
        """Every key that some trial searches."""
        whole = dict(self.space)
        for branch in self.branches:
            whole |= branch.space
        return whole

    def draw(self, trial: "Trial") -> dict[str, Any]:
        """Values for one trial: of every key that is always searched, then of the branches that these open."""
        from cxr.experiments.study import suggest

        params = suggest(trial, self.space)
        for branch in self.branches:
            if branch.holds(self._given() | params):
                params |= suggest(trial, branch.space)
        return params

    def first_points(self) -> Iterator[dict[str, Any]]:
        """A first point of the whole, then one in each branch that can be reached: together they name every key."""
        from cxr.experiments.study import first_point

        start = first_point(self.space)
        opened = {key: value for branch in self._open(start) for key, value in first_point(branch.space).items()}
        yield start | opened
        for branch in self.branches:
            for value in branch.values if branch.key in self.space else ():
                yield start | {branch.key: value} | first_point(branch.space)

    def _open(self, params: Mapping[str, Any]) -> list[Branch]:
        return [branch for branch in self.branches if branch.holds(self._given() | dict(params))]

    def _given(self) -> dict[str, Any]:
        return {} if self.given is None else dict(self.given)
