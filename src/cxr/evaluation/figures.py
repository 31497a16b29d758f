"""Figures of predictions, training and data: with `drawing`, the only module that knows matplotlib.

Every function returns its own `matplotlib.figure.Figure`: no pyplot and no global state, so figures can be made in any
thread and vanish with their last reference. The colour-blind can tell the colours apart, and nothing is said by colour
alone. Knows nothing of torch, trackers or where figures are kept.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import precision_recall_curve, precision_recall_fscore_support, roc_curve

from cxr.errors import DataError
from cxr.evaluation.drawing import (
    BLUE,
    COLOURS,
    INK,
    MUTED,
    VERMILLION,
    add_legend,
    draw_heatmap,
    escape,
    make_figure,
    make_square_axes,
    set_fonts,
    set_title,
    style_axes,
    wrap,
)
from cxr.evaluation.metrics import classification_metrics, confusion_counts

DPI = 150


def plot_confusion(counts: ArrayLike, class_names: list[str], normalised: bool) -> Figure:
    """Confusion matrix with the count and the share of the true class in every cell.

    Args:
        counts: (K, K) counts; rows are the true class, columns the predicted one.
        class_names: The K names in order.
        normalised: Shade by the share of the true class and print it large; else shade by the count and print that.
    """
    counts = np.asarray(counts)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    if normalised:
        shades, large = shares, _texts(shares, _percent)
        small = [[f"{n} / {total}" for n in row] for row, total in zip(counts, totals[:, 0], strict=True)]
    else:
        shades, large, small = counts / max(counts.max(), 1), _texts(counts, str), _texts(shares, _percent)
    figure, ax = draw_heatmap(shades, large, small, class_names, class_names)
    ax.set_xlabel("Predicted class", labelpad=8, color=INK)
    ax.set_ylabel("True class", labelpad=8, color=INK)
    set_title(ax, "Confusion matrix" + (", normalised" if normalised else ""))
    return figure


def plot_f1_heatmap(target: ArrayLike, preds: ArrayLike, class_names: list[str]) -> Figure:
    """Precision, recall and F1 of each class and their means, with the counts behind precision and recall.

    Args:
        target: (N,) class indices.
        preds: (N,) class indices.
        class_names: The K names in order.
    """
    counts = confusion_counts(target, preds, len(class_names))
    right, support, called = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    labels = range(len(class_names))
    scores = np.array(precision_recall_fscore_support(target, preds, labels=labels, zero_division=0)[:3]).T
    scores[support == 0, 1] = np.nan
    values = np.vstack([scores, [scores[:, 0].mean(), np.nanmean(scores[:, 1]), scores[:, 2].mean()]])
    small = [[f"{k} / {n}", f"{k} / {m}", ""] for k, n, m in zip(right, called, support, strict=True)]
    small.append(["", "", ""])
    figure, ax = draw_heatmap(
        values, _texts(values, _two_digits), small, [*class_names, "Mean of classes"], ["Precision", "Recall", "F1"]
    )
    ax.axhline(len(class_names), color=INK, linewidth=1.2)
    set_title(ax, "Precision, recall and F1")
    return figure


def plot_roc(target: ArrayLike, probs: ArrayLike, class_names: list[str]) -> Figure:
    """ROC curve of each class against the rest; with two classes that of class 1 alone.

    Args:
        target: (N,) class indices.
        probs: (N, K) probabilities.
        class_names: The K names in order.
    """
    target, probs = np.asarray(target), np.asarray(probs)
    figure, ax = make_square_axes(
        class_names, "False positive rate (1 − specificity)", "True positive rate (sensitivity)"
    )
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    ax.text(0.52, 0.48, "chance", color=MUTED, fontsize=8, rotation=45, ha="center", va="top")
    metrics = classification_metrics(target, probs, class_names)
    for k in _shown_classes(class_names):
        auroc = metrics[f"auroc/{class_names[k]}"]
        fpr, tpr = roc_curve(target == k, probs[:, k])[:2] if np.isfinite(auroc) else ([], [])
        ax.plot(fpr, tpr, **_line(k, class_names), label=f"{_three_digits(auroc)}   {escape(class_names[k])}")
    add_legend(ax, "AUROC")
    set_title(ax, _curve_title("ROC", class_names))
    return figure


def plot_precision_recall(target: ArrayLike, probs: ArrayLike, class_names: list[str]) -> Figure:
    """Precision-recall curve of each class against the rest; with two classes that of class 1 alone.

    A dotted line at the prevalence of a class is what chance gives.

    Args:
        target: (N,) class indices.
        probs: (N, K) probabilities.
        class_names: The K names in order.
    """
    target, probs = np.asarray(target), np.asarray(probs)
    figure, ax = make_square_axes(class_names, "Recall (sensitivity)", "Precision (positive predictive value)")
    metrics = classification_metrics(target, probs, class_names)
    for k in _shown_classes(class_names):
        style, prevalence = _line(k, class_names), float((target == k).mean())
        score = metrics[f"average_precision/{class_names[k]}"]
        precision, recall = precision_recall_curve(target == k, probs[:, k])[:2] if np.isfinite(score) else ([], [])
        label = f"{_three_digits(score)}   {prevalence:.3f}   {escape(class_names[k])}"
        ax.plot(recall, precision, **style, drawstyle="steps-post", label=label)
        ax.axhline(prevalence, color=style["color"], linewidth=1, linestyle=(0, (1, 2)))
    add_legend(ax, "Average precision, prevalence (dotted)")
    set_title(ax, _curve_title("Precision-recall", class_names))
    return figure


def plot_learning_curves(
    history: pd.DataFrame,
    monitor: str = "val/auroc",
    mode: str = "max",
    panels: Sequence[str] = ("loss", "accuracy", "auroc"),
) -> Figure:
    """Training and validation curves, with the best epoch marked.

    Args:
        history: Columns epoch, ``val/<panel>``, where known ``train/<panel>``; rows of one epoch are merged.
        monitor: The column that names the best epoch; its panel is always shown.
        mode: max or min, what is best in `monitor`.
        panels: Metrics to show, one panel each; those without a column ``val/...`` are left out.

    Raises:
        DataError: No epoch has a value of `monitor`.
    """
    known = sorted(str(name) for name in history.columns if str(name).startswith("val/"))
    if monitor not in known or history[monitor].isna().all():
        raise DataError(f"expected values of {monitor} in the history, got columns {known}; choose one as the monitor")
    curves = history.groupby("epoch", as_index=False).last()
    curves["epoch"] += 1  # people count from 1, as the terminal does
    best = curves.iloc[int((curves[monitor] if mode == "max" else -curves[monitor]).argmax())]
    shown = [name for name in dict.fromkeys([*panels, monitor.partition("/")[2]]) if f"val/{name}" in known]
    figure = make_figure(3.6 * len(shown) + 0.4, 3.4)
    for ax, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _plot_panel(ax, curves, name, best)
        set_title(ax, "AUROC" if name == "auroc" else name.replace("_", " ").capitalize())
    text = f"Best epoch {best['epoch']:.0f} (circled): {monitor} = {best[monitor]:.4f}"
    figure.supxlabel(text, x=0.01, ha="left", fontsize=9, color=MUTED)
    return figure


def plot_image_grid(images: Sequence[ArrayLike], titles: Sequence[str], correct: Sequence[bool]) -> Figure:
    """Images with a title each, framed and ticked by whether the prediction was correct.

    Args:
        images: N greyscale images (H, W) in [0, 1], at least one.
        titles: N texts of a line or two.
        correct: N flags.

    Raises:
        DataError: No image, or lengths that differ.
    """
    if not len(images) == len(titles) == len(correct) or len(images) == 0:
        got = f"{len(images)} images, {len(titles)} titles and {len(correct)} flags"
        raise DataError(f"expected at least one image with its title and flag, got {got}; pass one of each per sample")
    columns = min(len(images), 4 if len(images) <= 16 else 8)
    rows = -(-len(images) // columns)
    figure = make_figure(2.2 * columns, 2.65 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(images) :]:
        ax.set_axis_off()
    for ax, image, title, is_correct in zip(axes, images, titles, correct, strict=False):
        ax.imshow(np.asarray(image), cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        colour, mark = (BLUE, "✓") if is_correct else (VERMILLION, "✗")
        for spine in ax.spines.values():
            spine.set(color=colour, linewidth=3)
        ax.set_title(f"{mark} {wrap(title, 28)}", fontsize=8, color=colour, loc="left")
    return figure


def plot_class_counts(counts: pd.DataFrame) -> Figure:
    """Images of each class in each part of the split, with counts and shares.

    Args:
        counts: One row per part (train, val, test), one column per class.
    """
    parts, class_names = list(counts.index), [str(name) for name in counts.columns]
    figure = make_figure(2.6 * len(parts) + 1.8, 0.45 * len(class_names) + 1.0)
    axes = figure.subplots(1, len(parts), squeeze=False, sharey=True)[0]
    for ax, part in zip(axes, parts, strict=True):
        values = counts.loc[part].to_numpy(dtype=np.int64)
        total = max(values.sum(), 1)
        bars = ax.barh(np.arange(len(values)), values, height=0.65, color=BLUE)
        ax.bar_label(bars, [f"{n:,}  ({_percent(n / total)})" for n in values], padding=4, fontsize=8, color=INK)
        ax.set_xlim(0, max(values.max(), 1) * 1.55)
        ax.set_xticks([])
        ax.set_yticks(np.arange(len(values)), [wrap(name, 24) for name in class_names], fontsize=9, color=INK)
        ax.tick_params(length=0)
        ax.spines[["top", "right", "bottom"]].set_visible(False)
        ax.spines["left"].set_color(MUTED)
        set_title(ax, f"{part}: {values.sum():,}")
    axes[0].invert_yaxis()
    return figure


def write_figure(figure: Figure, path: Path) -> None:
    """Write a PNG; it appears whole or not at all, and the same figure gives the same bytes.

    Args:
        figure: A figure of this module.
        path: The file to write; its folder exists.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        set_fonts(figure)
        figure.savefig(part, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _plot_panel(ax: Axes, curves: pd.DataFrame, name: str, best: "pd.Series[float]") -> None:
    style_axes(ax)
    ax.axvline(best["epoch"], color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
    for part, colour, dashes in (("train", VERMILLION, (0, (4, 1.5))), ("val", BLUE, "-")):
        if f"{part}/{name}" in curves:
            curve = curves[["epoch", f"{part}/{name}"]].dropna().to_numpy()
            marker = "o" if len(curve) <= 30 else None
            ax.plot(*curve.T, color=colour, linestyle=dashes, marker=marker, markersize=3.5, linewidth=1.6, label=part)
    ax.plot(best["epoch"], best[f"val/{name}"], marker="o", markersize=9, color=BLUE, fillstyle="none")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("Epoch")
    ax.legend(frameon=False, fontsize=9, labelcolor=INK)


def _line(k: int, class_names: list[str]) -> dict[str, Any]:
    colour = COLOURS[0 if len(class_names) == 2 else k % len(COLOURS)]
    return {"color": colour, "linewidth": 1.8, "linestyle": "-" if k < len(COLOURS) else (0, (4, 1.5))}


def _shown_classes(class_names: list[str]) -> list[int]:
    return [1] if len(class_names) == 2 else list(range(len(class_names)))


def _curve_title(kind: str, class_names: list[str]) -> str:
    return f"{kind} curve" if len(class_names) == 2 else f"{kind} curves, each class against the rest"


def _texts(values: NDArray[Any], form: Callable[[float], str]) -> list[list[str]]:
    return [[form(value) for value in row] for row in values.tolist()]


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.0f} %"


def _two_digits(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


def _three_digits(value: float) -> str:
    return "  –  " if np.isnan(value) else f"{value:.3f}"
