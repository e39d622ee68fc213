"""Mixtures of Poissons or multinomials: each component's value in each column."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ...inference.compare import Comparison
from ...inference.posterior import Posterior
from ...models import mixture
from ..section import Section
from ..style import COLOURS, style, to_svg
from .bands import MOST_COLUMNS, Band, band, column_names, identified, plot_bands, words_of_order
from .images import plot_samples

_KINDS = {"rate": "expected count", "probs": "probability"}


def sections(comparison: Comparison, x: Tensor | None, columns: Sequence[str] | None) -> list[Section]:
    """Show what the components of each posterior expect of each column."""
    reference = comparison.posteriors[comparison.reference].draws
    site = "rate" if "rate" in reference else "probs"
    found = profiles(comparison.posteriors, site)
    if not found:
        return []
    names, kind = column_names(next(iter(found.values())).mean.shape[1], columns), _KINDS[site]
    figures = [
        to_svg(figure, f"Components of the mixture under {name}: {kind} of each column", f"profile{i}")
        for i, (name, figure) in enumerate(plot_profiles(found, names, kind).items())
    ]
    text = (
        f"The {kind} of each column in each component: dots are posterior means, bars hold 90 % of the posterior; "
        f"point estimates have no bars. {words_of_order(comparison.posteriors)}"
    )
    return [Section("Components of the mixture", text, figures)]


def profiles(posteriors: Mapping[str, Posterior], site: str) -> dict[str, Band]:
    """Return the components' values (k, d) of ``site``, "rate" or "probs", in the first posterior's order."""
    return {name: band(draws[site]) for name, draws in identified(posteriors, ("weights", site), mixture.identify)}


def plot_profiles(found: Mapping[str, Band], columns: Sequence[str], quantity: str) -> dict[str, Figure]:
    """Plot the components of each mixture; as an image if there are many columns."""
    if len(columns) > MOST_COLUMNS:
        top = max(float(values.mean.max()) for values in found.values())
        return {name: _image(name, values.mean, top, quantity) for name, values in found.items()}
    right = max(float(values.high.max()) for values in found.values())
    figures = {}
    for name, values in found.items():
        series = [(f"component {k}", COLOURS[k % len(COLOURS)]) for k in range(len(values.mean))]
        figures[name] = plot_bands(values, columns, series, quantity, (-0.02 * right, 1.04 * right), 3.9)
        figures[name].axes[0].set_title(name, fontsize=8.5)
    return figures


def _image(name: str, values: np.ndarray, top: float, quantity: str) -> Figure:
    """Components by columns; one image of pixels per component if the columns make a square."""
    if math.isqrt(values.shape[1]) ** 2 == values.shape[1]:
        figure = plot_samples(values / top, columns=8)
        figure.axes[0].set_title(f"{name}: {quantity}, black is {top:.3g}", fontsize=8.5)
        return figure
    with style():
        figure = Figure(figsize=(7.2, 0.9 + 0.22 * len(values)))
        ax = figure.subplots()
        picture = ax.imshow(values, aspect="auto", cmap="Greys", vmin=0, vmax=top, interpolation="nearest")
        ax.set(title=name, xlabel="column", ylabel="component")
        figure.colorbar(picture, ax=ax, label=quantity, shrink=0.9)
    return figure
