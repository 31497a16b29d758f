"""Figures of what probabilities are worth: reliability, decision curve, risk and coverage, scores at a threshold.

As in `figures`, each function returns its own figure, made without pyplot. Knows nothing of how numbers are chosen or
where figures are kept.
"""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from cxr.evaluation.calibration import expected_calibration_error, of_class, of_top_label, reliability_curve
from cxr.evaluation.checks import BoolArray, FloatArray, check_outcomes
from cxr.evaluation.decision_curve import decision_curve
from cxr.evaluation.drawing import (
    BLUE,
    INK,
    MUTED,
    VERMILLION,
    add_legend,
    escape,
    make_figure,
    set_title,
    style_axes,
    wrap,
)
from cxr.evaluation.operating_point import OperatingPoint
from cxr.evaluation.selective import AbstentionPoint, area_under_risk_coverage, risk_coverage_curve

DASHED, DOTTED = (0, (4, 3)), (0, (1, 2))
_BARS = 25


def plot_reliability(target: ArrayLike, probs: Mapping[str, ArrayLike], class_names: list[str]) -> Figure:
    """Observed share against predicted probability in bins of equal mass, with 95% intervals; a histogram below.

    With two classes of class 1; with more of the most probable class of each row.

    Args:
        target: (N,) class indices.
        probs: Name -> (N, K) probabilities, one or two, for example before and after calibration.
        class_names: The K names in order.
    """
    figure = make_figure(6.6, 5.8)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4.2, 1])
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHED, label="0.000   perfect")
    for (name, values), colour, mark in zip(probs.items(), (BLUE, VERMILLION), "os", strict=False):
        error = expected_calibration_error(target, values)
        label = f"{error:.3f}   {escape(name)}"
        _plot_bins(above, *_outcomes(target, values, class_names), colour=colour, mark=mark, label=label)
        _plot_counts(below, _outcomes(target, values, class_names)[1], colour)
    two = len(class_names) == 2
    above.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), ylabel="Observed share" if two else "Share that is right")
    name = f"Predicted probability of {wrap(class_names[1], 40)}" if two else "Probability of the most probable class"
    below.set(xlabel=name, ylabel="Images")
    below.yaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))
    for ax in (above, below):
        style_axes(ax)
    add_legend(above, "Calibration error")
    set_title(above, "Reliability")
    return figure


def plot_decision_curves(target: ArrayLike, probs: ArrayLike, class_names: list[str]) -> Figure:
    """Net benefit over threshold probabilities: of the model, of treating all, of treating none.

    With two classes of class 1; with more a panel for each class against the rest, each on a scale of its own.

    Args:
        target: (N,) class indices.
        probs: (N, K) probabilities.
        class_names: The K names in order.
    """
    shown = [1] if len(class_names) == 2 else list(range(len(class_names)))
    columns = min(len(shown), 2)
    rows = -(-len(shown) // columns)
    figure = make_figure(6.6 if columns == 1 else 8.2, 4.0 if columns == 1 else 2.9 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    for ax, k in zip(axes, shown, strict=False):
        _plot_net_benefit(ax, *of_class(target, probs, k))
        ax.set(xlabel="Threshold probability", ylabel="Net benefit")
        set_title(ax, textwrap.fill(class_names[k], 30))
    if len(shown) == 1:
        name = wrap(class_names[1], 40)
        axes[0].set(xlabel=f"Threshold probability of {name}", ylabel="Net benefit (true positives per image)")
        set_title(axes[0], "Decision curve")
    else:
        title = "Decision curves, each class against the rest"
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    add_legend(axes[columns - 1], "Who is treated")
    return figure


def plot_risk_coverage(target: ArrayLike, probs: ArrayLike, point: AbstentionPoint | None = None) -> Figure:
    """Share of wrong answers among the images that are answered, the surest first.

    Args:
        target: (N,) class indices.
        probs: (N, K) probabilities.
        point: An abstention point to mark, maybe chosen on other rows.
    """
    curve = risk_coverage_curve(target, probs)
    figure = make_figure(6.6, 4.0)
    ax = figure.subplots()
    style_axes(ax)
    every = curve.iloc[-1]
    ax.axhline(every["risk"], color=MUTED, linewidth=1, linestyle=DASHED, label=f"all answered: {_share(every)}")
    name = f"the surest first: mean {area_under_risk_coverage(target, probs):.3f}"
    mark = "o" if len(curve) <= 30 else None
    ax.plot(curve["coverage"], curve["risk"], color=BLUE, linewidth=1.8, marker=mark, markersize=3.5, label=name)
    if point is not None:
        _mark_answers(ax, target, probs, point)
    ax.set(xlim=(0, 1.01), ylim=(0, max(1.15 * curve["risk"].max(), 0.02)))
    ax.set(xlabel="Coverage (share of images that are answered)", ylabel="Risk (share of answers that are wrong)")
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    add_legend(ax, "Risk")
    set_title(ax, "Risk and coverage")
    return figure


def plot_score_histograms(
    positive: ArrayLike, prob: ArrayLike, names: tuple[str, str], point: OperatingPoint | None = None
) -> Figure:
    """Probabilities of images of a class, and of all others below it, with the operating point marked.

    Args:
        positive: (N,) whether a row is of the class.
        prob: (N,) the probability of the class.
        names: What to call (the others, the class).
        point: An operating point to mark, maybe chosen on other rows; bars that it calls positive are filled.
    """
    positive, prob = check_outcomes(positive, prob)
    figure = make_figure(6.6, 4.4)
    axes = figure.subplots(2, 1, sharex=True)
    for ax, rows, name, colour in zip(axes, (positive, ~positive), names[::-1], (VERMILLION, BLUE), strict=True):
        style_axes(ax)
        _plot_scores(ax, prob[rows], colour, point)
        ax.set_ylabel("Images")
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
        set_title(ax, _score_title(name, prob[rows], point))
    axes[1].set(xlim=(0, 1), xlabel=f"Predicted probability of {wrap(names[1], 60)}")
    if point is not None:
        text = f"Dashed: called positive from {point.threshold:.3f} on, chosen on {point.chosen_on} ({_rule(point)})"
        figure.supxlabel(wrap(text, 90), x=0.01, ha="left", fontsize=9, color=MUTED)
    return figure


def _plot_net_benefit(ax: Axes, positive: BoolArray, prob: FloatArray) -> None:
    curve = decision_curve(positive, prob)
    style_axes(ax)
    for name, label, colour, dashes in (
        ("treat_none", "treat none", MUTED, DOTTED),
        ("treat_all", "treat all", VERMILLION, DASHED),
        ("model", "by the model", BLUE, "-"),
    ):
        ax.plot(curve["threshold"], curve[name], color=colour, linewidth=1.8, linestyle=dashes, label=label)
    top = max(curve["model"].max(), curve["treat_all"].max(), 0.01)
    ax.set(xlim=(0, 1), ylim=(-0.25 * top, 1.08 * top))


def _outcomes(target: ArrayLike, probs: ArrayLike, class_names: list[str]) -> tuple[BoolArray, FloatArray]:
    return of_class(target, probs, 1) if len(class_names) == 2 else of_top_label(target, probs)


def _plot_bins(ax: Axes, positive: BoolArray, prob: FloatArray, *, colour: str, mark: str, label: str) -> None:
    curve = reliability_curve(positive, prob)
    reach = np.abs(curve[["low", "high"]].to_numpy().T - curve["observed"].to_numpy())
    style: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 5, "linewidth": 1.4, "elinewidth": 0.9}
    ax.errorbar(curve["mean_prob"], curve["observed"], reach, **style, capsize=2, label=label)


def _plot_counts(ax: Axes, prob: FloatArray, colour: str) -> None:
    ax.hist(prob, bins=_BARS, range=(0, 1), histtype="stepfilled", facecolor=f"{colour}33", edgecolor=colour)


def _share(row: Any) -> str:
    return f"{100 * row['risk']:.1f} % ({row['errors']:.0f} / {row['kept']:.0f})"


def _mark_answers(ax: Axes, target: ArrayLike, probs: ArrayLike, point: AbstentionPoint) -> None:
    answers = point.apply(target, probs)
    if answers.kept:
        share = _share({"risk": answers.risk, "errors": answers.errors, "kept": answers.kept})
        label = f"{_rule(point)} on {point.chosen_on}:\n{share}"
        ax.plot(answers.coverage, answers.risk, "D", color=VERMILLION, markersize=7, label=wrap(label, 34))


def _rule(point: AbstentionPoint | OperatingPoint) -> str:
    return point.rule.replace("<=", "≤").replace(">=", "≥")


def _plot_scores(ax: Axes, scores: FloatArray, colour: str, point: OperatingPoint | None) -> None:
    edges = np.linspace(0, 1, _BARS + 1).tolist()
    ax.hist(scores, bins=edges, histtype="stepfilled", facecolor=f"{colour}33", edgecolor=colour, linewidth=1.2)
    if point is not None:
        called = scores[scores >= point.threshold]
        ax.hist(called, bins=edges, histtype="stepfilled", facecolor=colour, edgecolor=colour, linewidth=1.2)
        ax.axvline(point.threshold, color=INK, linewidth=1.4, linestyle=DASHED)


def _score_title(name: str, scores: FloatArray, point: OperatingPoint | None) -> str:
    if point is None:
        return f"{name}: {len(scores):,}"
    called = int((scores >= point.threshold).sum())
    return f"{name}: {called:,} / {len(scores):,} called positive"
