"""Error against seconds: what each method of a comparison cost, and how far off it is."""

import math
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from ..inference.compare import Comparison
from ..inference.verdict import GOOD_SHIFT, USABLE_SHIFT, distance
from .compare import ComparisonFigure
from .style import JUDGEMENTS, REFERENCE_LINE, SOFT, style

_BANDS = {"good": GOOD_SHIFT, "usable": USABLE_SHIFT, "bad": math.inf}  # and their upper limits
_LEAST, _MOST = 0.01, 1000.0  # errors beyond are drawn at the edge
_LEAST_SECONDS = 0.001
_SIZE = 9  # of the labels, in points: to be read on a telephone


class _Dot(NamedTuple):
    name: str
    seconds: float
    error: float
    judgement: str


def plot_error_against_seconds(comparison: Comparison) -> Figure:
    """Plot the worst error of every method against its seconds, both on log scales; colours are judgements.

    The error is that of the quantity farthest from the reference, `Comparison.worst`: the shift of its mean in sds of
    the reference, or how far off its sd is, on a scale on which an sd 25 % off counts as 0.25. Bands show what is good
    and what is usable. A dashed line shows the seconds of the reference. Points of methods without a spread are
    crosses: theirs is the error of the mean alone.

    Parameters
    ----------
    comparison : Comparison
        One whose reference is fit to judge; `without_error` lists the methods that are left out.

    Raises
    ------
    ValueError
        If there is no method to show.
    """
    dots = _dots(comparison)
    if not dots:
        raise ValueError(
            "plot_error_against_seconds: no method has an error: the reference is refused, or none is judged"
        )
    reference = max(comparison.posteriors[comparison.reference].info.seconds, _LEAST_SECONDS)
    with style():
        figure = ComparisonFigure(figsize=(4.3, 3.5))
        ax = figure.subplots()
        _frame(ax, dots, reference)
        ax.axvline(reference, color=REFERENCE_LINE, linestyle=(0, (4, 3)), linewidth=1.3)
        for dot in dots:
            marker = "X" if dot.judgement == "point" else "o"
            colour = JUDGEMENTS.get(dot.judgement, SOFT)
            ax.plot(dot.seconds, dot.error, marker=marker, color=colour, markersize=8, markeredgecolor="white")
        figure.draw_without_rendering()  # lays out the axes, in which labels are then placed
        figure.set_layout_engine("none")
        _label(figure, ax, dots, f"{comparison.reference}, the reference", reference)
    return figure


def without_error(comparison: Comparison) -> list[str]:
    """Return the methods that `plot_error_against_seconds` leaves out, since no error of theirs is known."""
    shown = {dot.name for dot in _dots(comparison)}
    return [name for name in comparison.posteriors if name not in shown and name != comparison.reference]


def _dots(comparison: Comparison) -> list[_Dot]:
    found = []
    for name, posterior in comparison.posteriors.items():
        judgement = comparison.verdicts[name].judgement
        if name == comparison.reference or judgement == "not judged":
            continue
        error = USABLE_SHIFT * float(distance(comparison.quantities[name]).max())
        if not math.isnan(error):
            seconds = max(posterior.info.seconds, _LEAST_SECONDS)
            found.append(_Dot(name, seconds, min(max(error, _LEAST), _MOST), judgement))
    return found


def _frame(ax: Axes, dots: list[_Dot], reference: float) -> None:
    """Set up axes and bands, with room around all there is."""
    seconds = [reference, *(dot.seconds for dot in dots)]
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
    is_wide = max(seconds) / min(seconds) > 50
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0)))
    ax.set_yticks([tick for tick in (0.01, GOOD_SHIFT, USABLE_SHIFT, 1, 10, 100, 1000) if low <= tick <= high])
    ax.tick_params(labelsize=_SIZE)


def _label(figure: Figure, ax: Axes, dots: list[_Dot], line: str, reference: float) -> None:
    """Write every name beside its point, over no other name or point, and the line's name at its top."""
    frame, unit = ax.get_window_extent(), figure.dpi / 72  # pixels of a point
    at_line = float(ax.transData.transform((reference, 1.0))[0])
    places = [ax.transData.transform((dot.seconds, dot.error)) for dot in dots]
    taken = [Bbox.from_bounds(x - 5 * unit, y - 5 * unit, 10 * unit, 10 * unit) for x, y in places]
    taken.append(Bbox.from_extents(at_line - unit, frame.y0, at_line + unit, frame.y1))

    width, height = _size(ax, line)
    is_right = at_line > (frame.x0 + frame.x1) / 2
    begin = at_line - width - 4 * unit if is_right else at_line + 4 * unit
    name = Bbox.from_bounds(begin, frame.y1 - height - 3 * unit, width, height)
    _write(ax, line, name, REFERENCE_LINE)
    taken.append(name)

    for dot, (x, y) in sorted(zip(dots, places, strict=True), key=lambda pair: -pair[1][1]):
        width, height = _size(ax, dot.name)
        candidates = [
            (step, Bbox.from_bounds(left, y + up * 0.6 * height - height / 2, width, height))
            for step in range(20)
            for up in {step, -step}
            for left in (x + 8 * unit, x - 8 * unit - width)
        ]
        step, box = min(candidates, key=lambda candidate: _cost(*candidate, taken, frame))
        colour = JUDGEMENTS.get(dot.judgement, SOFT)
        _write(ax, dot.name, box, colour)
        taken.append(box)
        if step > 1:
            near = box.x0 if box.x0 > x else box.x1
            ends = ax.transData.inverted().transform([(x, y), (near, (box.y0 + box.y1) / 2)])
            ax.plot(*ends.T, color=colour, linewidth=0.7, zorder=1)


def _cost(step: int, box: Bbox, taken: list[Bbox], frame: Bbox) -> float:
    """Return how bad a place for a label is: what it covers, how much of it is cut off, how far away it is."""
    area = box.width * box.height
    return 100 * (sum(_shared(box, other) for other in taken) + area - _shared(box, frame)) / area + step


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
