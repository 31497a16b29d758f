"""Which rows of a predictions table are worth a look. Knows nothing of images."""

import numpy as np
import pandas as pd

from cxr.errors import DataError

KINDS = ("errors", "uncertain", "correct")


def choose_rows(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """Choose the most certain errors, the most uncertain cases, and the most certain correct ones, of classes in turn.

    Certainty is the probability of the predicted class. A patient appears once in the whole choice (a row without a
    patient stands for itself), and ties go by `sample_id`, so that the same table gives the same choice.

    Args:
        predictions: Of `make_predictions` or `read_predictions`.
        count: Rows of each kind, as far as there are so many.

    Returns:
        Rows of `predictions` in this order, with `kind` (one of `KINDS`), `prediction` (class index) and `certainty`.

    Raises:
        DataError: `count` is not a positive number.
    """
    if count < 1:
        raise DataError(f"expected 1 or more images of each kind, got {count}; choose a larger number")
    rows = judge(predictions)
    chosen: list[pd.DataFrame] = []
    for kind in KINDS:
        taken = {patient for table in chosen for patient in table["_patient"]}
        ranked = _rank(rows[~rows["_patient"].isin(taken)], kind).drop_duplicates("_patient")
        chosen.append(ranked.head(count).assign(kind=kind))
    return pd.concat(chosen).drop(columns="_patient")


def judge(predictions: pd.DataFrame) -> pd.DataFrame:
    """The table with `prediction`, `certainty` and `_patient`, which is the sample where no patient is known."""
    probs = predictions.filter(regex=r"^prob_\d+$").to_numpy(dtype=np.float64)
    patient = "patient " + predictions["patient_id"].astype("string")
    return predictions.assign(
        prediction=probs.argmax(axis=1),
        certainty=probs.max(axis=1),
        _patient=patient.fillna("sample " + predictions["sample_id"].astype("string")),
    )


def _rank(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of one kind, the first to choose first."""
    right = rows["prediction"] == rows["target"]
    if kind == "uncertain":
        return rows.sort_values(["certainty", "sample_id"])
    ranked = rows[right if kind == "correct" else ~right].sort_values(
        ["certainty", "sample_id"], ascending=[False, True]
    )
    if kind == "errors":
        return ranked
    turn = ranked.drop_duplicates("_patient").groupby("target").cumcount().rename("_turn")
    return ranked.join(turn, how="inner").sort_values(["_turn", "target"], kind="stable").drop(columns="_turn")
