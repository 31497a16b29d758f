"""Columns of a samples table as features: categories, with numbers in eighths and a missing value as one more.

Knows nothing of labels, images or of which columns mean trouble.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.preprocessing import OneHotEncoder

FloatArray = NDArray[np.float64]

METADATA = (
    *("age", "sex", "view_position", "manufacturer", "modality"),
    *("rows", "columns", "bits_stored", "photometric_interpretation", "transfer_syntax"),
)
"""The columns that are looked at when none are named; `source` stands apart."""

ASPECT = "height / width"
_BINS = 8
_FEW = 10
_RARE = 5


def describe_columns(samples: pd.DataFrame, columns: Sequence[str]) -> FloatArray:
    """One indicator for each value of each column; values of fewer than 5 rows share one.

    Args:
        samples: N rows.
        columns: Names of columns of `samples`. With both `rows` and `columns` their ratio is described as well.

    Returns:
        (N, D) of 0 and 1.
    """
    levels = pd.DataFrame({name: _levels(samples[name]) for name in columns})
    if {"rows", "columns"} <= set(columns):
        levels[ASPECT] = _levels((_numbers(samples["rows"]) / _numbers(samples["columns"])).round(2))
    encoder = OneHotEncoder(sparse_output=False, min_frequency=_RARE, handle_unknown="infrequent_if_exist")
    return np.asarray(encoder.fit_transform(levels), dtype=np.float64)


def code_levels(column: pd.Series) -> tuple[NDArray[np.int64], list[str]]:
    """Number the values of a column as `describe_columns` sees them: (N,) codes and the value of each."""
    codes, levels = pd.factorize(_levels(column), sort=True)
    return codes.astype(np.int64), [str(level) for level in levels]


def _levels(column: pd.Series) -> "pd.Series[str]":
    """Text of each value; more than 10 different numbers become eighths by rank, so that equal ones stay together."""
    numbers = _numbers(column)
    is_numeric = numbers.notna().any() and bool((numbers.notna() == column.notna()).all())
    if not is_numeric or numbers.nunique() <= _FEW:
        return column.astype("str").where(column.notna(), "missing")
    eighths = (numbers.rank(pct=True) * _BINS).round(6).map(math.ceil, na_action="ignore")
    return eighths.astype("str").where(numbers.notna(), "missing")


def _numbers(column: pd.Series) -> "pd.Series[float]":
    return pd.to_numeric(column, errors="coerce").astype("float64")
