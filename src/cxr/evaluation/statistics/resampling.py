"""Whole patients drawn with replacement, as weights of rows. Knows nothing of what is measured on them."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cxr.errors import DataError

LEAST_DRAWS = 1000
_CHUNK = 2**19  # weights held at once

Weights = NDArray[np.int32]
IntArray = NDArray[np.int64]


def patient_groups(predictions: pd.DataFrame) -> IntArray:
    """Which rows of a predictions table stand or fall together: those of one patient.

    Args:
        predictions: N rows with patient_id and study_id, where null ones are allowed.

    Returns:
        (N,) numbers from 0. A row without a patient is grouped by its study, and without a study stands alone.
    """
    keys = pd.DataFrame({"patient": predictions["patient_id"], "study": predictions["study_id"]})
    keys["study"] = keys["study"].where(keys["patient"].isna())
    keys["row"] = np.where(keys.isna().all(axis=1), np.arange(len(keys)), -1)
    return np.asarray(keys.groupby(list(keys), dropna=False, sort=False).ngroup(), dtype=np.int64)


def number_groups(groups: ArrayLike, rows: int) -> IntArray:
    """Number the groups of rows from 0 in the order in which they first appear.

    Args:
        groups: (rows,) ids of patients.
        rows: How many there must be.

    Raises:
        DataError: Another number of ids, or an id that is missing.
    """
    values = np.asarray(groups)
    if values.shape != (rows,):
        raise DataError(f"expected one group for each of {rows} rows, got shape {values.shape}; pass matching rows")
    numbers, _ = pd.factorize(values)
    if (numbers < 0).any():
        missing = int((numbers < 0).sum())
        raise DataError(f"expected a group for every row, got none in {missing} rows; let such rows stand alone")
    return numbers.astype(np.int64)


def draw_weights(groups: IntArray, draws: int, seed: int) -> Iterator[Weights]:
    """How often each row is in each bootstrap sample, a few samples at a time.

    A sample draws as many groups as there are, with replacement, and takes all rows of each (the cluster bootstrap:
    Davison and Hinkley 1997, section 3.8). The same groups and seed give the same samples, so what two models make
    of them is paired.

    Args:
        groups: (N,) numbers from 0, as of `number_groups`.
        draws: Samples in all.
        seed: Of the draws.

    Yields:
        (N, B) whole numbers, one column for each sample; B sums to `draws`.

    Raises:
        DataError: Fewer than `LEAST_DRAWS` draws.
    """
    if draws < LEAST_DRAWS:
        raise DataError(f"expected at least {LEAST_DRAWS} bootstrap draws, got {draws}; fewer give shaky intervals")
    rng = np.random.default_rng(seed)
    size = int(groups.max()) + 1
    together = max(16, _CHUNK // len(groups))
    for start in range(0, draws, together):
        number = min(together, draws - start)
        drawn = rng.integers(size, size=(number, size)) + size * np.arange(number)[:, None]
        times = np.bincount(drawn.ravel(), minlength=number * size).reshape(number, size)
        yield np.ascontiguousarray(times.T, dtype=np.int32)[groups]
