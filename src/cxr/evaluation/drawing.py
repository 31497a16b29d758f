"""What the figures share: colours, axes, heatmaps and text. Knows nothing of what is shown.

Figures are plain `matplotlib.figure.Figure` objects with an Agg canvas; pyplot, which keeps global state, is not used.
"""

import textwrap
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

from cxr.evaluation.checks import FloatArray

INK, MUTED, FAINT = "#1f2933", "#66727d", "#e4e8ec"
BLUE, VERMILLION = "#0072b2", "#d55e00"
# Okabe and Ito's palette without its yellow, too pale on white; the eighth class starts it again, dashed.
COLOURS = (BLUE, VERMILLION, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
SHADES = LinearSegmentedColormap.from_list("cxr", ["#f4f8fb", "#d3e6f3", "#abd1ea", "#6db1d9", BLUE])

FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans",
    "Apple SD Gothic Neo", "Arial Unicode MS", "Noto Sans Thai", "Noto Sans Devanagari",
)  # fmt: skip
"""The font that comes with matplotlib, and those of systems that draw what it lacks, where they are there."""
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def make_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, drawn by Agg."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def draw_heatmap(
    shades: FloatArray, large: list[list[str]], small: list[list[str]], rows: list[str], columns: list[str]
) -> tuple[Figure, Axes]:
    """Cells shaded by a value in [0, 1] (nan is grey), each with a large text and a small one under it."""
    many = max(shades.shape) > 6
    cell, font = (0.78, 9) if many else (1.15, 12)
    height = cell * (0.75 if shades.shape[0] != shades.shape[1] else 1)
    figure = make_figure(cell * shades.shape[1] + 1.8, height * shades.shape[0] + 1.4)
    ax = figure.subplots()
    ax.set_facecolor("#f0f0f0")
    ax.pcolormesh(np.ma.masked_invalid(shades), cmap=SHADES, vmin=0, vmax=1, edgecolors="white", linewidth=2)
    for (i, j), shade in np.ndenumerate(shades):
        cell_text = {"xy": (j + 0.5, i + 0.5), "textcoords": "offset points", "ha": "center", "va": "center"}
        style: dict[str, Any] = cell_text | {"color": "white" if shade > 0.84 else INK, "in_layout": False}
        ax.annotate(large[i][j], xytext=(0, 0.5 * font if small[i][j] else 0), fontsize=font, **style)
        ax.annotate(small[i][j], xytext=(0, -0.75 * font), fontsize=0.7 * font, **style)
    slanted = many and len(columns) > 3
    slant: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    ax.set_xticks(np.arange(len(columns)) + 0.5, [wrap(name, 40 if slanted else 14) for name in columns], **slant)
    ax.set_yticks(np.arange(len(rows)) + 0.5, [wrap(name, 22) for name in rows])
    ax.tick_params(length=0, labelsize=9, labelcolor=INK)
    ax.spines[:].set_visible(False)
    ax.set_aspect(height / cell)
    ax.invert_yaxis()
    return figure, ax


def make_square_axes(class_names: list[str], xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A square from 0 to 1 with room for a legend of the class names on its right."""
    figure = make_figure(6.2 + 0.08 * max(map(len, class_names)), 4.4)
    ax = figure.subplots()
    style_axes(ax)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", anchor="W", xlabel=xlabel, ylabel=ylabel)
    return figure, ax


def style_axes(ax: Axes) -> None:
    """Two quiet spines, a faint grid, small labels."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(color=MUTED, linewidth=0.8)
    ax.xaxis.label.set(color=INK, fontsize=10)
    ax.yaxis.label.set(color=INK, fontsize=10)
    ax.tick_params(color=MUTED, labelcolor=INK, labelsize=9, width=0.8, length=3)
    ax.grid(color=FAINT, linewidth=0.7)
    ax.set_axisbelow(True)


def add_legend(ax: Axes, title: str) -> None:
    """The legend to the right of the axes, under a bold title."""
    bold = FontProperties(size=9, weight="bold")
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5), "alignment": "left"}
    ax.legend(**place, title=title, title_fontproperties=bold, frameon=False, fontsize=9, labelcolor=INK)


def set_title(ax: Axes, text: str) -> None:
    """A bold title at the left edge."""
    ax.set_title(escape(text), loc="left", fontsize=11, fontweight="bold", color=INK, pad=10)


def wrap(text: str, width: int) -> str:
    """Each line of `text` broken at `width` characters, ready to draw."""
    lines = [textwrap.fill(line, width) for line in text.splitlines()]
    return escape("\n".join(lines))


def escape(text: str) -> str:
    """Dollar signs as they are, not the start of a formula; a sign in place of characters that no font has."""
    return "".join(letter if can_draw(letter) else UNKNOWN for letter in text).replace("$", r"\$")


def can_draw(text: str) -> bool:
    """Whether some font that is there has every character."""
    return text.isascii() or all(ord(letter) in _drawable() for letter in text if not letter.isspace())


def drawable_names(class_names: Sequence[str]) -> list[str]:
    """Names for figures: as they are, or ``class <number from 1>`` where the fonts lack their script."""
    return [name if can_draw(name) else f"class {number}" for number, name in enumerate(class_names, start=1)]


def set_fonts(figure: Figure) -> None:
    """Let every text of a figure use all of `FONTS` that are there, each for what those before it lack."""
    for text in figure.findobj(Text):
        text.set_fontfamily(_find_fonts())


@cache
def _find_fonts() -> list[str]:
    there = {font.name for font in fontManager.ttflist}
    return [family for family in FONTS if family in there]


@cache
def _drawable() -> frozenset[int]:
    """Code points that the fonts have."""
    return frozenset[int]().union(
        *(_list_letters(family, "normal") & _list_letters(family, "bold") for family in _find_fonts())
    )


def _list_letters(family: str, weight: str) -> set[int]:
    return set(get_font(findfont(FontProperties(family=family, weight=weight))).get_charmap())
