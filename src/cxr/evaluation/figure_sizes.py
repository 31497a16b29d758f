"""A model's worth by the number of images that it learnt from. Knows nothing of how it was measured."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from cxr.evaluation.drawing import COLOURS, make_figure, set_title, style_axes

METRICS = ("auroc", "balanced_accuracy")
NAMES = {"auroc": "AUROC", "balanced_accuracy": "Balanced accuracy"}


def plot_sizes(curve: pd.DataFrame) -> Figure:
    """Each metric with its interval over the training images, on a logarithmic axis.

    Args:
        curve: One row per size: `images`, and for each of `METRICS` its value, `_low` and `_high`.
    """
    figure = make_figure(6.0, 3.8)
    ax = figure.subplots()
    style_axes(ax)
    for number, (metric, colour) in enumerate(zip(METRICS, COLOURS, strict=False)):
        places = curve["images"] * (1 + 0.02 * number)  # beside each other, not on top
        ax.vlines(places, curve[f"{metric}_low"], curve[f"{metric}_high"], color=colour, linewidth=1.6)
        ax.plot(places, curve[metric], "o-", color=colour, markersize=5, linewidth=1, label=NAMES[metric])
    ax.set_xscale("log")
    ax.set_xticks(curve["images"], [f"{count:,.0f}" for count in curve["images"]])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("training images")
    ax.set_ylabel("test, 95% interval over patients")
    ax.legend(frameon=False, loc="best")
    set_title(ax, "Worth by number of training images")
    return figure
