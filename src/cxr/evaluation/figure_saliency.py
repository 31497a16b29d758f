"""A radiograph with a map over it. Knows nothing of nets and of how the map was made."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import ArrayLike, NDArray

from cxr.evaluation.drawing import BLUE, INK, MUTED, VERMILLION, escape, make_figure, wrap

COLOURS = "viridis"  # perceptually uniform, and told apart by the colour-blind
STRONGEST = 0.75
PANEL = 2.5


def plot_explanation(
    image: ArrayLike, saliency: ArrayLike, title: str, subtitle: str, correct: bool, boxes: ArrayLike = ()
) -> Figure:
    """The image as it is, and beside it under a map that is clear where nothing speaks for the class.

    Args:
        image: (H, W) in [0, 1].
        saliency: (H, W) in [0, 1].
        title: What the model says and what is true.
        subtitle: What the map shows.
        correct: Whether the model is right; said by a mark and a colour.
        boxes: (M, 4) x, y, width and height in pixels of the image, drawn over the map.
    """
    pixels, values = np.asarray(image), np.asarray(saliency)
    height = PANEL * pixels.shape[0] / pixels.shape[1]
    figure = make_figure(2 * PANEL + 0.75, height + 0.75)
    plain, covered = figure.subplots(1, 2)
    for ax in (plain, covered):
        ax.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
        ax.set_axis_off()
    covered.imshow(colour_map(values), interpolation="bilinear")
    _draw_boxes(covered, np.asarray(boxes, dtype=np.float64).reshape(-1, 4))
    _draw_scale(figure, covered)
    colour, mark = (BLUE, "✓") if correct else (VERMILLION, "✗")
    figure.suptitle(f"{mark} {escape(title)}", x=0.01, ha="left", fontsize=9, fontweight="bold", color=colour)
    figure.supxlabel(wrap(subtitle, 78), x=0.01, ha="left", fontsize=7.5, color=MUTED)
    return figure


def colour_map(saliency: NDArray[Any]) -> NDArray[np.float64]:
    """(H, W, 4) colours of a map; the lower the value, the clearer."""
    colours = matplotlib.colormaps[COLOURS](saliency)
    colours[..., 3] = STRONGEST * np.clip(saliency, 0, 1)
    return np.asarray(colours, dtype=np.float64)


def _draw_boxes(ax: Axes, boxes: NDArray[np.float64]) -> None:
    outline: list[AbstractPathEffect] = [withStroke(linewidth=2.6, foreground=INK)]
    for x, y, width, height in boxes:
        # Pixel (0, 0) covers [0, 1) in a box, and [-0.5, 0.5) on the axes of an image.
        box = Rectangle((x - 0.5, y - 0.5), width, height, fill=False, edgecolor="white", linewidth=1.1)
        box.set_path_effects(outline)
        ax.add_patch(box)


def _draw_scale(figure: Figure, ax: Axes) -> None:
    scale = ScalarMappable(cmap=COLOURS)
    scale.set_clim(0, 1)
    bar = figure.colorbar(scale, ax=ax, fraction=0.045, pad=0.02, ticks=[0, 1])
    bar.ax.set_yticklabels(["none", "most"], fontsize=7, color=INK)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
