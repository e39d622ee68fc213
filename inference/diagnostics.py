"""Convergence diagnostics of draws shaped (chain, draw, *site), of all entries of a site at once.

R̂, effective sample sizes and Monte Carlo errors are those of arviz-stats, to rounding, batched over entries.

Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021), Rank-normalization, folding, and localization: an improved R̂;
Geyer (1992), Practical Markov chain Monte Carlo, Statistical Science 7, section 3.3: sums of autocovariances;
Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.special import fdtrc, ndtri
from torch import Tensor

MAX_R_HAT = 1.01  # above it chains disagree (Vehtari et al. 2021), unless it is the largest of many by chance
MAX_CHANCE = 0.05  # of any disagreement, among all quantities of a run
MIN_ESS = 400  # 100 per chain for four chains (Vehtari et al. 2021)
MAX_K_HAT = 0.7  # above it importance weights are too heavy-tailed to rely on (Vehtari et al. 2024)
MIN_K_HAT_DRAWS = 100  # fewer leave too small a tail to fit
_VALUES = 2**17  # draws at work at once, an array of which fits the cache

Statistic = Callable[[np.ndarray], tuple[np.ndarray, ...]]


def r_hat(draws: Tensor) -> Tensor:
    """Return the rank-normalised split R̂ of each entry, shape (*site) from (chain, draw, *site); nan for constants."""
    return _by_entry(_r_hat_and_ess, draws)[0]


def disagrees(draws: dict[str, Tensor], r_hats: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return at which entries chains disagree: R̂ is above `MAX_R_HAT`, and not by chance as the largest of many.

    If all chains draw from one distribution, the means of m half chains have a variance of 1/n of the draws' own, n the
    effective draws of a half chain, so that 1 + n (R̂² - 1) is about F distributed with m - 1 and 2/r² degrees of
    freedom, r² = 10/(m n) the relative variance of the estimate of n. It is estimated within chains, because the usual
    estimate falls if they disagree. R̂ is put down to chance if the p-value of the ranks and that of their distances to
    the median, times two and the number of entries, are at least 5 %. It is not if effective draws within chains are
    fewer than half of `MIN_ESS`, since then too little is known.

    Parameters
    ----------
    draws : dict of Tensor
        Shape (chain, draw, *site).
    r_hats : dict of Tensor
        What `r_hat` gives for the same sites, shape (*site).

    Returns
    -------
    dict of Tensor
        Booleans, shape (*site).
    """
    count = sum(int((~value.isnan()).sum()) for value in r_hats.values())
    found = {}
    for name, value in r_hats.items():
        mask = value > MAX_R_HAT
        if mask.any():
            p_value, effective = _by_entry(_chance, draws[name][:, :, mask])
            mask[mask.clone()] = ~((p_value * count >= MAX_CHANCE) & (effective >= MIN_ESS / 2))
        found[name] = mask
    return found


def ess(draws: Tensor, of: str = "bulk") -> Tensor:
    """Return the effective sample size of each entry, shape (*site) from (chain, draw, *site).

    ``of`` is "bulk" (of normal scores of the ranks), "mean" or "sd" (of the squared distances to the mean).
    """
    if of == "bulk":
        return _by_entry(_r_hat_and_ess, draws)[1]
    return _by_entry(lambda x: (_ess(_halves(_squares(x) if of == "sd" else x)),), draws)[0]


def least_ess(count: int) -> float:
    """Return the least effective sample size that ``count`` quantities may have: `MIN_ESS`, or less by chance.

    An estimate of n effective draws has a relative standard deviation of about √(10/n), so the least of many is well
    below n. The bound is below `MIN_ESS` by as much as the 5 % quantile of the least of many is below that of one.
    """
    excess = float(ndtri(MAX_CHANCE) - ndtri(MAX_CHANCE / count))
    return MIN_ESS * math.exp(-excess * math.sqrt(10 / MIN_ESS))


def of_quantities(draws: Tensor) -> dict[str, Tensor]:
    """Return `r_hat`, `mcse`, ``mcse_sd`` and ``ess``, of bulk or sd, whichever is less: one pass over the draws."""
    return dict(zip(("r_hat", "mcse", "mcse_sd", "ess"), _by_entry(_of_quantities, draws), strict=True))


def of_sites(draws: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return R̂ and bulk effective sample sizes, by site."""
    both = {name: _by_entry(_r_hat_and_ess, value) for name, value in draws.items()}
    return {name: found[0] for name, found in both.items()}, {name: found[1] for name, found in both.items()}


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
    return _by_entry(_error_of_sd if of == "sd" else _error_of_mean, draws)[0]


def k_hat(log_weights: Tensor) -> float | None:
    """Return the Pareto shape k̂ of log importance weights (nats), shape (draw,), or None as `pareto_smoothed`."""
    return pareto_smoothed(log_weights)[1]


def pareto_smoothed(log_weights: Tensor) -> tuple[Tensor, float | None]:
    """Return log importance weights (nats), shape (draw,), with their tail smoothed, float64, and its shape k̂.

    With fewer than `MIN_K_HAT_DRAWS`, or equal weights in the tail, they are as given, and k̂ is None.
    """
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage] (slow to import)

    values = log_weights.detach().cpu().double()
    if len(values) < MIN_K_HAT_DRAWS:
        return values, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # psislw is written for leave-one-out and takes log likelihoods, the negative log weights
        try:
            smoothed, shape = array_stats.psislw(-values.numpy())
        except ValueError:  # all of the tail is the same
            return values, None
    return torch.as_tensor(np.asarray(smoothed)), float(shape)


def _by_entry(statistic: Statistic, draws: Tensor) -> list[Tensor]:
    """Apply a function of (entry, chain, draw) to draws (chain, draw, *site), a part of the entries at a time.

    A single chain is taken as its two halves, since R̂ compares chains. An entry with a nan gives nan, and so does
    every entry of fewer than four draws.
    """
    chains, length, *shape = draws.shape
    values = draws.detach().flatten(2) if shape else draws.detach()[..., None]
    found = []
    for part in values.split(max(1, _VALUES // (chains * length)), 2):
        x = part.permute(2, 0, 1).double().cpu().contiguous().numpy()
        if length < 4:
            x = np.full((len(x), chains, 4), np.nan)
        if chains == 1 and length >= 8:
            x = x[..., : length // 2 * 2].reshape(len(x), 2, -1)
        with np.errstate(all="ignore"):
            figures = np.stack(statistic(x))
        figures[:, np.isnan(x).any((1, 2))] = np.nan
        found.append(torch.from_numpy(figures))
    return [figure.reshape(shape) for figure in torch.cat(found, 1)]


def _halves(x: np.ndarray) -> np.ndarray:
    """Split each chain in two, without its middle draw if their number is odd."""
    half = x.shape[2] // 2
    return np.concatenate([x[..., :half], x[..., -half:]], axis=1)


def _squares(x: np.ndarray) -> np.ndarray:
    return (x - x.mean((1, 2), keepdims=True)) ** 2


def _r_hat_and_ess(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z, folded = _scores(x)
    bulk, tail = _split_r_hat(z), _split_r_hat(folded)
    return np.where(tail > bulk, tail, bulk), _ess(z)


def _chance(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of so large an R̂ if chains agree, and the effective draws within chains."""
    p_values, sizes = [], []
    for z in _scores(x):
        halves, length = z.shape[1:]
        chains = halves // 2
        whole = np.concatenate([z[:, :chains], z[:, chains:]], axis=2)
        time = _autocorrelation_time(_autocovariance(whole), np.zeros(len(z)), chains)
        ratio = length * z.mean(2).var(1, ddof=1) / z.var(2, ddof=1).mean(1) / time
        size = halves * length / time
        p_values.append(fdtrc(halves - 1, np.maximum(size / 5, 1), ratio))
        sizes.append(size)
    return np.minimum(1, 2 * np.minimum(*p_values)), np.minimum(*sizes)


def _of_quantities(x: np.ndarray) -> tuple[np.ndarray, ...]:
    largest, bulk = _r_hat_and_ess(x)
    squares = _squares(x)
    of_sd = _ess(_halves(squares))
    error_of_sd = squares.std((1, 2), ddof=1) / np.sqrt(of_sd) / (2 * np.sqrt(squares.mean((1, 2))))
    return largest, *_error_of_mean(x), error_of_sd, np.minimum(bulk, of_sd)


def _error_of_mean(x: np.ndarray) -> tuple[np.ndarray]:
    return (x.std((1, 2), ddof=1) / np.sqrt(_ess(_halves(x))),)


def _error_of_sd(x: np.ndarray) -> tuple[np.ndarray]:
    squares = _squares(x)
    return (_error_of_mean(squares)[0] / (2 * np.sqrt(squares.mean((1, 2)))),)


def _scores(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return normal scores of half chains and of their distances to the median."""
    halves = _halves(x)
    z, median = _normal_scores(halves)
    return z, _normal_scores(np.abs(halves - median))[0]


def _normal_scores(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return normal quantiles of the ranks among all chains, equal draws at their average rank, and the medians."""
    size = x.shape[1] * x.shape[2]
    flat = x.reshape(len(x), size)
    order = flat.argsort(1)
    ordered = np.take_along_axis(flat, order, 1)
    median = (ordered[:, (size - 1) // 2] + ordered[:, size // 2]) / 2

    quantiles = ndtri((np.arange(2 * size + 1) / 2 - 3 / 8) / (size + 1 / 4))  # of the ranks 0, 1/2, 1, …, size
    scores = np.broadcast_to(quantiles[2::2], flat.shape).copy()
    row, place = np.nonzero(ordered[:, 1:] == ordered[:, :-1])
    begins = np.flatnonzero((np.diff(row, prepend=-1) != 0) | (np.diff(place, prepend=-1) != 1))
    ties = np.diff(begins, append=len(row))  # how many equal the one at which a run of equal draws begins
    shared = quantiles[2 * place[begins] + ties + 2]
    scores[row[begins], place[begins]] = shared
    scores[row, place + 1] = np.repeat(shared, ties)
    z = torch.from_numpy(np.empty_like(flat)).scatter_(1, torch.from_numpy(order), torch.from_numpy(scores))
    return z.numpy().reshape(x.shape), median[:, None, None]


def _split_r_hat(z: np.ndarray) -> np.ndarray:
    length = z.shape[2]
    between, within = length * z.mean(2).var(1, ddof=1), z.var(2, ddof=1).mean(1)
    return np.sqrt((between / within + length - 1) / length)


def _ess(x: np.ndarray) -> np.ndarray:
    """Return the effective sample size of each entry's mean, over all chains."""
    _, chains, length = x.shape
    covariance = _autocovariance(x)
    between = x.mean(2).var(1, ddof=1) if chains > 1 else np.zeros(len(x))
    found = chains * length / _autocorrelation_time(covariance, between, chains)
    constant = x.max((1, 2)) - x.min((1, 2)) < np.finfo(float).resolution
    return np.where(constant, float(chains * length), found)


def _autocovariance(x: np.ndarray) -> np.ndarray:
    """Return autocovariances within chains at every lag, averaged over chains: (entry, lag)."""
    length = x.shape[2]
    padded = next_fast_len(2 * length, real=True)
    spectrum = np.fft.rfft(x - x.mean(2, keepdims=True), padded)
    return np.fft.irfft((spectrum.real**2 + spectrum.imag**2).mean(1), padded)[:, :length] / length


def _autocorrelation_time(covariance: np.ndarray, between: np.ndarray, chains: int) -> np.ndarray:
    """Sum autocorrelations, from covariances (entry, lag) and the variance of chains' means, until pairs are negative.

    This is Geyer's initial monotone sequence, with the lag after it and the bound from below that Stan adds.
    """
    entries, length = covariance.shape
    within = covariance[:, :1] * length / (length - 1)
    correlation = 1 - (within - covariance) / (covariance[:, :1] + between[:, None])
    correlation[:, 0] = 1.0
    most = max(0, (length - 3) // 2)
    pairs = correlation[:, : 2 * most + 2].reshape(entries, most + 1, 2).sum(2)
    end = np.cumprod(pairs[:, :most] > 0, 1).sum(1)
    sums = np.minimum.accumulate(pairs, 1).cumsum(1)
    rows = np.arange(entries)
    next_one = correlation[rows, 2 * end]
    next_one = np.where((next_one > 0) | (pairs[rows, end] >= 0), next_one, 0.0)
    time = 2 * np.where(end > 0, sums[rows, end - 1], 0.0) + next_one - 1
    return np.where(np.isnan(correlation[:, 1]), np.nan, np.maximum(time, 1 / np.log10(chains * length)))
