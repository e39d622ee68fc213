"""The components of Gaussian mixtures over the data."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ...inference.posterior import Posterior
from ...models import gmm
from ...models.gmm.covariance import as_matrices
from ..style import COLOURS, GREY, ellipse, panel, thin


class Mixture(NamedTuple):
    """Gaussian components, one representative of a posterior.

    Attributes
    ----------
    weights : ndarray, shape (k,)
    loc : ndarray, shape (k, d)
    covariance : ndarray, shape (k, d, d)
    """

    weights: np.ndarray
    loc: np.ndarray
    covariance: np.ndarray


def mixtures_of(posteriors: Mapping[str, Posterior]) -> dict[str, Mixture]:
    """Components of Gaussian mixtures at the posterior mean, by name, in the first one's order; none for other models.

    Parameters
    ----------
    posteriors : dict of Posterior
        With draws of ``weights``, ``loc`` and ``covariance``, as `guidebook.models.gmm` has them.
    """
    mixtures, anchor = {}, None
    for name, posterior in posteriors.items():
        sites = {site: posterior.draws[site] for site in ("weights", "loc", "covariance") if site in posterior.draws}
        if len(sites) < 3 or sites["weights"].dim() != 3 or sites["loc"].dim() != 4 or sites["loc"].shape[-1] < 2:
            continue
        sites = gmm.identify({site: value.detach().cpu().double() for site, value in sites.items()}, anchor)
        anchor = anchor or sites
        weights, loc, covariance = (sites[site].mean((0, 1)) for site in ("weights", "loc", "covariance"))
        covariance = as_matrices(covariance, loc).expand(*loc.shape, loc.shape[-1])
        mixtures[name] = Mixture(weights.numpy(), loc.numpy(), covariance.numpy())
    return mixtures


def separating_columns(mixture: Mixture) -> tuple[int, int]:
    """The two columns in which the closest two components are farthest apart, in units of their spread."""
    variance = np.diagonal(mixture.covariance, axis1=-2, axis2=-1)
    if len(mixture.loc) == 1:
        first, second = sorted(np.argsort(-variance[0])[:2])
        return int(first), int(second)
    one, other = np.triu_indices(len(mixture.loc), 1)
    gap = (mixture.loc[one] - mixture.loc[other]) ** 2 / (variance[one] + variance[other])
    best = sorted(np.argsort(-gap.sum(0), kind="stable")[:30])
    first, second = max(itertools.combinations(best, 2), key=lambda pair: gap[:, list(pair)].sum(1).min())
    return int(first), int(second)


def plot_mixtures(
    mixtures: Mapping[str, Mixture], x: Tensor, columns: tuple[int, int], labels: tuple[str, str]
) -> dict[str, Figure]:
    """Two columns of the data, and the ellipse that holds 90 % of each component, thicker where its weight is larger.

    A figure for each mixture, all with the same axes.
    """
    rows = x.detach().cpu().double().numpy()[:, list(columns)]
    low, high = rows.min(0), rows.max(0)
    pad = 0.15 * (high - low)
    rows = rows[thin(len(rows), 800)]
    figures = {}
    for name, mixture in mixtures.items():
        with panel(height=2.9) as (figure, ax):
            ax.plot(*rows.T, linestyle="none", marker="o", markersize=2.4, markeredgewidth=0, color=GREY, alpha=0.8)
            for weight, loc, covariance, colour in zip(*mixture, itertools.cycle(COLOURS), strict=False):
                centre, spread = loc[list(columns)], covariance[np.ix_(columns, columns)]
                ax.add_patch(ellipse(centre, spread, edgecolor=colour, linewidth=0.8 + 2 * float(weight)))
                ax.plot(*centre, marker="+", color=colour, markersize=7)
            ax.set_xlim(low[0] - pad[0], high[0] + pad[0])
            ax.set_ylim(low[1] - pad[1], high[1] + pad[1])
            ax.set_title(name)
            ax.set_xlabel(labels[0])
            ax.set_ylabel(labels[1])
        figures[name] = figure
    return figures
