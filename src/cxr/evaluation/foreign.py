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
            class, in any order; of two classes that of the second is enough. Ids, logits and subgroups are taken where
            they are there: without patient ids each row is a patient of its own, and without a logit for each class
            these are logarithms of the probabilities. Other columns of scores are left out.
        class_names: The names in order; None takes the sidecar of the table, else the names of its columns.
        split: Part that the table is, where it does not say.

    Returns:
        (table as `read_predictions` gives it, class names).

    Raises:
        DataError: The file is missing, or `check_predictions` refuses what is in it.
    """
    cells = read_cells(path)
    if cells.empty:
        raise DataError(f"expected at least one row in {path}, got none; give the predictions of a part that has rows")
    names = list(class_names) if class_names is not None else _find_names(cells, path)
    scores = _number_scores(cells, names)
    kept = [name for name in cells if not str(name).startswith(("prob_", "logit_")) and name != "target"]
    table = pd.concat([cells[kept], scores], axis=1).assign(target=_number_targets(cells, names))
    defaults = {"sample_id": [f"row {row}" for row in range(len(table))], "run": path.stem, "split": split}
    for column in IDENTITY:
        if column not in table:
            table[column] = defaults.get(column)
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


def _number_scores(cells: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """``prob_<number>`` and ``logit_<number>`` in the order of the classes, wherever and however the table has them."""
    probs = _find_scores(cells, "prob", names)
    if len(names) == 2 and 1 in probs and 0 not in probs:
        probs[0] = 1 - pd.to_numeric(probs[1], errors="coerce")
    if len(probs) < len(names) or "target" not in cells:
        wanted = ["target", *(f"prob_{name}" for name in names)]
        raise DataError(
            f"expected the columns {list_first(wanted)}, got {list_first(list(cells.columns))}; name them so"
        )
    logits = _find_scores(cells, "logit", names)
    if len(logits) < len(names):
        logits = {number: _to_logits(prob) for number, prob in probs.items()}
    named = {"prob": probs, "logit": logits}
    return pd.DataFrame({f"{kind}_{k}": found[k] for kind, found in named.items() for k in range(len(names))})


def _find_scores(cells: pd.DataFrame, kind: str, names: list[str]) -> dict[int, pd.Series]:
    """Class index -> its column."""
    spelling = range(len(names)) if _by_number(cells, names) else names
    return {k: cells[f"{kind}_{told}"] for k, told in enumerate(spelling) if f"{kind}_{told}" in cells}


def _by_number(cells: pd.DataFrame, names: list[str]) -> bool:
    """Whether columns number the classes; names that are numbers themselves are taken for names where all are there."""
    numbered, named = (sum(f"prob_{told}" in cells for told in spelling) for spelling in (range(len(names)), names))
    return numbered > named


def _number_targets(cells: pd.DataFrame, names: list[str]) -> pd.Series:
    """Class indices: of names that of the class; a number is one itself, unless all targets are names of classes."""
    told = cells["target"].map(_to_text, na_action="ignore")
    named, numbers = told.map({name: k for k, name in enumerate(names)}), pd.to_numeric(told, errors="coerce")
    if named.notna().all() and not _by_number(cells, names):
        return named
    strange = told[named.isna() & numbers.isna() & told.notna()].unique()
    if len(strange):
        raise DataError(
            f"expected targets among the classes {list_first(names)}, got {list_first(strange)}; name the classes with "
            "--classes, or leave these rows out"
        )
    return numbers.fillna(named)


def _to_text(value: object) -> str:
    """2.0 as 2, which is how a name that is a whole number is written."""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value).strip()


def _to_logits(probs: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(probs, errors="coerce").to_numpy(dtype=np.float64)
    return pd.Series(np.log(np.maximum(numbers, np.finfo(np.float64).tiny)), index=probs.index)
