"""Every trial in order of its score, and the mixtures at the end: ``leaderboard.csv`` and ``leaderboard.html``.

Knows nothing of how a model came about.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.experiments.sweep_page import tell_duration
from cxr.experiments.sweep_records import replace_file
from cxr.pages import render

FILE, PAGE = "leaderboard.csv", "leaderboard.html"
_TEMPLATE = Path(__file__).with_suffix(".html")

Measured = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        name: Of the trial or mixture.
        family: Its family, or ``mixture``.
        measured: Metric -> value, low and high end, out of fold.
        seconds: What it took; None for a mixture.
        told: Its parameters or members.
    """

    name: str
    family: str
    measured: Measured
    seconds: float | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


def rank(entries: Sequence[Entry], metric: str) -> pd.DataFrame:
    """One row per entry, the best first; where equal the quicker, and a mixture of them last."""
    order = sorted(entries, key=lambda one: (-one.measured[metric][0], one.seconds is None, one.seconds))
    return pd.DataFrame([_row(place, entry) for place, entry in enumerate(order, start=1)])


def write_leaderboard(entries: Sequence[Entry], metric: str, failed: Sequence[str], folder: Path, spent: float) -> None:
    """Write both files.

    Args:
        entries: At least one.
        metric: By which they are ranked.
        failed: A line for each trial that came to nothing.
        folder: Where.
        spent: Seconds of all trials.

    Raises:
        DataError: The folder cannot be written.
    """
    table = rank(entries, metric)
    replace_file(folder / FILE, table.to_csv(index=False))
    page = render(
        _TEMPLATE, title=f"Leaderboard: {folder.name}", metric=metric, rows=table.to_dict("records"),
        metrics=list(entries[0].measured), failed=failed, spent=tell_duration(spent),
        families=table.loc[table["family"] != "mixture", "family"].nunique(),
    )  # fmt: skip
    replace_file(folder / PAGE, page)


def _row(place: int, entry: Entry) -> dict[str, Any]:
    numbers = {
        f"{metric}{end}": value
        for metric, values in entry.measured.items()
        for end, value in zip(("", "_low", "_high"), values, strict=True)
    }
    return {
        "rank": place,
        "name": entry.name,
        "family": entry.family,
        **numbers,
        "seconds": None if entry.seconds is None else round(entry.seconds, 2),
        "parameters": json.dumps(dict(entry.told), ensure_ascii=False),
    }
