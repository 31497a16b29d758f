"""CSV tables that name files or carry texts from elsewhere, safe to open in a spreadsheet; for the data's owner.

Knows nothing of what the tables list.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from cxr.data.formulas import guard, unguard
from cxr.errors import DataError


def guard_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before every text and column name that a spreadsheet would take for a formula."""
    return _map_text(table, guard)


def unguard_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table that `guard_formulas` was given."""
    return _map_text(table, unguard)


def write_list(table: pd.DataFrame, folder: Path, name: str) -> Path:
    """Write a table that names files, guarded; another table of the same name gets another file.

    Args:
        table: What to list.
        folder: Where; made if there is none. Not a run folder, since paths may hold ids.
        name: What the file's name begins with.

    Returns:
        The file.

    Raises:
        DataError: The folder cannot be written.
    """
    text = guard_formulas(table).to_csv(index=False)
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.csv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"cannot write the list of {name} to {path}: {error}; make room or choose another paths.cache_dir"
        ) from error
    return path


def _map_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Apply `change` to every text cell and every column name."""
    mapped = table.map(lambda cell: change(cell) if isinstance(cell, str) else cell)
    return mapped.rename(columns=lambda name: change(str(name)))
