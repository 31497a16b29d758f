"""The table of predictions that every evaluation starts from. Knows nothing of torch or of how a model was trained.

Columns: sample_id, patient_id, study_id, run, fold, split, target, logit_0 ..., prob_0 ..., then the subgroup columns
that the samples have. Class names stand in a sidecar, ``predictions_test.classes.json`` for ``predictions_test.csv``.
"""

import csv
import json
import os
import re
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cxr.data.owner_lists import guard_formulas, unguard_formulas
from cxr.errors import DataError
from cxr.scaling import UNSCALED, Scaling

IDENTITY = ("sample_id", "patient_id", "study_id", "run", "fold", "split", "target")
SUBGROUPS = ("sex", "age", "view_position", "manufacturer", "source")
SUM_TOLERANCE = 1e-3
_TEXT = ("sample_id", "patient_id", "study_id", "run", "split", "sex", "view_position", "manufacturer", "source")


def make_predictions(
    samples: pd.DataFrame,
    logits: ArrayLike,
    class_names: list[str],
    split: str,
    run: str,
    fold: int | None = None,
    scaling: Scaling = UNSCALED,
) -> pd.DataFrame:
    """The predictions table of one model on the rows of a samples table.

    Args:
        samples: N rows with sample_id and label, and where known patient_id, study_id, sex, age, view_position,
            manufacturer and source. Ids are taken as they are: hash them before if they must not leave the house.
        logits: (N, K), row by row those of `samples`.
        class_names: The K names in order.
        split: Name of the part of the split: train, val or test.
        run: Name of the run that made the logits.
        fold: Fold of a cross-validation.
        scaling: Makes probabilities of logits.

    Returns:
        N rows with the columns above; what is not known is null.

    Raises:
        DataError: Logits that do not fit the rows or are not finite, or a table that `check_predictions` refuses.
    """
    logits = np.asarray(logits, dtype=np.float64)
    wanted = (len(samples), len(class_names))
    if logits.shape != wanted:
        raise DataError(f"expected logits of shape {wanted}, got {logits.shape}; one row per sample is needed")
    identity = {
        "sample_id": samples["sample_id"].to_numpy(),
        "patient_id": _column_or_null(samples, "patient_id"),
        "study_id": _column_or_null(samples, "study_id"),
        "run": run,
        "fold": pd.array([fold] * len(samples), dtype="Int64"),
        "split": split,
        "target": samples["label"].to_numpy(dtype=np.int64),
    }
    scores = {f"logit_{k}": logits[:, k] for k in range(len(class_names))}
    with np.errstate(invalid="ignore"):  # NaN and infinity are named with their rows by check_predictions
        probs = scaling.to_probs(logits)
    scores |= {f"prob_{k}": column for k, column in enumerate(probs.T)}
    subgroups = {name: samples[name].to_numpy() for name in SUBGROUPS if name in samples}
    predictions = typed(pd.DataFrame({**identity, **scores, **subgroups}))
    check_predictions(predictions, class_names)
    return predictions


def check_predictions(predictions: pd.DataFrame, class_names: list[str]) -> None:
    """Refuse a table that would give wrong numbers.

    Args:
        predictions: The table.
        class_names: The K names in order.

    Raises:
        DataError: Columns missing, class names that do not fit the columns, values that are no numbers, a target that
            is no class, probabilities that do not sum to 1 (within 0.001, for tables that were rounded), or the same
            sample twice in one run and fold.
    """
    _check_class_names(class_names, sum(_is_score(name, "prob") for name in predictions))
    num_classes = len(class_names)
    scores = _score_names("prob", num_classes) + _score_names("logit", num_classes)
    missing = [name for name in (*IDENTITY, *scores) if name not in predictions]
    if missing:
        raise DataError(f"expected a predictions table with the columns {missing}, got none of these; add them")
    for name in (*scores, "target"):
        finite = np.isfinite(_numbers(predictions[name]))
        _check_rows(predictions, finite, f"a finite number in {name}", "remove or mend these rows")
    folds = _numbers(predictions["fold"])
    whole = predictions["fold"].isna().to_numpy() | (folds % 1 == 0)
    _check_rows(predictions, whole, "a whole number or nothing in fold", "number the folds")
    known = np.isin(_numbers(predictions["target"]), np.arange(num_classes))
    _check_rows(predictions, known, f"a target from 0 to {num_classes - 1}", "number the classes as in the sidecar")
    probs = predictions[_score_names("prob", num_classes)].to_numpy(dtype=np.float64)
    valid = (probs >= 0).all(axis=1) & (np.abs(probs.sum(axis=1) - 1) <= SUM_TOLERANCE)
    _check_rows(predictions, valid, "probabilities from 0 that sum to 1", "give the outputs of a softmax")
    once = ~predictions.duplicated(["run", "fold", "sample_id"]).to_numpy()
    _check_rows(predictions, once, "each sample once in a run and fold", "drop the repeats or name the runs apart")


def has_studies(predictions: pd.DataFrame) -> bool:
    """Whether there is a study of several images, and `aggregate_by_study` takes all of them: no study is divided."""
    studies = predictions.dropna(subset=["study_id"]).groupby(["run", "fold", "split", "study_id"], dropna=False)
    alike = (studies[["target", "patient_id"]].nunique() <= 1).all(axis=None)
    return bool((studies.size() > 1).any() and alike)


def aggregate_by_study(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per study (of a run, fold and part): the mean of its images' probabilities.

    The logits of a study are the logarithms of its mean probabilities, so that their softmax gives these back. A
    subgroup column is kept where all images of the study agree, else null. An image without a study id stands alone.

    Args:
        predictions: A table of `make_predictions` or `read_predictions`.

    Returns:
        A table of the same columns, in the order in which the studies first appear; the sample_id of a study is its
        study_id.

    Raises:
        DataError: Images of one study with different targets or patients.
    """
    lone = predictions["sample_id"].where(predictions["study_id"].isna(), "")
    keys = ["run", "fold", "split", "study_id", "_lone"]
    grouped = predictions.assign(_lone=lone).groupby(keys, dropna=False, sort=False)
    agreeing = grouped.nunique() <= 1
    for name in ("target", "patient_id"):
        _check_one_per_study(agreeing[name], name)
    studies = grouped.first()
    for k in range(sum(_is_score(name, "prob") for name in predictions)):
        studies[f"prob_{k}"] = grouped[f"prob_{k}"].mean()
        studies[f"logit_{k}"] = np.log(np.maximum(studies[f"prob_{k}"], np.finfo(np.float64).tiny))
    subgroups = [str(name) for name in agreeing if name not in IDENTITY and not _is_score(name)]
    studies[subgroups] = studies[subgroups].where(agreeing[subgroups])
    studies = studies.reset_index()
    studies["sample_id"] = studies["study_id"].fillna(studies["sample_id"])
    return typed(studies[list(predictions.columns)])


def write_predictions(predictions: pd.DataFrame, class_names: list[str], path: Path) -> None:
    """Write the table and the sidecar of its class names; each file appears whole or not at all.

    Numbers are written with every digit that float64 has. Text that a spreadsheet would take for a formula gets an
    apostrophe in front, which `read_predictions` takes off again.

    Args:
        predictions: A table that `check_predictions` accepts.
        class_names: The K names in order.
        path: The CSV file to write; its folder exists.

    Raises:
        DataError: The table is refused.
    """
    check_predictions(predictions, class_names)
    safe = guard_formulas(predictions)
    _replace(classes_path(path), json.dumps(class_names, ensure_ascii=False, indent=2) + "\n")
    _replace(path, safe.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n"))


def read_predictions(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read what `write_predictions` wrote, or a table of the same columns made elsewhere.

    Args:
        path: The CSV file; its sidecar lies beside it.

    Returns:
        (table, class names).

    Raises:
        DataError: A file is missing or unreadable, or `check_predictions` refuses the table.
    """
    class_names = read_class_names(classes_path(path))
    table = read_cells(path)
    check_predictions(table, class_names)
    return typed(table), class_names


def read_cells(path: Path) -> pd.DataFrame:
    """The cells of a CSV table, ids as text, no column asked for.

    Raises:
        DataError: The file is missing or no CSV table, or two columns have one name.
    """
    try:
        header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]
        table = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise DataError(f"expected a predictions table at {path}, got no such file; give its path") from None
    except (ValueError, OSError) as error:
        raise DataError(f"expected a CSV table in {path}, got {_one_line(error)}; export it again in UTF-8") from error
    if len(header) == 1 and re.search(r"[;\t]", header[0]):
        raise DataError(f"expected columns divided by commas in {path}, got {header[0][:80]!r}; export it again so")
    if twice := sorted(set(header[header.duplicated() & (header != "")])):
        raise DataError(f"expected different columns in {path}, got {twice} more than once; name each once")
    return unguard_formulas(table)


def classes_path(path: Path) -> Path:
    """Where the class names of the table at `path` stand."""
    return path.with_suffix(".classes.json")


def read_class_names(path: Path) -> list[str]:
    """The class names that stand in a sidecar.

    Raises:
        DataError: The file is missing or no JSON list of names.
    """
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"expected class names in {path}, got no such file; write a JSON list of them") from None
    except (ValueError, OSError) as error:
        raise DataError(f"expected a JSON list in {path}, got {_one_line(error)}; write the names in order") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"expected a JSON list of names in {path}, got {str(names)[:80]!r}; write the names in order")
    return names


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Text as nullable text, fold as nullable integer and target as integer, however the table came about."""
    kinds = {name: "string" for name in _TEXT if name in table} | {"fold": "Int64", "target": "int64"}
    return table.astype(kinds)


def _score_names(kind: str, num_classes: int) -> list[str]:
    return [f"{kind}_{k}" for k in range(num_classes)]


def _is_score(name: Hashable, kind: str = "logit|prob") -> bool:
    return re.fullmatch(rf"({kind})_\d+", str(name)) is not None


def _column_or_null(samples: pd.DataFrame, name: str) -> object:
    return samples[name].to_numpy() if name in samples else None


def _numbers(column: "pd.Series[float]") -> np.ndarray:
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _check_class_names(class_names: list[str], num_columns: int) -> None:
    if len(class_names) < 2 or len(set(class_names)) != len(class_names):
        raise DataError(f"expected two or more different class names, got {class_names}; name each class once")
    if len(class_names) != num_columns:
        got = f"{num_columns} such columns and the classes {class_names}"
        raise DataError(f"expected one prob_ column for each class, got {got}; make the two match")


def _check_rows(predictions: pd.DataFrame, right: np.ndarray, expected: str, remedy: str) -> None:
    if not right.all():
        first = predictions.loc[~right, "sample_id"].head(5).tolist()
        raise DataError(f"expected {expected}, got {int((~right).sum())} rows without, first {first}; {remedy}")


def _check_one_per_study(agreeing: "pd.Series[bool]", name: str) -> None:
    if not agreeing.all():
        studies = agreeing.index[~agreeing].get_level_values("study_id")[:5].tolist()
        raise DataError(f"expected one {name} per study, got several in {studies}; mend the labels or the study ids")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def target_and_probs(predictions: pd.DataFrame, kind: str = "prob") -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Targets (N,), and probabilities (N, K) or, by ``kind='logit'``, logits, in the order of the classes."""
    columns = [name for name in predictions if re.fullmatch(rf"{kind}_\d+", str(name))]
    ordered = [f"{kind}_{k}" for k in range(len(columns))]
    return predictions["target"].to_numpy(np.int64), predictions[ordered].to_numpy(np.float64)
