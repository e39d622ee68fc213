"""Predictive checks: what was observed beside what the fitted model predicts, and LOO-PIT.

Säilynoja, Bürkner and Vehtari (2022), Graphical test for discrete uniformity and its applications in goodness-of-fit
evaluation and multiple sample comparison, Statistics and Computing 32: the band; Gabry, Simpson, Vehtari, Betancourt
and Gelman (2019), Visualization in Bayesian workflow, JRSS A 182.
"""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import COLOURS, GREY, style

MOST_VALUES = 60  # of counts that have a bin each
INTERVAL = 0.9  # of predictions


def plot_predictive_check(tree: xr.DataTree, site: str | None = None) -> Figure:
    """Plot how often values of an observed site occur and how often they are predicted, and LOO-PIT if there is one.

    Parameters
    ----------
    tree : DataTree
        With the groups ``posterior_predictive`` and ``observed_data``, and ``log_likelihood`` for LOO-PIT, as
        `Posterior.to_datatree` and other libraries make it.
    site : str, optional
        Name of the observed variable. Default: the only one.

    Returns
    -------
    Figure
        Left, frequencies by value: observed ones as bars, predicted ones with the interval that 90 % of replicated data
        sets lie in. Right, the distribution function of LOO-PIT less the uniform one, which lies within the grey band
        with probability 95 % if the model predicts with the right spread: a slope up in the middle means that
        predictions are too wide, a slope down too narrow.

    Raises
    ------
    ValueError
        If a group is missing, or there are several observed variables and none is named.
    """
    observed, predicted = _values(tree, site)
    name = str(observed.name)
    has_rows = "log_likelihood" in tree.children and name in tree["log_likelihood"]
    has_rows = has_rows and tree["log_likelihood"][name].shape[2:] == observed.shape
    with style():
        figure = Figure(figsize=(6.6 if has_rows else 3.5, 2.6))
        axes = figure.subplots(1, 1 + has_rows, squeeze=False)[0]
        _frequencies(axes[0], observed.values.ravel(), predicted.values.reshape(-1, observed.size), name)
        if has_rows:
            _loo_pit(axes[1], tree, name)
    return figure


def _values(tree: xr.DataTree, site: str | None) -> tuple[xr.DataArray, xr.DataArray]:
    for group in ("posterior_predictive", "observed_data"):
        if group not in tree.children:
            raise ValueError(f"plot_predictive_check: the tree has no group {group!r}")
    known = [str(name) for name in tree["observed_data"].data_vars if name in tree["posterior_predictive"]]
    if site is None and len(known) == 1:
        site = known[0]
    if site not in known:
        raise ValueError(f"plot_predictive_check: site= must be one of {', '.join(known)}; got {site!r}")
    predicted: Any = tree["posterior_predictive"][site].transpose("chain", "draw", ...)
    return tree["observed_data"][site], predicted  # pyright: ignore[reportReturnType]


def _frequencies(ax: Axes, observed: np.ndarray, predicted: np.ndarray, name: str) -> None:
    edges = _edges(observed, predicted)
    inside = np.clip(predicted, edges[0], edges[-1])  # what lies beyond counts at the ends
    counts = np.stack([np.histogram(row, edges)[0] for row in inside]) / observed.size
    tail = (1 - INTERVAL) / 2
    low, high = np.quantile(counts, [tail, 1 - tail], axis=0)
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    ax.bar(middle, np.histogram(observed, edges)[0] / observed.size, width=0.92 * width, color=GREY, label="observed")
    mean = counts.mean(0)
    ax.errorbar(
        middle,
        mean,
        yerr=np.abs([mean - low, high - mean]),
        fmt="o",
        markersize=3,
        linewidth=1.2,
        color=COLOURS[0],
        label=f"predicted, {100 * INTERVAL:.0f} %",
    )
    ax.set_xlabel(name)
    ax.set_title("share of rows", loc="left")
    ax.legend()


def _edges(observed: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the edges of bins: one for each count, if there are few, else as many as the data allow."""
    low, high = min(observed.min(), np.quantile(predicted, 0.005)), max(observed.max(), np.quantile(predicted, 0.995))
    whole = np.array_equal(observed, np.round(observed)) and np.array_equal(predicted[0], np.round(predicted[0]))
    if whole and high - low < MOST_VALUES:
        return np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    return np.histogram_bin_edges(np.concatenate([observed.ravel(), [low, high]]).astype(float), "auto")


def _loo_pit(ax: Axes, tree: xr.DataTree, name: str) -> None:
    from arviz_stats import loo_pit  # pyright: ignore[reportPrivateImportUsage] (slow to import)
    from arviz_stats.ecdf_utils import ecdf_pit

    values = loo_pit(tree, var_names=name)[name].values.ravel()
    at = np.linspace(0, 1, 201)
    share = np.searchsorted(np.sort(values), at, side="right") / values.size
    x, _, low, high = ecdf_pit(values, ci_prob=0.95, n_simulations=1000)
    ax.fill_between(x, low - x, high - x, color=GREY, alpha=0.4, linewidth=0)
    ax.plot(at, share - at, color=COLOURS[0], linewidth=1.4)
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set_xlabel("LOO-PIT")
    ax.set_title("distribution function less the uniform one", loc="left")
