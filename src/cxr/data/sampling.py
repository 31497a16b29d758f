"""How many samples of each class are used: a subset of a cohort, and the order of one epoch.

Knows nothing of files, images or the training loop. Everything is a function of the seed (and the epoch).
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr.data.samples import list_first
from cxr.data.splits import groups_of
from cxr.errors import ConfigError, DataError

SAMPLER_MODES = ("none", "downsample", "oversample", "weighted")
Ints = npt.NDArray[np.int64]


def take_limit(samples: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """Take `limit` samples: classes and, in them, findings in proportion (within official parts), patient by patient.

    A smaller limit with the same seed gives a subset of a larger one. In a finding at most one patient is cut short.

    Args:
        samples: A table of the gate; a multi-label one is taken by finding alone.
        limit: Number of samples, 1 to len(samples).
        seed: Decides which patients are taken.

    Returns:
        The chosen rows, in order.

    Raises:
        DataError: More samples are wanted than there are, or fewer than one.
    """
    if not 1 <= limit <= len(samples):
        raise DataError(
            f"expected data.limit from 1 to the {len(samples)} samples there are, but got {limit}; "
            "lower it, or set it to null for all"
        )
    turns = _take_turns(samples, seed)
    first = (_spread(turns, "label") if "label" in turns else turns).index[:limit]
    return samples[samples.index.isin(first)]


def balance(samples: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Take equally many samples of every class, as many as the rarest has, its findings in their own proportion.

    Args:
        samples: A table of the gate.
        seed: Decides which patients are taken.

    Returns:
        The chosen rows, in order.
    """
    labels = _take_turns(samples, seed)["label"]
    position = labels.groupby(labels).cumcount()
    return samples[samples.index.isin(labels.index[position < labels.value_counts().min()])]


def epoch_order(labels: npt.NDArray[np.integer], mode: str, seed: int, epoch: int) -> Ints:
    """Make the keys of one epoch; `key % n` is the row and `key // n` says how often it was drawn before.

    'none' takes every row once; 'downsample' as many rows of every class as the rarest has, others each epoch;
    'oversample' all rows, and rarer ones again until every class has as many as the commonest; 'weighted' n rows with
    replacement, every class equally likely.

    Args:
        labels: (n,) class of each row of the training part.
        mode: One of the four.
        seed: The one seed.
        epoch: Number of the epoch.

    Returns:
        int64 keys in random order, all different, so that a repeated sample can be augmented differently.

    Raises:
        ConfigError: Unknown mode.
        DataError: There are no rows.
    """
    if mode not in SAMPLER_MODES:
        raise ConfigError(f"expected the sampler to be one of {list_first(SAMPLER_MODES)}, but got {mode!r}")
    if len(labels) == 0:
        raise DataError("expected samples to draw an epoch from, but there are none; check the split and data.limit")
    rng = np.random.default_rng([seed, epoch])
    rows = np.sort(_draw_rows(labels, mode, rng))
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    occurrence = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
    keys = rows + occurrence * len(labels)
    return rng.permutation(keys)


def _draw_rows(labels: npt.NDArray[np.integer], mode: str, rng: np.random.Generator) -> Ints:
    if mode == "none":
        return np.arange(len(labels))
    _, class_of_row, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if mode == "weighted":
        chances = 1 / (len(sizes) * sizes[class_of_row])
        return rng.choice(len(labels), size=len(labels), p=chances / chances.sum())
    members = [np.flatnonzero(class_of_row == index) for index in range(len(sizes))]
    if mode == "downsample":
        return np.concatenate([rng.choice(rows, size=sizes.min(), replace=False) for rows in members])
    return np.concatenate([_repeat_rows(rows, sizes.max(), rng) for rows in members])


def _repeat_rows(rows: Ints, total: int, rng: np.random.Generator) -> Ints:
    """Take all rows as often as they fit into the total, and a random part of them once more."""
    times, rest = divmod(total, len(rows))
    return np.concatenate([np.tile(rows, times), rng.choice(rows, size=rest, replace=False)])


def _take_turns(samples: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Order the rows patient by patient, patients at random, with the findings spread evenly."""
    ordered = samples.sort_values("sample_id")
    groups, _ = pd.factorize(groups_of(ordered))
    turns = np.random.default_rng(seed).permutation(groups.max() + 1)[groups]
    return _spread(ordered.iloc[np.argsort(turns, kind="stable")], "finding")


def _spread(ordered: pd.DataFrame, column: str) -> pd.DataFrame:
    """Reorder the rows so that every beginning of the table has each value, within each official part, in proportion.

    Rows of one value keep their order.
    """
    keys = [ordered[column], ordered["split"].fillna("train")] if "split" in ordered else [ordered[column]]
    strata = ordered.groupby(keys).ngroup()
    ranks = (strata.groupby(strata).cumcount() + 0.5) / strata.map(strata.value_counts())
    return ordered.loc[ranks.sort_values(kind="stable").index]
