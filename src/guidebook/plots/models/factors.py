"""Factor models: how much of each column the factors explain."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ...inference.compare import Comparison
from ...inference.posterior import Posterior
from ..section import Section
from ..style import line_colour, to_svg
from .bands import MOST_COLUMNS, WIDTH, Band, band, column_names, identified, plot_bands


def sections(comparison: Comparison, x: Tensor | None, columns: Sequence[str] | None) -> list[Section]:
    """Show each column's share of variance explained, all posteriors side by side, the largest shares at the top."""
    found = shares(comparison.posteriors)
    if not found:
        return []
    first = next(iter(found.values())).mean
    order = np.argsort(-first, kind="stable")[:MOST_COLUMNS]
    names = column_names(len(first), columns)
    joined = Band(*(np.stack([getattr(values, part)[order] for values in found.values()]) for part in Band._fields))
    figure = plot_bands(
        joined,
        [str(names[i]) for i in order.tolist()],
        [(name, line_colour(comparison, name)) for name in found],
        "share of variance explained",
        (0.0, min(1.02, 1.1 * float(joined.high.max()))),
        WIDTH,
    )
    text = (
        "Share of each column's variance that the factors explain; the rest is noise. Dots are posterior means, bars "
        "hold 90 % of the posterior; point estimates have no bars. Rotating the factors does not change the "
        "likelihood, so loadings cannot be compared directly; these shares can."
    )
    svg = to_svg(figure, f"Shares of variance explained under {', '.join(found)}", "shares")
    return [Section("What the factors explain", text, [svg], wide=True)]


def shares(posteriors: Mapping[str, Posterior]) -> dict[str, Band]:
    """Return each column's share of variance explained, diag(W Wᵀ) / diag(W Wᵀ + ψ), which no rotation changes."""
    found = {}
    for name, draws in identified(posteriors, ("W", "noise_variance"), lambda draws, _: draws):
        signal, noise = draws["W"].square().sum(-1), draws["noise_variance"]
        noise = noise if noise.dim() == 3 else noise.unsqueeze(-1)  # one per column, or one for all
        found[name] = band(signal / (signal + noise))
    return found
