"""Charts as inline SVG. Knows nothing of what is drawn; every text is escaped."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d31", "#7f7f7f")
"""Told apart by colour-blind readers (Okabe and Ito 2008), in turn."""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 460, 190, 40, 34, 8


def colour(position: int) -> str:
    """The colour of the class at `position`."""
    return COLOURS[position % len(COLOURS)]


def swatch(position: int) -> Markup:
    """A small square in the colour of the class at `position`."""
    return Markup('<svg viewBox="0 0 1 1" aria-hidden="true"><rect width="1" height="1" fill="{}"/></svg>').format(
        colour(position)
    )


def strip(counts: Sequence[int], total: int) -> Markup:
    """A horizontal bar with one piece per count, as long as their share of `total`; the first has the first colour."""
    pieces, start = [], 0.0
    for position, count in enumerate(counts):
        width = 100 * count / total if total else 0.0
        rect = Markup('<rect x="{}" width="{}" height="10" fill="{}"/>')
        pieces.append(rect.format(f"{start:.3f}", f"{width:.3f}", colour(position)))
        start += width
    box = Markup(
        '<svg class="strip" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    )
    return box.format(", ".join(map(str, counts)), Markup("").join(pieces))


def histogram(counts: Mapping[str, Sequence[int]], ticks: Sequence[str], label: str) -> Markup:
    """One stepped line per name, each as shares of its own sum, so that classes of any size compare.

    Args:
        counts: Name -> count of each bin, all of one length.
        ticks: Texts spread evenly under the axis, the first at the left end.
        label: What the axis shows.
    """
    shares = {name: [one / max(sum(values), 1) for one in values] for name, values in counts.items()}
    highest = max((max(values) for values in shares.values()), default=0) or 1.0
    lines = [_step_line(values, highest, position) for position, values in enumerate(shares.values())]
    box = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>')
    return box.format(_WIDTH, _HEIGHT, label, _axes(highest, ticks, label), Markup("").join(lines))


def _step_line(shares: Sequence[float], highest: float, position: int) -> Markup:
    floor, step = _HEIGHT - _BOTTOM, (_WIDTH - _LEFT) / len(shares)
    heights = [floor - (floor - _TOP) * share / highest for share in shares]
    path = "".join(f"L{_LEFT + i * step:.1f} {y:.1f}H{_LEFT + (i + 1) * step:.1f}" for i, y in enumerate(heights))
    line = Markup(
        '<path d="M{} {}{}V{}" fill="{}" fill-opacity="0.1" stroke="{}" stroke-width="1.6" stroke-linejoin="round"/>'
    )
    return line.format(_LEFT, floor, path, floor, colour(position), colour(position))


def _axes(highest: float, ticks: Sequence[str], label: str) -> Markup:
    floor = _HEIGHT - _BOTTOM
    marks = [
        Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(_LEFT - 5, y, text)
        for y, text in ((floor, "0"), (_TOP + 9, f"{100 * highest:.2g}%"))
    ]
    gap = (_WIDTH - _LEFT) / (len(ticks) - 1)
    for position, tick in enumerate(ticks):
        anchor = "start" if position == 0 else "end" if position == len(ticks) - 1 else "middle"
        text = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
        marks.append(text.format(f"{_LEFT + position * gap:.1f}", floor + 14, anchor, tick))
    axis = Markup('<path d="M{} {}H{}" stroke="#9aa5b1"/>').format(_LEFT, floor, _WIDTH)
    title = Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
        (_WIDTH + _LEFT) / 2, _HEIGHT - 4, label
    )
    return axis + Markup("").join(marks) + title
