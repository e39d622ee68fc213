"""Regressions: the weight of each column."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ...inference.compare import Comparison
from ...inference.posterior import Posterior
from ..section import Section
from ..style import AXIS, line_colour, to_svg
from .bands import MOST_COLUMNS, WIDTH, Band, band, column_names, identified, plot_bands


def sections(comparison: Comparison, x: Tensor | None, columns: Sequence[str] | None) -> list[Section]:
    """Show each column's weight, all posteriors side by side, the largest at the top."""
    found = weights(comparison.posteriors)
    if not found:
        return []
    first = next(iter(found.values())).mean
    order = np.argsort(-np.abs(first), kind="stable")[:MOST_COLUMNS]
    names = column_names(len(first), columns)
    joined = Band(*(np.stack([getattr(values, part)[order] for values in found.values()]) for part in Band._fields))
    low, high = float(np.min(joined.low)), float(np.max(joined.high))
    margin = 0.05 * (high - low) or 1.0
    figure = plot_bands(
        joined,
        [str(names[i]) for i in order.tolist()],
        [(name, line_colour(comparison, name)) for name in found],
        "weight",
        (min(low, 0.0) - margin, max(high, 0.0) + margin),
        WIDTH,
    )
    figure.axes[0].axvline(0, color=AXIS, linewidth=0.8, zorder=0)
    text = (
        "What one unit of each column, as fitted (one standard deviation of it, if columns were standardised), adds to "
        "the linear score, the others held. Dots are posterior means, bars hold 90 % of the posterior; point estimates "
        "have no bars. A bar across zero leaves the sign open."
    )
    if (left := len(first) - len(order)) > 0:
        text += f" {left} smaller {'weight is' if left == 1 else 'weights are'} not drawn."
    return [Section("Weights", text, [to_svg(figure, f"Weights under {', '.join(found)}", "weights")], wide=True)]


def weights(posteriors: Mapping[str, Posterior]) -> dict[str, Band]:
    """Return each column's weight, without the bias."""
    return {name: band(draws["w"][..., 1:]) for name, draws in identified(posteriors, ("w",), lambda draws, _: draws)}
