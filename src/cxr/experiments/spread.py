"""One number per run -> mean, spread, interval and a table. Knows nothing of where the numbers come from."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table
from scipy import stats

from cxr.evaluation.statistics.bootstrap import metric_range
from cxr.experiments.sweep_records import replace_file
from cxr.training.summary import HEADLINES

CONFIDENCE = 0.95
COLUMNS = ("runs", "mean", "sd", "low", "high", "min", "max")


@dataclass(frozen=True)
class Summary:
    """What the runs of a plan show together.

    Attributes:
        values: One row per run, one column per test metric; NaN where it is not defined.
        table: One row per metric with `COLUMNS`; for folds also `pooled`.
        notes: What the interval is and is not, in sentences.
    """

    values: pd.DataFrame
    table: pd.DataFrame
    notes: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write ``summary.csv`` (one row per metric), ``runs.csv`` (one row per run) and ``summary.json`` (both).

        Raises:
            DataError: The folder cannot be written.
        """
        replace_file(folder / "summary.csv", self.table.to_csv(index_label="metric"))
        replace_file(folder / "runs.csv", self.values.to_csv(index_label="run"))
        told = {
            "notes": list(self.notes),
            "metrics": _records(self.table),
            "runs": _records(self.values),
        }
        replace_file(folder / "summary.json", json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def to_table(self) -> Table:
        """The headline metrics for the terminal."""
        shown = [f"test/{name}" for name in HEADLINES if f"test/{name}" in self.table.index]
        table = Table(title=f"test, {len(self.values)} runs", title_justify="left")
        table.add_column("metric")
        for column in (name for name in self.table if name != "runs"):
            table.add_column(str(column), justify="right")
        for metric in shown:
            cells = self.table.loc[metric].drop("runs", errors="ignore").to_numpy(dtype=np.float64)
            table.add_row(metric.removeprefix("test/"), *("" if math.isnan(cell) else f"{cell:.3f}" for cell in cells))
        return table


def summarize(metrics: Mapping[str, Mapping[str, float | None]], overlap: float, notes: Sequence[str]) -> Summary:
    """Spread of every test metric over the runs; a run in which a metric is not defined is left out of its row.

    Args:
        metrics: Run -> metric -> value, None where it is not defined.
        overlap: See `t_interval`.
        notes: For the reader of the table.
    """
    tested = {
        run: {name: np.nan if value is None else value for name, value in values.items() if name.startswith("test")}
        for run, values in metrics.items()
    }
    table = pd.DataFrame.from_dict(tested, orient="index").astype(np.float64)
    rows = {str(name): _within_range(str(name), spread(column.to_numpy(), overlap)) for name, column in table.items()}
    return Summary(table, pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS)), tuple(notes))


def spread(values: np.ndarray, overlap: float) -> dict[str, float]:
    """Number, mean, standard deviation (n - 1), 95% interval of the mean, least and greatest of the values.

    Args:
        values: (N,) one per run; NaN are left out. What cannot be said of so few is NaN.
        overlap: See `t_interval`.
    """
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return {"runs": 0, **dict.fromkeys(COLUMNS[1:], np.nan)}
    low, high = t_interval(known, overlap)
    return {
        "runs": len(known),
        "mean": float(known.mean()),
        "sd": float(known.std(ddof=1)) if len(known) > 1 else np.nan,
        "low": low,
        "high": high,
        "min": float(known.min()),
        "max": float(known.max()),
    }


def _within_range(name: str, told: dict[str, float]) -> dict[str, float]:
    """The interval cut off at the ends of what the metric can be, which few runs would otherwise leave."""
    least, most = metric_range(name.partition("/")[2])
    return told | {"low": max(told["low"], least), "high": min(told["high"], most)}


def t_interval(values: np.ndarray, overlap: float) -> tuple[float, float]:
    """95% interval of the mean of runs by Student's t, the variance corrected for training data that runs share.

    The variance of the mean is s^2 (1/N + overlap) (Nadeau and Bengio 2003, "Inference for the generalization error",
    Machine Learning 52; for repeated folds Bouckaert and Frank 2004). It is a heuristic: the variance over folds has
    no unbiased estimate (Bengio and Grandvalet 2004, JMLR 5), and without the correction it is far too small.

    Args:
        values: (N,) without NaN.
        overlap: Size of a test part over that of its training part where runs share training data, 1 / (K - 1) for K
            folds; 0 for runs that differ by chance alone.

    Returns:
        (low, high), NaN for fewer than two values, and for equal ones, which do not tell how far they could lie apart.
    """
    if len(values) < 2 or np.ptp(values) == 0:
        return np.nan, np.nan
    width = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1)
    width *= math.sqrt(1 / len(values) + overlap)
    return float(values.mean() - width), float(values.mean() + width)


def _records(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Row -> column -> value, NaN as None."""
    return {
        str(row): {str(name): None if math.isnan(value) else value for name, value in cells.items()}
        for row, cells in table.to_dict(orient="index").items()
    }
