"""Pulmonary vessels as straight strokes in cm, grown from the hila. Knows nothing of pixels."""

import numpy as np

from cxr.data.phantoms.anatomy import SIDES, Chest
from cxr.data.phantoms.drawing import Points

_TRUNKS = 7
_GENERATIONS = 9


def grow_vessels(chest: Chest) -> tuple[Points, Points, Points]:
    """Branching vessels of both lungs, the same for every exposure of a person.

    Returns:
        starts (N, 2), ends (N, 2) and widths (N,), all in cm.
    """
    rng = np.random.default_rng(chest.person.vessel_seed)
    pieces = [_grow_side(chest, side, rng) for side in SIDES]
    starts, ends, widths = (np.concatenate(part) for part in zip(*pieces, strict=True))
    return starts, ends, widths


def _grow_side(chest: Chest, side: int, rng: np.random.Generator) -> tuple[Points, Points, Points]:
    """Trunks fan out from one hilum; at every step each branch bends a little and often forks."""
    x, y = chest.hilum(side)
    angle = np.linspace(-1.25, 1.35, _TRUNKS) + rng.normal(0, 0.12, _TRUNKS)  # 0 points sideways, + downwards
    where = np.tile([x - side * 0.4, y], (_TRUNKS, 1)) + rng.normal(0, 0.5, (_TRUNKS, 2))
    width = chest.person.hilum * rng.uniform(0.6, 0.85, _TRUNKS) * np.where(angle > 0.2, 1.15, 0.85)
    starts, ends, widths = [], [], []
    for _ in range(_GENERATIONS):
        length = rng.uniform(0.7, 1.5, len(width)) * chest.person.height
        step = np.stack([side * np.cos(angle), np.sin(angle)], axis=1) * length[:, None]
        starts.append(where)
        ends.append(where + step)
        widths.append(width)
        forks = rng.random(len(width)) < 0.62
        turn = rng.uniform(0.2, 0.55, len(width))
        narrow = np.where(forks, rng.uniform(0.72, 0.86, len(width)), 0.9)
        where = np.concatenate([where + step, (where + step)[forks]])
        angle, width = (
            np.concatenate([angle + np.where(forks, turn, rng.normal(0, 0.18, len(turn))), (angle - turn)[forks]]),
            np.concatenate([width * narrow, (width * narrow * rng.uniform(0.75, 1.0, len(width)))[forks]]),
        )
        alive = width > 0.07
        where, angle, width = where[alive], angle[alive], width[alive]
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(widths)
