"""Two quantities against one another."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..inference.compare import Comparison
from .style import GREY, REFERENCE_LINE, ellipse, looks, panel, thin


def companion(comparison: Comparison, label: str) -> str | None:
    """The quantity most correlated with ``label`` under a reference with a spread; None if there is no other."""
    draws = pd.DataFrame({name: value.flatten() for name, value in comparison.draws[comparison.reference].items()})
    others = draws.drop(columns=label)
    alike = others.corrwith(draws[label]).abs().dropna()  # a quantity that does not vary has no correlation
    return None if alike.empty else str(alike.idxmax())


def plot_pair(comparison: Comparison, first: str, second: str) -> Figure:
    """Two quantities: the reference's draws as dots, every posterior's 90 % normal ellipse, points as crosses."""
    with panel(4.6, 3.7) as (figure, ax):
        for name, look in looks(comparison).items():
            points = np.stack([comparison.draws[name][label].flatten().numpy() for label in (first, second)], -1)
            colour = look.colour
            if name == comparison.reference:
                dots, colour = points[thin(len(points), 500)], REFERENCE_LINE
                ax.plot(*dots.T, linestyle="none", marker="o", markersize=2, markeredgewidth=0, color=GREY, alpha=0.6)
            centre = points.mean(0)
            if len(points) > 2:
                ax.add_patch(ellipse(centre, np.cov(points.T), edgecolor=colour, linestyle=look.dash, linewidth=1.6))
                ax.plot(*centre, marker="+", color=colour, markersize=7)
            else:
                ax.plot(*centre, marker="X", color=colour, markersize=7, markeredgewidth=0)
        ax.autoscale_view()
        ax.set_xlabel(first)
        ax.set_ylabel(second)
    return figure
