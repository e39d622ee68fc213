"""Posteriors with their components in one order, and means with 90 % intervals per column of the data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ...inference.posterior import Posterior
from ..style import FAINT, INK, style

MOST_COLUMNS = 40  # drawn as lines of text
WIDTH = 4.4  # inches of a figure with all methods: its text can be read on a telephone


def identified(
    posteriors: Mapping[str, Posterior], sites: Sequence[str], identify: Callable[..., dict[str, Tensor]]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield name and identified draws of the posteriors that have all ``sites``, in the first one's order."""
    anchor = None
    for name, posterior in posteriors.items():
        if {*sites} <= posterior.draws.keys():
            draws = identify({site: posterior.draws[site].detach().cpu().double() for site in sites}, anchor)
            anchor = anchor or draws
            yield name, draws


def words_of_order(posteriors: Mapping[str, Posterior]) -> str:
    """Say what the numbers and colours of a mixture's components mean, on a page of one posterior or of several."""
    if len(posteriors) == 1:
        return "Numbers and colours tell components apart, and mean nothing else: exchanging them changes nothing."
    return (
        "A component has the number and the colour of the reference's closest one. Exchanging components changes "
        "nothing, so there are K! equal modes; k̂ and the ELBO see only the guide's own."
    )


class Band(NamedTuple):
    """Posterior mean and the ends of the central 90 % of draws, arrays of one shape."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def band(draws: Tensor) -> Band:
    """Summarise draws shaped (chain, draw, …)."""
    flat = draws.flatten(0, 1).numpy()
    low, high = np.quantile(flat, [0.05, 0.95], axis=0)
    return Band(flat.mean(0), low, high)


def column_names(width: int, columns: Sequence[str] | None) -> Sequence[str]:
    """Return the columns' names, or numbers if they are not given."""
    return columns if columns is not None and len(columns) == width else [f"column {i}" for i in range(width)]


def plot_bands(
    shown: Band,
    columns: Sequence[str],
    series: Sequence[tuple[str, str]],
    quantity: str,
    limits: tuple[float, float],
    width: float,
) -> Figure:
    """Plot dots and 90 % intervals: one line per column of the data, one (label, colour) per series."""
    places = np.arange(len(columns))
    step = min(0.7 / len(series), 0.16)
    with style():
        figure = Figure(figsize=(width, 1.1 + (0.2 + 0.03 * len(series)) * len(columns)))
        ax = figure.subplots()
        for i, (label, colour) in enumerate(series):
            row = places + step * (i - (len(series) - 1) / 2)
            ax.hlines(row, shown.low[i], shown.high[i], color=colour, linewidth=1.6, alpha=0.45)
            ax.plot(shown.mean[i], row, "o", markersize=3.6, markeredgewidth=0, color=colour, label=label)
        ax.set_yticks(places, [name if len(name) <= 28 else name[:27] + "…" for name in columns])
        ax.set_ylim(len(columns) - 0.4, -0.6)
        ax.set_xlim(*limits)
        ax.tick_params(axis="y", length=0, labelcolor=INK, labelsize=8.5)
        ax.grid(axis="y", color=FAINT, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.set_xlabel(quantity)
        if len(series) > 1:
            figure.legend(loc="outside lower center", ncols=int(width / 1.3))
    return figure
