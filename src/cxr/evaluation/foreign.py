"""Tables of predictions made elsewhere: what they leave out is filled in, so that they are evaluated like one's own.

Needed are a target and a probability for each class. Knows nothing of what is made of the table.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.data.samples import list_first
from cxr.errors import DataError
from cxr.evaluation.predictions import IDENTITY, check_predictions, classes_path, read_cells, read_class_names, typed


def read_foreign(path: Path, class_names: Sequence[str] | None, split: str) -> tuple[pd.DataFrame, list[str]]:
    """Read a table from anywhere.

    Args:
        path: A CSV file with `target` (class index or name) and ``prob_<number>`` or ``prob_<class name>`` for each
            class; of two classes that of the second is enough. Ids, logits and subgroups are taken where they are
            there: without patient ids each row is a patient of its own, and logits become logarithms of probabilities.
        class_names: The names in order; None takes the sidecar of the table, else the names of its columns.
        split: Part that the table is, where it does not say.

    Returns:
        (table as `read_predictions` gives it, class names).

    Raises:
        DataError: The file is missing, or `check_predictions` refuses what is in it.
    """
    table = read_cells(path)
    names = list(class_names) if class_names is not None else _find_names(table, path)
    table = _number_scores(table, names)
    table["target"] = _number_targets(table, names)
    defaults = {"sample_id": [f"row {row}" for row in range(len(table))], "run": path.stem, "split": split}
    for column in IDENTITY:
        if column not in table:
            table[column] = defaults.get(column)
    for number in range(len(names)):
        if f"logit_{number}" not in table:
            table[f"logit_{number}"] = _to_logits(table[f"prob_{number}"])
    check_predictions(table, names)
    return typed(table), names


def _find_names(table: pd.DataFrame, path: Path) -> list[str]:
    if classes_path(path).exists():
        return read_class_names(classes_path(path))
    names = [str(column).removeprefix("prob_") for column in table if str(column).startswith("prob_")]
    if len(names) < 2 or all(name.isdigit() for name in names):
        raise DataError(
            f"expected the class names of {path}, got columns {list_first(list(table.columns))}; "
            "name them with --classes, or the columns prob_<class name>"
        )
    return names


def _number_scores(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The table with a column ``prob_<number>`` for each class."""
    table = table.rename(columns={f"prob_{name}": f"prob_{number}" for number, name in enumerate(names)})
    if len(names) == 2 and "prob_1" in table and "prob_0" not in table:
        table["prob_0"] = 1 - pd.to_numeric(table["prob_1"], errors="coerce")
    absent = [f"prob_{name}" for number, name in enumerate(names) if f"prob_{number}" not in table]
    if absent or "target" not in table:
        wanted = ["target", *(f"prob_{name}" for name in names)]
        raise DataError(
            f"expected the columns {list_first(wanted)}, got {list_first(list(table.columns))}; name them so"
        )
    return table


def _number_targets(table: pd.DataFrame, names: list[str]) -> pd.Series:
    """Class indices, where the table has names; what is neither stays for the check to tell."""
    numbers = {name: number for number, name in enumerate(names)}
    return table["target"].map(lambda value: numbers.get(str(value).strip(), value))


def _to_logits(probs: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(probs, errors="coerce").to_numpy(dtype=np.float64)
    return pd.Series(np.log(np.maximum(numbers, np.finfo(np.float64).tiny)), index=probs.index)
