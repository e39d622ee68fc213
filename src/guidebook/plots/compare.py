"""Posteriors over one another: marginal densities, and two quantities jointly."""

import io
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..inference.compare import Comparison
from ..inference.verdict import USABLE_RATIO, USABLE_SHIFT
from .densities import LARGEST, drawable, marginals, reach
from .style import GREY, ellipse, line_colour, looks, panel, short, style, thin

_LEAST_DENSITY = 0.01  # of the peak: what is below on both sides is left out


class ComparisonFigure(Figure):
    """A figure that notebooks display although it is not pyplot's."""

    def _repr_png_(self) -> bytes:
        with style():
            self.savefig(buffer := io.BytesIO(), format="png", dpi=110)
        return buffer.getvalue()


def worst_first(comparison: Comparison) -> list[str]:
    """Return the quantities, those first in which some posterior is farthest from the reference.

    Shifts and ratios count in multiples of what is still usable, as in `Comparison.worst`.
    """
    distances = []
    for frame in comparison.quantities.values():
        distances.append(frame["mean_shift_in_sd"].abs() / USABLE_SHIFT)
        with np.errstate(divide="ignore"):
            distances.append(np.abs(np.log(frame["sd_ratio"])) / math.log(USABLE_RATIO))
    farthest = pd.concat(distances, axis=1).max(axis=1)
    return list(farthest.sort_values(ascending=False, kind="stable").index)


def plot_comparison(comparison: Comparison, *, quantities: Sequence[str] | None = None) -> Figure:
    """Plot posterior densities, one panel per quantity; points as vertical lines.

    Parameters
    ----------
    comparison : Comparison
    quantities : sequence of str, optional
        Labels as in ``comparison.quantities``; default: the twelve in which posteriors differ most.

    Raises
    ------
    ValueError
        If a label is not among the quantities compared.
    """
    known = comparison.draws[comparison.reference]
    chosen = list(quantities or worst_first(comparison)[:12])
    if unknown := [label for label in chosen if label not in known]:
        raise ValueError(f"plot_comparison: no quantity {unknown[0]!r}; there are {', '.join(known)}")
    columns = min(4, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    with style():
        figure = ComparisonFigure(figsize=(columns * 2.7, rows * 2.1 + 0.4))
        figure.set_layout_engine("constrained", w_pad=0.09, h_pad=0.06)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for ax, label in zip(axes, chosen, strict=False):
            _overlay(ax, comparison, label)
            ax.set_title(short(label, 34))
        for ax in axes[len(chosen) :]:
            ax.set_axis_off()
        handles = [
            axes[0].fill_between([], [], color=look.colour, alpha=0.55, label=name)
            if name == comparison.reference
            else axes[0].plot([], [], color=look.colour, linestyle=look.dash, label=name)[0]
            for name, look in looks(comparison).items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
    return figure


def plot_quantity(comparison: Comparison, label: str, title: str) -> Figure:
    """Plot one panel of `plot_comparison`, without a legend."""
    with panel(height=2.0) as (figure, ax):
        _overlay(ax, comparison, label)
        ax.set_title(short(title, 44))
    return figure


def companion(comparison: Comparison, label: str) -> str | None:
    """Return the quantity most correlated with ``label`` under the reference; None if there is no other."""
    draws = pd.DataFrame({name: value.flatten() for name, value in comparison.draws[comparison.reference].items()})
    others = draws.drop(columns=label)
    alike = others.corrwith(draws[label]).abs().dropna()  # constants have no correlation
    return None if alike.empty else str(alike.idxmax())


def plot_pair(comparison: Comparison, first: str, second: str) -> Figure:
    """Plot two quantities: the reference's draws as dots, each posterior's 90 % normal ellipse, points as crosses."""
    with panel(4.6, 3.7) as (figure, ax):
        for name, look in looks(comparison).items():
            points = np.stack([comparison.draws[name][label].flatten().numpy() for label in (first, second)], -1)
            colour = line_colour(comparison, name)
            if name == comparison.reference:
                dots = points[thin(len(points), 500)]
                ax.plot(*dots.T, linestyle="none", marker="o", markersize=2, markeredgewidth=0, color=GREY, alpha=0.6)
            points = points[(np.abs(points) < LARGEST).all(1)]
            if not len(points):
                continue
            centre = points.mean(0)
            if len(points) > 2:
                ax.add_patch(ellipse(centre, np.cov(points.T), edgecolor=colour, linestyle=look.dash, linewidth=1.6))
                ax.plot(*centre, marker="+", color=colour, markersize=7)
            else:
                ax.plot(*centre, marker="X", color=colour, markersize=7, markeredgewidth=0)
        limits = [reach(drawable(comparison, label), comparison.reference) for label in (first, second)]
        ax.set(xlim=limits[0], ylim=limits[1])
        ax.set(xlabel=short(first, 50), ylabel=short(second, 40))
    return figure


def _overlay(ax: Axes, comparison: Comparison, label: str) -> None:
    """Draw the densities of one quantity; posteriors beyond the frame are named at its edge."""
    grid, found = marginals(comparison, label)
    low, high = grid[0], grid[-1]
    peaks: list[float] = []
    shown: list[np.ndarray] = []  # places that a curve or a line marks
    beyond = {"left": 0, "right": 0}
    for name, look in looks(comparison).items():
        if name not in found:
            continue
        centre, is_point, density = found[name]
        if not low <= centre <= high:
            side = "left" if centre < low else "right"
            text, x = (f"← {name}", 0.01) if side == "left" else (f"{name} →", 0.99)
            y = 0.96 - 0.11 * beyond[side]
            ax.text(x, y, text, fontsize=7, color=look.colour, ha=side, va="top", transform=ax.transAxes)
            beyond[side] += 1
        if is_point:
            ax.axvline(centre, color=line_colour(comparison, name), linestyle=look.dash)
            shown.append(np.array([centre]) if low <= centre <= high else np.array([]))
        if density is None:
            continue
        peaks.append(density.max())
        shown.append(grid[density > _LEAST_DENSITY * density.max()])
        if name == comparison.reference:
            ax.fill_between(grid, density, color=look.colour, alpha=0.55, linewidth=0)
        else:
            ax.plot(grid, density, color=look.colour, linestyle=look.dash, linewidth=1.5)
    if peaks:
        ax.set_ylim(0, 1.06 * min(max(peaks), 4 * peaks[0]))
    seen = np.concatenate([*shown, [low, high] if not peaks else []])
    pad = 0.05 * (seen.max() - seen.min())
    ax.set(xlim=(max(low, seen.min() - pad), min(high, seen.max() + pad)), yticks=[])
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.ticklabel_format(axis="x", useOffset=False)
