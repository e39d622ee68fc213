"""Convergence diagnostics of draws shaped (chain, draw, …), each a call of arviz-stats.

Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021), Rank-normalization, folding, and localization: an improved R̂;
Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

MAX_R_HAT = 1.01  # above it chains disagree (Vehtari et al. 2021)
MIN_ESS = 400  # 100 per chain for four chains (Vehtari et al. 2021)
MAX_K_HAT = 0.7  # above it importance weights are too heavy-tailed to rely on (Vehtari et al. 2024)
MOST_ENTRIES = 5_000  # of a site, at half a millisecond each


def _array_stats():
    # imported here because it is slow
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    return array_stats


def _as_chains(draws: Tensor) -> np.ndarray:
    """Return draws (chain, draw, …) as float64, a single chain as its two halves: R̂ compares chains."""
    values = draws.detach().cpu().double()
    if values.shape[0] == 1 and values.shape[1] >= 8:
        half = values.shape[1] // 2
        values = torch.stack([values[0, :half], values[0, half : 2 * half]])
    return values.numpy()


def r_hat(draws: Tensor) -> Tensor:
    """Return the rank-normalised split R̂ of each entry, shape (*site) from (chain, draw, *site); nan for constants."""
    return _quiet(_array_stats().rhat, _as_chains(draws))


def ess(draws: Tensor, of: str = "bulk") -> Tensor:
    """Return the effective sample size of each entry, shape (*site) from (chain, draw, *site).

    ``of`` is "bulk", by ranks, or "mean", for the mean of the values as they are.
    """
    return _quiet(_array_stats().ess, _as_chains(draws), method=of)


def of_sites(draws: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return R̂ and effective sample sizes by site, without sites of over `MOST_ENTRIES` entries: they take minutes."""
    small = {name: value for name, value in draws.items() if value[0, 0].numel() <= MOST_ENTRIES}
    return {n: r_hat(value) for n, value in small.items()}, {n: ess(value) for n, value in small.items()}


def mcse(draws: Tensor, of: str = "mean") -> Tensor:
    """Return the Monte Carlo standard error of each entry's mean or standard deviation, in the entry's units.

    The error of a standard deviation s is that of the mean of (x - x̄)², divided by 2 s (delta method). arviz-stats'
    own ``mcse(method="sd")`` (0.8.0) takes the effective sample size of x instead of (x - x̄)². NUTS's draws are
    antithetic, so that the former is 2 to 3 times the number of draws and the latter is not: on 20 independent normals
    (4 × 1000 draws, 12 seeds) its z-scores of standard deviations had a spread of 2.75 instead of 1.

    Parameters
    ----------
    draws : Tensor, shape (chain, draw, *site)
    of : {"mean", "sd"}

    Returns
    -------
    Tensor, shape (*site)
    """
    if of == "sd":
        values = draws.detach().cpu().double()
        squares = (values - values.mean((0, 1))) ** 2
        return mcse(squares) / (2 * squares.mean((0, 1)).sqrt())
    return _quiet(_array_stats().mcse, _as_chains(draws), method=of)


def k_hat(log_weights: Tensor) -> float:
    """Return the Pareto shape k̂ of log importance weights (nats), shape (draw,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # psislw is written for leave-one-out and takes log likelihoods, the negative log weights
        _, shape = _array_stats().psislw(-log_weights.detach().cpu().double().numpy())
    return float(shape)


def _quiet(statistic, values: np.ndarray, **options) -> Tensor:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.as_tensor(np.asarray(statistic(values, chain_axis=0, draw_axis=1, **options), dtype=np.float64))
