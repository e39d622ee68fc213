"""Marginal distributions of one quantity under each posterior of a comparison, as curves over one grid."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import gaussian_kde

from ..inference.compare import Comparison
from .style import thin

LARGEST = 1e100  # value that is drawn: squares of larger ones overflow
_MOST_DRAWS = 4000  # that a curve is made of


class Marginal(NamedTuple):
    """One posterior's distribution of one quantity, as far as it can be drawn.

    Attributes
    ----------
    centre : float
        Median of the draws.
    is_point : bool
        Whether the draws do not vary, or are fewer than three.
    density : ndarray or None
        On the grid, its integral the share of draws that it stands for; None for a point, and for draws far away.
    """

    centre: float
    is_point: bool
    density: np.ndarray | None


def marginals(comparison: Comparison, label: str, size: int = 160) -> tuple[np.ndarray, dict[str, Marginal]]:
    """Return a grid of so many values, and each posterior's distribution of a quantity on it, by name.

    The grid reaches as far as the posteriors do, but at most 7 sd from the reference's mean. Posteriors of which no
    draw is finite are left out.
    """
    draws = drawable(comparison, label)
    low, high = reach(draws, comparison.reference)
    grid = np.linspace(low, high, size)
    found = {}
    for name, values in draws.items():
        if len(values):
            centre = float(np.median(values))
            is_point = len(values) < 3 or bool(values.std() < 1e-9 * (1 + abs(centre)))
            total = comparison.draws[name][label].numel()
            found[name] = Marginal(centre, is_point, None if is_point else _density(values, grid, total))
    return grid, found


def _density(values: np.ndarray, grid: np.ndarray, total: int) -> np.ndarray | None:
    low, high = grid[0], grid[-1]
    near = values[np.abs(values - (low + high) / 2) < 1.5 * (high - low)]  # what is far out would blur the curve
    if len(near) < 3 or not near.std():
        return None
    return gaussian_kde(near[thin(len(near), _MOST_DRAWS)])(grid) * len(near) / total


def drawable(comparison: Comparison, label: str) -> dict[str, np.ndarray]:
    """Return each posterior's draws of a quantity, without those that no axis can hold."""
    draws = {name: sites[label].flatten().numpy() for name, sites in comparison.draws.items()}
    return {name: values[np.abs(values) < LARGEST] for name, values in draws.items()}


def reach(draws: Mapping[str, np.ndarray], reference: str) -> tuple[float, float]:
    """Return the frame's limits: the reference and the others, but at most 7 sd from the reference's mean."""
    ends = [np.quantile(v, [0.01, 0.99] if n != reference else [0.002, 0.998]) for n, v in draws.items() if len(v)]
    low, high = min((e[0] for e in ends), default=0.0), max((e[1] for e in ends), default=1.0)
    base = draws[reference]
    if len(base) > 2 and base.std() > 0:
        low, high = max(low, base.mean() - 7 * base.std()), min(high, base.mean() + 7 * base.std())
    pad = max(0.05 * (high - low) or 0.05 * (1 + abs(low)), 1e-6 * max(abs(low), abs(high)))
    return float(low - pad), float(high + pad)
