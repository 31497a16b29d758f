"""The best single model, a greedy vote and a stack, each judged on folds that it was not chosen on.

Knows tables of probabilities alone. Not guaranteed: that the trials themselves, whose searches saw the scores of all
folds, are not a little too good; the test part, where there is one, tells that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cxr.ensemble.selection import select_weights
from cxr.ensemble.stacking import fit_stack
from cxr.experiments.automl.task import Bools, Probs, Task
from cxr.inference.combine import Rule


@dataclass(frozen=True)
class Library:
    """The trials that came to an end.

    Attributes:
        names: (M,) of the trials.
        families: (M,) their families.
        probs: (M, N, K) their out-of-fold probabilities.
        task: The N rows.
    """

    names: Sequence[str]
    families: Sequence[str]
    probs: Probs
    task: Task

    def scores(self, rows: Bools) -> list[float]:
        """(M,) the chosen metric on some of the rows."""
        return [self.task.score(one, rows) for one in self.probs]

    def without(self, name: str) -> "Library":
        """The same without one trial."""
        kept = [place for place, one in enumerate(self.names) if one != name]
        families = [self.families[place] for place in kept]
        return Library([self.names[place] for place in kept], families, self.probs[kept], self.task)


@dataclass(frozen=True)
class Mixture:
    """Some of the trials, and the rule that makes one table of theirs.

    Attributes:
        members: Their places in the library.
        rule: Of `cxr.inference.combine`.
    """

    members: Sequence[int]
    rule: Rule

    def __call__(self, probs: Probs) -> Probs:
        """(N, K) of the library's (M, N, K)."""
        return self.rule(probs[list(self.members)])


def choose_single(library: Library, rows: Bools, size: int) -> Mixture:
    """The trial with the best score on some rows."""
    del size
    return Mixture([int(np.argmax(library.scores(rows)))], Rule("soft", {"weights": [1.0]}))


def choose_vote(library: Library, rows: Bools, size: int) -> Mixture:
    """A weighted vote by greedy selection, `size` rounds."""
    weights = select_weights(library.probs[:, rows], library.task.labels[rows], size)
    members = np.flatnonzero(weights).tolist()
    return Mixture(members, Rule("soft", {"weights": weights[members].tolist()}))


def choose_stack(library: Library, rows: Bools, size: int) -> Mixture:
    """A logistic regression on the log probabilities of the best trial of each family."""
    del size
    scores = library.scores(rows)
    best = {family: place for place, family in sorted(enumerate(library.families), key=lambda one: scores[one[0]])}
    members = sorted(best.values())
    return Mixture(members, fit_stack(library.probs[members][:, rows], library.task.labels[rows]))


STRATEGIES: dict[str, Callable[[Library, Bools, int], Mixture]] = {
    "single": choose_single,
    "vote": choose_vote,
    "stack": choose_stack,
}


def cross_fit(strategy: str, library: Library, size: int) -> Probs:
    """(N, K) probabilities of a strategy that chose and learnt on the other folds alone."""
    probs = np.empty_like(library.probs[0])
    for fold in range(library.task.num_folds):
        rows = library.task.folds == fold
        probs[rows] = STRATEGIES[strategy](library, ~rows, size)(library.probs[:, rows])
    return probs


@dataclass(frozen=True)
class Choice:
    """What came out.

    Attributes:
        strategy: The one with the best score; of equal ones the simplest.
        mixture: It on all rows.
        probs: Strategy -> (N, K) its cross-fitted probabilities.
    """

    strategy: str
    mixture: Mixture
    probs: dict[str, Probs]


def choose(library: Library, size: int) -> Choice:
    """Compare the strategies on folds that they did not see, and make the best one of all rows."""
    probs = {name: cross_fit(name, library, size) for name in STRATEGIES}
    best = max(STRATEGIES, key=lambda name: library.task.score(probs[name]))
    return Choice(best, STRATEGIES[best](library, np.ones(len(library.task.labels), dtype=bool), size), probs)
