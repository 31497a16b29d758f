"""Divides groups among parts so that sizes and findings come out in proportion. Knows nothing of tables and patients.

Groups with the same numbers of each finding are interchangeable, so whole kinds of groups are divided at once and only
what is left over, less than one group per kind and part, is placed one by one. The time grows with the number of kinds,
not of samples.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def allocate(counts: Ints, fractions: Floats, rng: np.random.Generator) -> Ints:
    """Give every group a part.

    Args:
        counts: (G, F) samples of each finding in each group; no group is empty.
        fractions: (P,) positive shares of the parts; they sum to 1.
        rng: Decides which of several equal groups go where.

    Returns:
        (G,) index of the part. The size of each part is within the largest group of its share.
    """
    kinds, kind_of_group = np.unique(counts, axis=0, return_inverse=True)
    plan = _Plan.empty(kinds, np.bincount(kind_of_group), fractions)
    _place_large(plan)
    _place_in_proportion(plan)
    _place_rest(plan, fractions)
    _even_out(plan)
    return _draw(plan.table, kind_of_group.ravel(), rng)


@dataclass
class _Plan:
    """How many groups of each kind go to each part.

    Attributes:
        kinds: (K, F) samples of each finding in a group of the kind.
        sizes: (K,) samples in a group of the kind.
        unplaced: (K,) groups of the kind without a part.
        table: (K, P) groups of the kind in the part.
        totals: (F,) samples of each finding.
        deficits: (P, F) samples that the part should still get.
    """

    kinds: Ints
    sizes: Ints
    unplaced: Ints
    table: Ints
    totals: Ints
    deficits: Floats

    @classmethod
    def empty(cls, kinds: Ints, members: Ints, fractions: Floats) -> "_Plan":
        totals = members @ kinds
        table = np.zeros((len(kinds), len(fractions)), dtype=np.int64)
        return cls(kinds, kinds.sum(axis=1), members.copy(), table, totals, fractions[:, None] * totals)

    def place(self, kind: int, part: int, groups: int = 1) -> None:
        self.table[kind, part] += groups
        self.unplaced[kind] -= groups
        self.deficits[part] -= groups * self.kinds[kind]


def _place_large(plan: _Plan) -> None:
    """Put groups that do not fit into every part, largest first, where most is missing."""
    large = plan.sizes > plan.deficits.sum(axis=1).min()
    for kind in sorted(np.flatnonzero(large).tolist(), key=lambda kind: -plan.sizes[kind]):
        while plan.unplaced[kind]:
            plan.place(kind, int(_steady(plan.deficits.sum(axis=1)).argmax()))


def _place_in_proportion(plan: _Plan) -> None:
    """Divide each kind by what is missing of its findings, rounded down."""
    missing = plan.deficits.clip(min=0)
    shares = missing / missing.sum(axis=0).clip(min=1e-9)
    weights = (plan.kinds @ shares.T) / plan.sizes[:, None]
    whole = np.floor(plan.unplaced[:, None] * weights + 1e-6).astype(np.int64)
    plan.table += whole
    plan.unplaced -= whole.sum(axis=1)
    plan.deficits -= whole.T @ plan.kinds


def _place_rest(plan: _Plan, fractions: Floats) -> None:
    """Place what rounding left, the largest and rarest kinds first while there is most choice."""
    rarity = np.where(plan.kinds > 0, plan.totals, plan.totals.sum()).min(axis=1)
    for kind in np.lexsort((rarity, -plan.sizes)).tolist():
        while plan.unplaced[kind]:
            plan.place(kind, _choose_part(plan, plan.kinds[kind], fractions))


def _choose_part(plan: _Plan, group: Ints, fractions: Floats) -> int:
    """Choose a part that misses the group's findings: first one that has none of them, then the one furthest behind."""
    wanted = _steady(plan.deficits @ group) > 0
    placed = fractions[:, None] * plan.totals - plan.deficits
    lacks = (placed[:, group > 0] < 0.5).any(axis=1)
    behind = _steady(plan.deficits.sum(axis=1) / fractions)
    merits = np.stack([wanted, lacks, behind], axis=1).tolist()
    return max(range(len(merits)), key=merits.__getitem__)


def _even_out(plan: _Plan) -> None:
    """Move groups from the fullest to the emptiest part while that helps and a part is off by a smallest group or more.

    Each move makes the sum of squared deviations smaller, so this ends; it ends with every part within the largest
    group, since a part further off leaves a move that helps.
    """
    while True:
        missing = _steady(plan.deficits.sum(axis=1))
        full, empty = int(missing.argmin()), int(missing.argmax())
        movable = (plan.table[:, full] > 0) & (plan.sizes < missing[empty] - missing[full])
        if max(missing[empty], -missing[full]) < plan.sizes.min() or not movable.any():
            return
        imbalance = (plan.deficits[full] + plan.kinds) ** 2 + (plan.deficits[empty] - plan.kinds) ** 2
        cost = _steady((imbalance / plan.totals).sum(axis=1))
        kind = int(np.where(movable, cost, np.inf).argmin())
        plan.place(kind, full, -1)
        plan.place(kind, empty)


def _draw(table: Ints, kind_of_group: Ints, rng: np.random.Generator) -> Ints:
    """Give the groups of each kind, in random order, to the parts by the numbers in the table."""
    order = np.lexsort((rng.random(len(kind_of_group)), kind_of_group))
    parts = np.repeat(np.tile(np.arange(table.shape[1]), len(table)), table.ravel())
    drawn = np.empty(len(order), dtype=np.int64)
    drawn[order] = parts
    return drawn


def _steady(values: Floats) -> Floats:
    """Round, so that the last bits, which differ between machines, decide nothing."""
    return np.round(values, 6)
