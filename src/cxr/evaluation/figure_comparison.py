"""Models beside each other with their intervals, and their differences. Knows nothing of how models are compared."""

from collections.abc import Sequence
from itertools import count, groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr.evaluation.compare import Comparison, Result
from cxr.evaluation.drawing import BLUE, INK, MUTED, VERMILLION, make_figure, set_title, style_axes, wrap

ROW = 0.27  # inches


def plot_comparison(comparison: Comparison) -> Figure:
    """A forest plot: each model's metric with its interval, and beside it the difference to the reference with its own.

    A value without an interval is a dot without a line; what could not be measured has no dot. The reference, which has
    no difference, is an open dot.

    Args:
        comparison: Of `compare`.
    """
    metrics = list(dict.fromkeys(result.metric for result in comparison.results))
    results = sorted(comparison.results, key=lambda result: metrics.index(result.metric))
    rows = len(results) + len(metrics)
    figure = make_figure(9.0, ROW * rows + 1.1)
    values, differences = figure.subplots(1, 2, sharey=True)
    for ax, title in ((values, "Value"), (differences, "Difference to the reference")):
        style_axes(ax)
        ax.grid(visible=False, axis="y")
        set_title(ax, title)
    differences.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for place, result in _place(values, results):
        colour = MUTED if result.difference is None else BLUE
        _draw(values, place, result.value.value, (result.value.low, result.value.high), colour)
        if result.difference is not None:
            ends = (result.difference.low, result.difference.high)
            _draw(differences, place, result.difference.value, ends, VERMILLION if _excludes_zero(ends) else BLUE)
    values.set_ylim(rows - 0.4, -0.6)
    note = "With 95% intervals; the open grey dot is the reference. Differences whose interval leaves out 0 are orange."
    figure.supxlabel(note, x=0.01, ha="left", fontsize=8.5, color=MUTED)
    return figure


def _place(ax: Axes, results: Sequence[Result]) -> list[tuple[int, Result]]:
    """The row of each result, named at the left, under the row that names its metric."""
    rows, placed, names = count(), [], {}
    for metric, group in groupby(results, key=lambda result: result.metric):
        title = metric.replace("auroc", "AUROC").replace("_", " ")
        bold: dict[str, Any] = {"fontweight": "bold", "fontsize": 9.5, "color": INK, "ha": "right", "va": "center"}
        ax.annotate(title[0].upper() + title[1:], (0, next(rows)), xycoords=("axes fraction", "data"),
                    xytext=(-8, 0), textcoords="offset points", **bold)  # fmt: skip
        for result in group:
            place = next(rows)
            placed.append((place, result))
            names[place] = wrap(result.recipe, 40)
    ax.set_yticks(list(names), list(names.values()))
    return placed


def _draw(ax: Axes, place: int, value: float, ends: tuple[float, float], colour: str) -> None:
    ax.plot(ends, (place, place), color=colour, linewidth=1.8, solid_capstyle="butt")
    face = "white" if colour == MUTED else colour
    ax.plot(value, place, "o", markersize=6, markeredgecolor=colour, markerfacecolor=face, markeredgewidth=1.5)


def _excludes_zero(ends: tuple[float, float]) -> bool:
    return bool(np.sign(ends[0]) * np.sign(ends[1]) > 0)
