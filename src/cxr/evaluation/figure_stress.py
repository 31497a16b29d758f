"""A model's metric under changes to its images. Knows nothing of how it was measured."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cxr.evaluation.drawing import BLUE, MUTED, escape, make_figure, set_title, style_axes

NAMES = {"auroc": "AUROC", "balanced_accuracy": "Balanced accuracy"}


def plot_stress(table: pd.DataFrame, metric: str) -> Figure:
    """Each change's metric with its interval; the metric without change as a line, its interval as a band.

    Args:
        table: Of `cxr.evaluation.stress.measure_stress`.
        metric: A key of `NAMES`.
    """
    plain, changes = table.iloc[0], table.iloc[1:]
    figure = make_figure(6.6, 1.2 + 0.26 * len(changes))
    ax = figure.subplots()
    style_axes(ax)
    places = np.arange(len(changes))
    ax.axvspan(plain[f"{metric}_low"], plain[f"{metric}_high"], color=MUTED, alpha=0.15, linewidth=0)
    ax.axvline(plain[metric], color=MUTED, linewidth=1)
    ax.hlines(places, changes[f"{metric}_low"], changes[f"{metric}_high"], color=BLUE, linewidth=1.6)
    ax.plot(changes[metric], places, "o", color=BLUE, markersize=5)
    ax.set_yticks(places, [escape(name) for name in changes["change"] + " " + changes["strength"]])
    ax.invert_yaxis()
    ax.set_xlabel(f"{NAMES[metric]}, 95% interval; the line is without change")
    set_title(ax, f"{NAMES[metric]} under changes to the images")
    return figure
