"""Marginal posterior densities over one another."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import gaussian_kde

from ..inference.compare import Comparison
from ..inference.verdict import USABLE_RATIO, USABLE_SHIFT
from .style import REFERENCE_LINE, Look, looks, panel, style, thin


class ComparisonFigure(Figure):
    """A figure that notebooks show although pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        with style():
            self.savefig(buffer := io.BytesIO(), format="png", dpi=110)
        return buffer.getvalue()


def worst_first(comparison: Comparison) -> list[str]:
    """The quantities compared, those first on which some posterior is farthest from the reference.

    Shift and ratio count in multiples of what is still usable, as they do for `Comparison.worst`.
    """
    distances = []
    for frame in comparison.quantities.values():
        distances.append(frame["mean_shift_in_sd"].abs() / USABLE_SHIFT)
        with np.errstate(divide="ignore"):
            distances.append(np.abs(np.log(frame["sd_ratio"])) / math.log(USABLE_RATIO))
    farthest = pd.concat(distances, axis=1).max(axis=1)
    return list(farthest.sort_values(ascending=False, kind="stable").index)


def plot_comparison(comparison: Comparison, *, quantities: Sequence[str] | None = None) -> Figure:
    """Posterior densities over one another, a panel a quantity; points as vertical lines.

    Parameters
    ----------
    comparison : Comparison
    quantities : sequence of str, optional
        Labels to show, as in ``comparison.quantities``; the twelve on which posteriors differ most where left out.

    Returns
    -------
    Figure
        Of matplotlib; ``.savefig(path)`` writes it.

    Raises
    ------
    ValueError
        If a label is not one of the quantities compared.
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
            ax.set_title(label)
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
    """One panel of `plot_comparison`, with a title of its own and no legend."""
    with panel(height=2.0) as (figure, ax):
        _overlay(ax, comparison, label)
        ax.set_title(title)
    return figure


def _overlay(ax: Axes, comparison: Comparison, label: str) -> None:
    """Densities of one quantity; what lies beyond the frame is named at its edge."""
    draws = {name: sites[label].flatten().numpy() for name, sites in comparison.draws.items()}
    draws = {name: values[np.isfinite(values)] for name, values in draws.items()}
    low, high = _range(draws, comparison.reference)
    grid = np.linspace(low, high, 160)
    peaks: list[float] = []
    left: list[tuple[str, Look]] = []
    right: list[tuple[str, Look]] = []
    for name, look in looks(comparison).items():
        values = draws[name]
        if not len(values):
            continue
        centre = float(np.median(values))
        if not low <= centre <= high:
            (left if centre < low else right).append((name, look))
        if len(values) < 3 or values.std() < 1e-9 * (1 + abs(centre)):
            colour = REFERENCE_LINE if name == comparison.reference else look.colour
            ax.axvline(centre, color=colour, linestyle=look.dash)
            continue
        density = gaussian_kde(values[thin(len(values), 4000)])(grid)
        peaks.append(density.max())
        if name == comparison.reference:
            ax.fill_between(grid, density, color=look.colour, alpha=0.55, linewidth=0)
        else:
            ax.plot(grid, density, color=look.colour, linestyle=look.dash, linewidth=1.5)
    if peaks:
        ax.set_ylim(0, 1.06 * min(max(peaks), 4 * peaks[0]))
    for x, side, beyond in ((0.01, "left", left), (0.99, "right", right)):
        for row, (name, look) in enumerate(beyond):
            text = f"← {name}" if side == "left" else f"{name} →"
            where = {"ha": side, "va": "top", "transform": ax.transAxes}
            ax.text(x, 0.96 - 0.11 * row, text, fontsize=7, color=look.colour, **where)
    ax.set_xlim(low, high)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _range(draws: Mapping[str, np.ndarray], reference: str) -> tuple[float, float]:
    """Where to draw densities: over the reference, and over the others unless they are far away."""
    ends = [np.quantile(v, [0.01, 0.99] if n != reference else [0.002, 0.998]) for n, v in draws.items() if len(v)]
    low, high = min((e[0] for e in ends), default=0.0), max((e[1] for e in ends), default=1.0)
    base = draws[reference]
    if len(base) > 2 and base.std() > 0:
        low, high = max(low, base.mean() - 7 * base.std()), min(high, base.mean() + 7 * base.std())
    pad = 0.05 * (high - low) or 0.05 * (1 + abs(low))
    return float(low - pad), float(high + pad)
