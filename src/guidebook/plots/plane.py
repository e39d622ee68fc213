"""The plane of error against seconds, both on log scales: bands of what is good, points and lines with their names."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from ..inference.verdict import GOOD_SHIFT, USABLE_SHIFT
from .compare import ComparisonFigure
from .style import JUDGEMENTS, PAPER, REFERENCE_LINE, SOFT, style

_BANDS = {"good": GOOD_SHIFT, "usable": USABLE_SHIFT, "bad": math.inf}  # and their upper limits
_LEAST, _MOST = 0.01, 1000.0  # errors beyond are drawn at the edge
_LEAST_SECONDS = 0.001
_STEPS = 60  # at which names keep clear of a path
_SIZE = 9  # of the labels, in points: to be read on a telephone


class Dot(NamedTuple):
    """A point of the plane: the worst error, in sds, of what took so many seconds."""

    name: str
    seconds: float
    error: float
    judgement: str


class Line(NamedTuple):
    """A dashed line at the seconds of what has no error; its colour is its judgement's."""

    name: str
    seconds: float
    judgement: str = ""


def plot_plane(dots: Sequence[Dot], lines: Sequence[Line], path: bool = False) -> Figure:
    """Plot points and lines; with ``path``, points are joined in their order."""
    dots = [d._replace(seconds=_shown(d.seconds), error=min(max(d.error, _LEAST), _MOST)) for d in dots]
    lines = [line._replace(seconds=_shown(line.seconds)) for line in lines]
    with style():
        figure = ComparisonFigure(figsize=(4.3, 3.5))
        ax = figure.subplots()
        _frame(ax, dots, lines)
        for line in lines:
            colour = JUDGEMENTS.get(line.judgement, REFERENCE_LINE)
            ax.axvline(line.seconds, color=colour, linestyle=(0, (4, 3)), linewidth=1.3)
        if path:
            ax.plot([d.seconds for d in dots], [d.error for d in dots], color=SOFT, linewidth=0.9, zorder=1)
        for dot in dots:
            marker = "X" if dot.judgement == "point" else "o"
            colour = JUDGEMENTS.get(dot.judgement, SOFT)
            ax.plot(dot.seconds, dot.error, marker=marker, color=colour, markersize=8, markeredgecolor=PAPER)
        figure.draw_without_rendering()  # lays out the axes, in which labels are then placed
        figure.set_layout_engine("none")
        _label(figure, ax, dots, lines, path)
    return figure


def _shown(seconds: float) -> float:
    return max(seconds, _LEAST_SECONDS)


def _frame(ax: Axes, dots: Sequence[Dot], lines: Sequence[Line]) -> None:
    """Set up axes and bands, with room around all there is."""
    seconds = [part.seconds for part in (*dots, *lines)]
    room = (max(seconds) / min(seconds)) ** 0.12 * 1.6
    low, high = min(0.025, 0.6 * min(d.error for d in dots)), max(1.0, 1.9 * max(d.error for d in dots))
    ax.set(xscale="log", yscale="log", xlim=(min(seconds) / room, max(seconds) * room), ylim=(low, high))
    begin = low
    for name, limit in _BANDS.items():
        end = min(limit, high)
        ax.axhspan(begin, end, color=JUDGEMENTS[name], alpha=0.1, linewidth=0)
        middle = math.sqrt(begin * end)
        ax.text(
            1.015, middle, name, transform=ax.get_yaxis_transform(), color=JUDGEMENTS[name], size=_SIZE, va="center"
        )
        begin = end
    ax.set_xlabel("seconds", size=_SIZE)
    ax.set_ylabel("worst error, in sd", size=_SIZE)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    span = max(seconds) / min(seconds)
    steps = (1.0,) if span > 50 else (1.0, 2.0, 5.0) if span > 3 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    ax.xaxis.set_major_locator(LogLocator(subs=steps))
    ax.set_yticks([tick for tick in (0.01, GOOD_SHIFT, USABLE_SHIFT, 1, 10, 100, 1000) if low <= tick <= high])
    ax.tick_params(labelsize=_SIZE)


def _label(figure: Figure, ax: Axes, dots: Sequence[Dot], lines: Sequence[Line], path: bool) -> None:
    """Write names beside their points and at the tops of their lines, over no other name, point, line or path."""
    frame, unit = ax.get_window_extent(), figure.dpi / 72  # pixels of a point
    places = [ax.transData.transform((dot.seconds, dot.error)) for dot in dots]
    taken = [Bbox.from_bounds(x - 5 * unit, y - 5 * unit, 10 * unit, 10 * unit) for x, y in places]
    for one, other in pairwise(places if path else []):
        steps = np.linspace(one, other, _STEPS)
        taken += [Bbox.from_bounds(x - unit, y - unit, 2 * unit, 2 * unit) for x, y in steps]
    at_lines = [float(ax.transData.transform((line.seconds, 1.0))[0]) for line in lines]
    taken += [Bbox.from_extents(at - 3 * unit, frame.y0, at + 3 * unit, frame.y1) for at in at_lines]

    for line, at in zip(lines, at_lines, strict=True):
        width, height = _size(ax, line.name)
        candidates = [
            (step, Bbox.from_bounds(left, frame.y1 - (1 + 1.2 * step) * height - 3 * unit, width, height))
            for step in range(8)
            for left in ((at - width - 4 * unit, at + 4 * unit)[:: 1 if at > (frame.x0 + frame.x1) / 2 else -1])
        ]
        _, box = min(candidates, key=lambda candidate: _cost(*candidate, taken, frame))
        _write(ax, line.name, box, JUDGEMENTS.get(line.judgement, REFERENCE_LINE))
        taken.append(box)

    for dot, (x, y) in sorted(zip(dots, places, strict=True), key=lambda pair: -pair[1][1]):
        width, height = _size(ax, dot.name)
        candidates = [
            (step, Bbox.from_bounds(left, y + up * 0.6 * height - height / 2, width, height))
            for step in range(20)
            for up in {step, -step}
            for left in _lefts(x, width, unit, beside_only=step < 2)
        ]
        step, box = min(candidates, key=lambda candidate: _cost(*candidate, taken, frame))
        colour = JUDGEMENTS.get(dot.judgement, SOFT)
        _write(ax, dot.name, box, colour)
        taken.append(box)
        if step > (3 if box.x0 < x < box.x1 else 1):
            level = min(max(y, box.y0), box.y1) if box.x0 < x < box.x1 else (box.y0 + box.y1) / 2
            ends = ax.transData.inverted().transform([(x, y), (min(max(x, box.x0), box.x1), level)])
            ax.plot(*ends.T, color=colour, linewidth=0.7, zorder=1)


def _lefts(x: float, width: float, unit: float, *, beside_only: bool) -> tuple[float, ...]:
    """Return where a name may begin: to the right or the left of its point, or over or under it."""
    beside = (x + 8 * unit, x - 8 * unit - width)
    return beside if beside_only else (*beside, x - width / 2, x - width + 5 * unit, x - 5 * unit)


def _cost(step: int, box: Bbox, taken: list[Bbox], frame: Bbox) -> float:
    """Return how bad a place for a label is: what it covers, how much of it is cut off, how far away it is."""
    area = box.width * box.height
    return 500 * (sum(_shared(box, other) for other in taken) + area - _shared(box, frame)) / area + step


def _shared(one: Bbox, other: Bbox) -> float:
    """Return the area that two boxes have in common."""
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(wide, 0.0) * max(high, 0.0)


def _size(ax: Axes, text: str) -> tuple[float, float]:
    """Return width and height of a label in pixels."""
    probe = ax.text(0.5, 0.5, text, size=_SIZE, transform=ax.transAxes)
    box = probe.get_window_extent()
    probe.remove()
    return box.width, box.height


def _write(ax: Axes, text: str, box: Bbox, colour: str) -> None:
    """Write a label into its box, which is in pixels."""
    x, y = ax.transAxes.inverted().transform((box.x0, (box.y0 + box.y1) / 2))
    ax.text(x, y, text, size=_SIZE, color=colour, va="center", transform=ax.transAxes)
