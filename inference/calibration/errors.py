"""How far off draws are, in mean and sd, as their ranks tell if the posterior is normal."""

from collections.abc import Callable
from functools import cache

import numpy as np

REACH, GRID = 40.0, 1601  # posterior sds of the draws on either side, and places there, to integrate over
MOST_SHIFT, MOST_SPREAD = 20.0, 8.0  # of true values, in sds of the draws: ranks tell no more
STEP = 1e-3  # of second differences


def errors(ranks: np.ndarray, num_draws: int) -> dict[str, np.ndarray]:
    """Return shift, sd ratio and their standard errors, (quantity), of ranks (quantity, size), by maximum likelihood.

    If draws are N(m + b, (c s)²) and true values N(m, s²), a true value lies z sds of the draws from their mean,
    z ~ N(-b / (c s), 1 / c²), and its rank is binomial with probability Φ(z). The errors are b / s and c.
    """
    from scipy.optimize import minimize  # slow to import, as is the other
    from scipy.stats import norm

    places, given = _rank_probabilities(num_draws)
    found = []
    for row in ranks:
        counts = np.bincount(row, minlength=num_draws + 1)

        def loss(theta: np.ndarray, counts: np.ndarray = counts) -> float:
            weight = norm.pdf(places, theta[0], np.exp(theta[1]))
            return float(-counts @ np.log(given @ (weight / weight.sum()) + 1e-300))

        bounds = [(-MOST_SHIFT, MOST_SHIFT), (-np.log(MOST_SPREAD), np.log(MOST_SPREAD))]
        best = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=bounds).x
        found.append(_with_errors(best, _covariance(loss, best)))
    names = ("mean_shift_in_sd", "sd_ratio", "error_of_shift", "error_of_ratio")
    return dict(zip(names, np.array(found).T, strict=True))


@cache
def _rank_probabilities(num_draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values of z, and the probability of each rank given each of them, (rank, place)."""
    from scipy.stats import binom, norm

    places = np.linspace(-REACH, REACH, GRID)
    below = norm.cdf(places).clip(1e-15, 1 - 1e-15)  # beyond, scipy overflows
    return places, binom.pmf(np.arange(num_draws + 1)[:, None], num_draws, below)


def _covariance(loss: Callable[[np.ndarray], float], at: np.ndarray) -> np.ndarray:
    """Return the inverse of the second differences of a loss; infinite variances where they are not positive."""
    step = STEP * np.eye(2)
    hessian = np.array(
        [[loss(at + a + b) - loss(at + a - b) - loss(at - a + b) + loss(at - a - b) for b in step] for a in step]
    ) / (4 * STEP**2)
    if np.linalg.eigvalsh(hessian)[0] <= 0:
        return np.diag([np.inf, np.inf])
    return np.linalg.inv(hessian)


def _with_errors(theta: np.ndarray, covariance: np.ndarray) -> tuple[float, float, float, float]:
    mean, spread = theta[0], np.exp(theta[1])
    slope = np.array([-1, mean]) / spread
    with np.errstate(invalid="ignore"):
        error = np.sqrt(np.nan_to_num(slope @ covariance @ slope, nan=np.inf))
    return -mean / spread, 1 / spread, error, np.sqrt(covariance[1, 1]) / spread
