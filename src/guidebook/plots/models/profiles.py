"""What the components of a mixture of counts, and the factors of a factor model, say of each column of the data."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ...inference.posterior import Posterior
from ...models import mixture
from ..style import COLOURS, INK, REFERENCE_LINE, Look, style

MOST_COLUMNS = 40  # more are drawn as an image


class Band(NamedTuple):
    """Posterior mean and the ends of the central 90 % of draws, each an array of one shape."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def profiles_of(posteriors: Mapping[str, Posterior]) -> dict[str, Band]:
    """Rates or probabilities of the components, (k, d), by posterior, in the first one's order; none for other models.

    Parameters
    ----------
    posteriors : dict of Posterior
        With draws of ``weights`` and ``rate`` or ``probs``, as `guidebook.models.mixture` has them.
    """
    profiles, anchor = {}, None
    for name, posterior in posteriors.items():
        draws = posterior.draws
        site = next((site for site in ("rate", "probs") if site in draws and draws[site].dim() == 4), None)
        if site is None or "weights" not in draws:
            continue
        sites = {key: draws[key].detach().cpu().double() for key in ("weights", site)}
        sites = mixture.identify(sites, anchor)
        anchor = anchor or sites
        profiles[name] = _band(sites[site])
    return profiles


def shares_of(posteriors: Mapping[str, Posterior]) -> dict[str, Band]:
    """Share of each column's variance that the factors account for, (d), by posterior; none for other models.

    diag(W Wᵀ) / diag(W Wᵀ + ψ): turning the factors leaves it as it is.

    Parameters
    ----------
    posteriors : dict of Posterior
        With draws of ``W`` and ``noise_variance``, as the factor models have them.
    """
    shares = {}
    for name, posterior in posteriors.items():
        draws = posterior.draws
        if not {"W", "loc", "noise_variance"} <= set(draws) or draws["W"].dim() != 4:
            continue
        signal = draws["W"].detach().cpu().double().square().sum(-1)
        noise = draws["noise_variance"].detach().cpu().double()
        noise = noise if noise.dim() == 3 else noise.unsqueeze(-1)  # a variance a column, or one for all
        shares[name] = _band(signal / (signal + noise))
    return shares


def plot_profiles(profiles: Mapping[str, Band], columns: Sequence[str], quantity: str) -> dict[str, Figure]:
    """A figure for each mixture: its components' values at each column, or an image of them where columns are many."""
    if len(columns) > MOST_COLUMNS:
        top = max(float(band.mean.max()) for band in profiles.values())
        return {name: _image(name, band.mean, top, quantity) for name, band in profiles.items()}
    right = max(float(band.high.max()) for band in profiles.values())
    figures = {}
    for name, band in profiles.items():
        looks = [(f"component {k}", COLOURS[k % len(COLOURS)]) for k in range(len(band.mean))]
        figure = _rows(band, columns, looks, quantity, (-0.02 * right, 1.04 * right), 3.9)
        figure.axes[0].set_title(name)
        figures[name] = figure
    return figures


def plot_shares(shares: Mapping[str, Band], columns: Sequence[str], looks: Mapping[str, Look]) -> Figure:
    """The shares of all posteriors side by side, columns with the largest at the top."""
    first = next(iter(shares.values()))
    order = np.argsort(-first.mean, kind="stable")[:MOST_COLUMNS]
    joined = Band(*(np.stack([getattr(band, part)[order] for band in shares.values()]) for part in Band._fields))
    grey = next(iter(looks))
    lines = [(name, REFERENCE_LINE if name == grey else looks[name].colour) for name in shares]
    quantity = "share of the column's variance explained by the factors"
    return _rows(joined, [str(columns[i]) for i in order.tolist()], lines, quantity, (-0.02, 1.02), 5.2)


def _band(draws: Tensor) -> Band:
    flat = draws.flatten(0, 1).numpy()
    low, high = np.quantile(flat, [0.05, 0.95], axis=0)
    return Band(flat.mean(0), low, high)


def _rows(
    band: Band,
    columns: Sequence[str],
    series: Sequence[tuple[str, str]],
    quantity: str,
    limits: tuple[float, float],
    width: float,
) -> Figure:
    """Dots and 90 % intervals, a row a column of the data, a colour a series."""
    places = np.arange(len(columns))
    step = min(0.7 / len(series), 0.16)
    with style():
        figure = Figure(figsize=(width, 1.1 + (0.2 + 0.03 * len(series)) * len(columns)))
        ax = figure.subplots()
        for i, (label, colour) in enumerate(series):
            row = places + step * (i - (len(series) - 1) / 2)
            ax.hlines(row, band.low[i], band.high[i], color=colour, linewidth=1.6, alpha=0.45)
            ax.plot(band.mean[i], row, "o", markersize=3.6, markeredgewidth=0, color=colour, label=label)
        ax.set_yticks(places, [name if len(name) <= 28 else name[:27] + "…" for name in columns])
        ax.set_ylim(len(columns) - 0.4, -0.6)
        ax.set_xlim(*limits)
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.grid(axis="y", color="#e6eaee", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.set_xlabel(quantity)
        figure.legend(loc="outside lower center", ncols=int(width / 1.3))
    return figure


def _image(name: str, values: np.ndarray, top: float, quantity: str) -> Figure:
    """Components by columns; an image of pixels a component where the columns make a square."""
    side = round(values.shape[1] ** 0.5)
    with style():
        if side * side != values.shape[1]:
            figure = Figure(figsize=(7.2, 0.9 + 0.22 * len(values)))
            ax = figure.subplots()
            ax.imshow(values, aspect="auto", cmap="Greys", vmin=0, vmax=top, interpolation="nearest")
            ax.set(xlabel="column", ylabel="component")
            ax.set_title(name)
        else:
            across = min(len(values), 8)
            down = -(-len(values) // across)
            figure = Figure(figsize=(0.85 * across + 0.8, 0.95 * down + 0.4))
            panels = figure.subplots(down, across, squeeze=False)
            for ax in panels.flat:
                ax.set_axis_off()
            for k, (ax, row) in enumerate(zip(panels.flat, values, strict=False)):
                picture = row.reshape(side, side)
                ax.imshow(picture, cmap="Greys", vmin=0, vmax=top, interpolation="nearest")
                ax.set_title(str(k), fontsize=7)
            figure.suptitle(name, fontsize=8.5)
        figure.colorbar(figure.axes[0].images[0], ax=figure.axes, label=quantity, shrink=0.9)
    return figure
