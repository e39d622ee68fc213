"""Gaussian mixtures: components over the data."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ...inference.compare import Comparison
from ...inference.posterior import Posterior
from ...models import gmm
from ...models.gmm.covariance import as_matrices
from ..section import Section
from ..style import COLOURS, GREY, ellipse, panel, thin, to_svg
from .bands import identified, words_of_order


class Components(NamedTuple):
    """Posterior means of the components of a Gaussian mixture."""

    weights: np.ndarray  # (k,)
    loc: np.ndarray  # (k, d)
    covariance: np.ndarray  # (k, d, d)


def sections(comparison: Comparison, x: Tensor | None, columns: Sequence[str] | None) -> list[Section]:
    """Show the components of each posterior over the data."""
    found = components(comparison.posteriors)
    first = next(iter(found.values()), None)
    if x is None or first is None or x.shape[1] != first.loc.shape[1] or x.shape[1] < 2:
        return []
    chosen = separating_columns(first)
    across, up = (columns[c] if columns else f"column {c}" for c in chosen)
    figures = [
        to_svg(figure, f"Components of the mixture under {name} over {across} and {up} of the data", f"mixture{i}")
        for i, (name, figure) in enumerate(plot_components(found, x, chosen, (across, up)).items())
    ]
    text = (
        "The data in the two columns that separate the components best. Each ellipse holds 90 % of a component at the "
        "posterior mean of its parameters; its line is thicker the larger its weight. "
        f"{words_of_order(comparison.posteriors)}"
    )
    return [Section("Components of the mixture", text, figures)]


def components(posteriors: Mapping[str, Posterior]) -> dict[str, Components]:
    """Return the components at the posterior mean, in the first posterior's order; left out if sites are missing."""
    found = {}
    for name, sites in identified(posteriors, Components._fields, gmm.identify):
        weights, loc, covariance = (sites[site].mean((0, 1)) for site in Components._fields)
        covariance = as_matrices(covariance, loc).expand(*loc.shape, loc.shape[-1])
        found[name] = Components(weights.numpy(), loc.numpy(), covariance.numpy())
    return found


def separating_columns(mixture: Components) -> tuple[int, int]:
    """Return the two columns in which the closest two components are farthest apart, relative to their spread."""
    variance = np.diagonal(mixture.covariance, axis1=-2, axis2=-1)
    if len(mixture.loc) == 1:
        first, second = sorted(np.argsort(-variance[0])[:2])
    else:
        one, other = np.triu_indices(len(mixture.loc), 1)
        gap = (mixture.loc[one] - mixture.loc[other]) ** 2 / (variance[one] + variance[other])
        best = sorted(np.argsort(-gap.sum(0), kind="stable")[:30])
        first, second = max(itertools.combinations(best, 2), key=lambda pair: gap[:, list(pair)].sum(1).min())
    return int(first), int(second)


def plot_components(
    mixtures: Mapping[str, Components], x: Tensor, columns: tuple[int, int], labels: tuple[str, str]
) -> dict[str, Figure]:
    """Plot two columns of the data and the 90 % ellipse of each component: one figure per mixture, on the same axes."""
    rows = x.detach().cpu().double().numpy()[:, list(columns)]
    low, high = rows.min(0), rows.max(0)
    pad = 0.15 * (high - low)
    rows = rows[thin(len(rows), 800)]
    figures = {}
    for name, mixture in mixtures.items():
        with panel(height=2.9) as (figure, ax):
            ax.plot(*rows.T, linestyle="none", marker="o", markersize=2.4, markeredgewidth=0, color=GREY, alpha=0.8)
            each = enumerate(zip(*mixture, itertools.cycle(COLOURS), strict=False))
            for k, (weight, loc, covariance, colour) in each:
                centre, spread = loc[list(columns)], covariance[np.ix_(columns, columns)]
                ax.add_patch(ellipse(centre, spread, edgecolor=colour, linewidth=0.8 + 2 * float(weight)))
                ax.plot(*centre, marker="+", color=colour, markersize=7)
                ax.annotate(str(k), centre, (4, 3), textcoords="offset points", color=colour, fontweight="bold")
            (left, bottom), (right, top) = low - pad, high + pad
            ax.set(title=name, xlabel=labels[0], ylabel=labels[1], xlim=(left, right), ylim=(bottom, top))
        figures[name] = figure
    return figures
