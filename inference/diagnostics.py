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
    # slow to import: only where it is used
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    return array_stats


def _as_chains(draws: Tensor) -> np.ndarray:
    """(chain, draw, …) as float64; one chain is cut into halves, so that R̂ has something to compare."""
    values = draws.detach().cpu().double()
    if values.shape[0] == 1 and values.shape[1] >= 8:
        half = values.shape[1] // 2
        values = torch.stack([values[0, :half], values[0, half : 2 * half]])
    return values.numpy()


def r_hat(draws: Tensor) -> Tensor:
    """Rank-normalised split R̂ of every entry; nan for one that does not vary. (chain, draw, *site) gives (*site)."""
    return _quiet(_array_stats().rhat, _as_chains(draws))


def ess(draws: Tensor) -> Tensor:
    """Bulk effective sample size of every entry; (chain, draw, *site) gives (*site)."""
    return _quiet(_array_stats().ess, _as_chains(draws))


def of_sites(draws: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """R̂ and effective sample sizes of all sites but those with more than `MOST_ENTRIES` entries, which take minutes."""
    small = {name: value for name, value in draws.items() if value[0, 0].numel() <= MOST_ENTRIES}
    return {n: r_hat(value) for n, value in small.items()}, {n: ess(value) for n, value in small.items()}


def mcse(draws: Tensor, of: str = "mean") -> Tensor:
    """Monte Carlo standard error of every entry's mean or ("sd") standard deviation, in the entry's own units."""
    return _quiet(_array_stats().mcse, _as_chains(draws), method=of)


def k_hat(log_weights: Tensor) -> float:
    """Pareto shape of importance weights given in nats, shape (draw,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # psislw takes what leave-one-out has at hand, log likelihoods: the weights' logarithms with the sign turned
        _, shape = _array_stats().psislw(-log_weights.detach().cpu().double().numpy())
    return float(shape)


def _quiet(statistic, values: np.ndarray, **options) -> Tensor:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.as_tensor(np.asarray(statistic(values, chain_axis=0, draw_axis=1, **options), dtype=np.float64))
