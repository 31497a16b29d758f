"""The figures that describe one table of predictions, for run folders and trackers alike."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxr.evaluation.drawing import drawable_names, set_fonts
from cxr.evaluation.figures import plot_confusion, plot_f1_heatmap, plot_precision_recall, plot_roc
from cxr.evaluation.metrics import confusion_counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def classification_figures(
    target: NDArray[np.int64], probs: NDArray[np.float64], class_names: list[str]
) -> dict[str, "Figure"]:
    """Confusion matrix (counts; shares), heatmap of F1, precision and recall, ROC and precision-recall curves.

    Args:
        target: (N,) class indices.
        probs: (N, K) probabilities.
        class_names: The K names in order.

    Returns:
        name -> figure: confusion, confusion_normalised, f1_heatmap, roc, precision_recall.
    """
    preds, class_names = probs.argmax(axis=1), drawable_names(class_names)
    counts = confusion_counts(target, preds, len(class_names))
    return {
        "confusion": plot_confusion(counts, class_names, normalised=False),
        "confusion_normalised": plot_confusion(counts, class_names, normalised=True),
        "f1_heatmap": plot_f1_heatmap(target, preds, class_names),
        "roc": plot_roc(target, probs, class_names),
        "precision_recall": plot_precision_recall(target, probs, class_names),
    }


def figure_to_array(figure: "Figure") -> NDArray[np.uint8]:
    """The figure as (H, W, 4) uint8 RGBA."""
    canvas = figure.canvas
    set_fonts(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())  # type: ignore[attr-defined]
