"""How well classes can be told apart by something, measured so that chance cannot pass for it.

Works on independent rows, one per patient: scores come from a ridge classifier that has not seen the row, AUROC counts
pairs of rows of one cell (a fold; where asked, also one stratum), and the p-value repeats the whole fit with the
targets of each cell shuffled. Knows nothing of images, tables or verdicts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.linear_model import Ridge
from sklearn.model_selection import StratifiedKFold

from cxr.evaluation.statistics.intervals import CONFIDENCE, auroc_interval

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
Shuffled = NDArray[np.int16]

FOLDS = 5
PERMUTATIONS = 999
_CHUNK = 5 * 10**6  # scores held at once
_TINY = 1e-9
_DIGITS = 6  # equal rows get equal scores, whatever their place in a matrix product


@dataclass(frozen=True)
class Separation:
    """How well K classes were told apart.

    Attributes:
        auroc: Mean over the classes of the AUROC of each against the rest; with two classes that of either.
        interval: Its 95% interval.
        by_class: (K,) AUROC of each class against the rest.
        strongest: The class with the largest; 1 with two classes.
        strongest_interval: The 95% interval of its AUROC, for this class alone.
        p_value: Chance that the largest AUROC is as large as this with shuffled targets.
        chance: The central 95% of `auroc` with shuffled targets.
        strongest_chance: The central 95% of the largest AUROC with shuffled targets.
        patients: Rows measured.
    """

    auroc: float
    interval: tuple[float, float]
    by_class: tuple[float, ...]
    strongest: int
    strongest_interval: tuple[float, float]
    p_value: float
    chance: tuple[float, float]
    strongest_chance: tuple[float, float]
    patients: int


def separate_by_features(
    features: FloatArray,
    target: IntArray,
    *,
    penalty: float,
    strata: IntArray | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Separation:
    """Learn the classes from features, in stratified folds.

    Args:
        features: (N, D) float64, or float32 where equal rows do not matter: about twice as fast.
        target: (N,) classes 0 to K-1, each with at least `FOLDS` rows; the rows are independent.
        penalty: Of the ridge regression onto the indicator of each class.
        strata: (N,) whole numbers; only rows of one stratum are compared and shuffled. None is one stratum.
        permutations: Shuffles behind the p-value, whose least value is 1 / (permutations + 1).
        seed: Of folds and shuffles.
    """
    rng = np.random.default_rng(seed)
    folds = _make_folds(target, seed)
    cells = folds if strata is None else np.unique(folds + FOLDS * strata, return_inverse=True)[1]
    found = [
        _pair_shares(_score_out_of_fold(features, chunk, folds, penalty), chunk, cells)
        for chunk in _chunks(_shuffle(target, cells, permutations, rng))
    ]
    return _summarise(np.concatenate(found), target, cells)


def separate_by_scores(
    scores: FloatArray, target: IntArray, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> Separation:
    """Compare given scores with the classes; nothing is learnt.

    Args:
        scores: (N, K), larger where the class is more likely.
        target: (N,) classes 0 to K-1; the rows are independent and had no part in making the scores.
        permutations: As in `separate_by_features`.
        seed: Of the shuffles.
    """
    cells = np.zeros(len(target), dtype=np.int64)
    shuffled = _shuffle(target, cells, permutations, np.random.default_rng(seed))
    columns = scores[None, :, _columns(target)]
    found = [_pair_shares(columns, chunk, cells) for chunk in _chunks(shuffled)]
    return _summarise(np.concatenate(found), target, cells)


def auroc_by_class(features: FloatArray, target: IntArray, *, penalty: float, seed: int = 0) -> tuple[float, ...]:
    """`Separation.by_class` of `separate_by_features`, alone."""
    folds, own = _make_folds(target, seed), target[None]
    found = _pair_shares(_score_out_of_fold(features, own, folds, penalty), own, folds)[0]
    return _for_each_class(found)


def _make_folds(target: IntArray, seed: int) -> IntArray:
    folds = np.empty(len(target), dtype=np.int64)
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for fold, (_, test) in enumerate(splitter.split(target, target)):
        folds[test] = fold
    return folds


def _shuffle(target: IntArray, cells: IntArray, times: int, rng: np.random.Generator) -> Shuffled:
    """(times + 1, N): the targets as they are, then shuffled within cells."""
    shuffled = np.tile(target.astype(np.int16), (times + 1, 1))
    for cell in np.unique(cells):
        rows = np.flatnonzero(cells == cell)
        shuffled[1:, rows] = rng.permuted(shuffled[1:, rows], axis=1)
    return shuffled


def _chunks(targets: Shuffled) -> list[Shuffled]:
    """Parts of (P, N) targets whose scores fit into memory together."""
    size = max(1, _CHUNK // (targets.shape[1] * len(_columns(targets[0]))))
    return np.split(targets, range(size, len(targets), size))


def _columns(target: IntArray | Shuffled) -> list[int]:
    """The classes to measure: with two, the AUROC of one is that of the other."""
    classes = int(target.max()) + 1
    return [1] if classes == 2 else list(range(classes))


def _score_out_of_fold(
    features: FloatArray, targets: IntArray | Shuffled, folds: IntArray, penalty: float
) -> FloatArray:
    """(P, N, C) scores for (P, N) targets: every shuffle is one more output of the same regressions."""
    indicators = (targets.T[:, :, None] == np.array(_columns(targets[0]))).astype(features.dtype)
    flat = indicators.reshape(len(folds), -1)
    scores = np.empty_like(flat)
    for fold in range(FOLDS):
        test = folds == fold
        model = Ridge(alpha=penalty).fit(features[~test], flat[~test])
        scores[test] = model.predict(features[test]).reshape(int(test.sum()), -1)
    return np.round(scores, _DIGITS).reshape(indicators.shape).transpose(1, 0, 2)


def _pair_shares(scores: FloatArray, targets: IntArray | Shuffled, cells: IntArray) -> FloatArray:
    """(P, C) for (P or 1, N, C) scores: of the pairs of one cell and two classes, the share that is ordered rightly."""
    columns = _columns(targets[0])
    right, pairs = np.zeros((len(targets), len(columns))), np.zeros(len(columns))
    for cell in np.unique(cells):
        rows = np.flatnonzero(cells == cell)
        ranks = rankdata(scores[:, rows], axis=1)
        for place, column in enumerate(columns):
            positive = targets[:, rows] == column
            count = int(positive[0].sum())
            right[:, place] += (ranks[:, :, place] * positive).sum(axis=1) - count * (count + 1) / 2
            pairs[place] += count * (len(rows) - count)
    return np.divide(right, pairs, out=np.full_like(right, 0.5), where=pairs > 0)


def _summarise(found: FloatArray, target: IntArray, cells: IntArray) -> Separation:
    """From the AUROCs of (1 + permutations) targets, the first of which are the true ones."""
    columns = _columns(target)
    intervals = [
        auroc_interval(float(value), *_comparable(target == column, cells))
        for value, column in zip(found[0], columns, strict=True)
    ]
    largest, place = found.max(axis=1), int(found[0].argmax())
    low, high = np.mean(intervals, axis=0)
    return Separation(
        auroc=float(found[0].mean()),
        interval=(float(low), float(high)),
        by_class=_for_each_class(found[0]),
        strongest=columns[place],
        strongest_interval=intervals[place],
        p_value=float((largest >= largest[0] - _TINY).mean()),
        chance=_central(found[1:].mean(axis=1)),
        strongest_chance=_central(largest[1:]),
        patients=len(target),
    )


def _central(values: FloatArray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _for_each_class(found: FloatArray) -> tuple[float, ...]:
    return tuple(found.tolist()) * (2 if len(found) == 1 else 1)


def _comparable(positive: NDArray[np.bool_], cells: IntArray) -> tuple[int, int]:
    """Positive and negative rows in cells that have both."""
    counts = np.stack([np.bincount(cells, positive), np.bincount(cells, ~positive)])
    both = counts[:, (counts > 0).all(axis=0)].sum(axis=1)
    return max(int(both[0]), 1), max(int(both[1]), 1)
