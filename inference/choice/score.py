"""How well a model predicts each row without having seen it: PSIS-LOO, or densities of rows held out.

Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC,
Statistics and Computing 27; Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling;
Magnusson, Andersen, Jonasson and Vehtari (2019), Bayesian leave-one-out cross-validation for large data, ICML.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..diagnostics import MAX_K_HAT, disagrees, ess, r_hat

FEWEST_DRAWS = 100  # for which tails of importance weights can be fitted
LEAST_SPREAD = 1e-6  # nats, of a row's log likelihood: below it weights are equal, and their tail is rounding


@dataclass(frozen=True, repr=False)
class Score:
    """Log predictive densities of rows that a fit has not seen.

    Attributes
    ----------
    pointwise : ndarray, shape (n,)
        Of each row, in nats and in the data's units.
    how : str
        "PSIS-LOO", "10-fold cross-validation", …
    num_parameters : float, optional
        Effective number: by how much the density of the rows is higher if they are seen (p_loo), in nats.
    k_hat : ndarray, shape (n,), optional
        Pareto shape of each row's importance weights.
    max_k_hat : float
        Above it a row's density is not to be relied on: min(1 - 1/log10(draws), 0.7).
    r_hat : float, optional
        R̂ of the rows' total log likelihood, which has no labels, signs or rotations.
    chains_disagree : bool
        Whether that R̂ is above 1.01, and not by chance.
    sizes : ndarray, shape (n,), optional
        Tokens per row, if rows are documents.
    """

    pointwise: np.ndarray
    how: str
    num_parameters: float | None = None
    k_hat: np.ndarray | None = None
    max_k_hat: float = MAX_K_HAT
    r_hat: float | None = None
    chains_disagree: bool = False
    sizes: np.ndarray | None = None

    def __repr__(self) -> str:
        said = [f"elpd {self.elpd:,.1f} ± {self.error:.1f} nats over {len(self.pointwise):,} rows, by {self.how}"]
        if self.num_parameters is not None:
            said.append(f"{self.num_parameters:.1f} effective parameters")
        if self.k_hat is not None:
            many = self.num_unreliable
            whose = "1 row, whose density is" if many == 1 else f"{many:,} rows, whose densities are"
            above = f"above {self.max_k_hat:.2f} in {whose} not to be relied on"
            said.append(f"k̂ {above if many else f'at most {self.k_hat.max():.2f}, so that every row is reliable'}")
        if self.chains_disagree:
            said.append(f"the chains have not mixed (R̂ {self.r_hat:.3f})")
        return "; ".join(said).replace("-", "−", 1)

    @property
    def elpd(self) -> float:
        """Expected log predictive density of as many new rows, in nats: the sum over rows; higher is better."""
        return float(self.pointwise.sum())

    @property
    def error(self) -> float:
        """Standard error of `elpd`, in nats: Vehtari, Gelman and Gabry (2017), equation 23; nan for one row."""
        return error_of_sum(self.pointwise)

    @property
    def num_unreliable(self) -> int:
        """Number of rows with a k̂ above ``max_k_hat``."""
        return 0 if self.k_hat is None else int((self.k_hat > self.max_k_hat).sum())

    @property
    def perplexity(self) -> tuple[float, float] | None:
        """Perplexity per token and its standard error (ratio of means, delta method); None without ``sizes``."""
        if self.sizes is None:
            return None
        total = self.sizes.sum()
        per_token = self.elpd / total
        value = math.exp(-per_token)
        return value, value * error_of_sum(self.pointwise - per_token * self.sizes) / float(total)


def error_of_sum(values: np.ndarray) -> float:
    """Return the standard error of a sum over independent rows; nan for one row, or for values that are not finite."""
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan
    return float(values.std(ddof=1) * math.sqrt(len(values)))


def psis_loo(log_likelihood: Any, log_weights: Any = None) -> Score:
    """Return log densities of rows under the posterior given all others, by Pareto-smoothed importance sampling.

    Parameters
    ----------
    log_likelihood : Tensor or ndarray, shape (chain, draw, n)
        log p(row | draw), in nats, of a posterior's draws; latent variables of the row integrated out.
    log_weights : Tensor or ndarray, shape (chain * draw,), optional
        log p(x, z) - log q(z), in nats, of draws that come from an approximation q: its importance weights enter those
        of every row (Magnusson et al. 2019, equation 7). Default: the draws are the posterior's own.

    Returns
    -------
    Score
        Equal to ``loo`` of arviz-stats, with each row's own relative efficiency of the draws in place of one for all;
        k̂ is 0 for rows whose likelihood hardly varies (by less than 1e-6 nats). With ``log_weights``, equal to
        ``loo_approximate_posterior``.

    Raises
    ------
    ValueError
        For another shape, fewer than 100 draws in all, draws that are all the same, or values that are nan.
    """
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage] (slow to import)

    values = torch.as_tensor(log_likelihood).detach().cpu().double()
    if values.dim() != 3 or not values.shape[2]:
        raise ValueError(f"psis_loo: log_likelihood has shape (chain, draw, row), got {tuple(values.shape)}")
    if values.isnan().any():
        raise ValueError(f"psis_loo: log likelihoods of {int(values.isnan().any(0).any(0).sum())} rows are nan")
    size = values.shape[0] * values.shape[1]
    if size < FEWEST_DRAWS or bool((values == values[:1, :1]).all()):
        what = f"{size} draws are too few" if size < FEWEST_DRAWS else "all draws are the same point"
        raise ValueError(f"psis_loo: {what}: leave-one-out weights need draws of a posterior; hold rows out instead")
    if log_weights is not None:
        return _of_approximation(values, torch.as_tensor(log_weights).detach().cpu().double().flatten())
    likelihood = (values - values.flatten(0, 1).max(0).values).exp()
    efficiency = np.nan_to_num((ess(likelihood, of="mean") / size).numpy(), nan=1.0)
    pointwise, parameters, k_hat = np.array(_of_equal_weights(values))
    uneven = np.flatnonzero((values.flatten(0, 1).amax(0) - values.flatten(0, 1).amin(0)).numpy() > LEAST_SPREAD)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for row in uneven:
            found = array_stats.loo(values[:, :, row].numpy(), r_eff=float(efficiency[row]))
            pointwise[row], k_hat[row], parameters[row] = found
    total = {"log likelihood": values.sum(2)}
    r_hats = {name: r_hat(draws) for name, draws in total.items()}
    return Score(
        pointwise,
        "PSIS-LOO",
        num_parameters=float(parameters.sum()),
        k_hat=k_hat,
        max_k_hat=_max_k_hat(size),
        r_hat=float(r_hats["log likelihood"]),
        chains_disagree=bool(disagrees(total, r_hats)["log likelihood"]),
    )


def _of_approximation(values: torch.Tensor, log_weights: torch.Tensor) -> Score:
    """Return the score of draws that come from an approximation; those of no posterior density count for nothing."""
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage] (slow to import)

    size = values.shape[0] * values.shape[1]
    if len(log_weights) != size:
        raise ValueError(f"psis_loo: there are {size} draws and {len(log_weights)} log_weights")
    kept = torch.isfinite(log_weights)
    if int(kept.sum()) < FEWEST_DRAWS:
        raise ValueError(f"psis_loo: the log_weights of {int((~kept).sum())} of {size} draws are not finite")
    rows, weights = values.flatten(0, 1)[kept].T[:, None], log_weights[kept].expand(values.shape[2], 1, -1)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = array_stats.loo_approximate_posterior(rows.numpy(), weights.numpy(), np.zeros(weights.shape))
    pointwise, k_hat, parameters = (np.asarray(part, float) for part in found)
    return Score(
        pointwise,
        "PSIS-LOO",
        num_parameters=float(parameters.sum()),
        k_hat=k_hat,
        max_k_hat=_max_k_hat(int(kept.sum())),
    )


def _max_k_hat(size: int) -> float:
    """Return the largest k̂ at which so many draws can be relied on: Vehtari et al. (2024), section 3.2.4."""
    return min(1 - 1 / math.log10(size), MAX_K_HAT)


def _of_equal_weights(values: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return densities, parameters and k̂ = 0 of rows as if no weight stood out: 1 / mean(1 / likelihood)."""
    flat = values.flatten(0, 1)
    pointwise = math.log(len(flat)) - (-flat).logsumexp(0)
    parameters = flat.logsumexp(0) - math.log(len(flat)) - pointwise
    return pointwise.numpy(), parameters.numpy(), np.zeros(len(pointwise))


def held_out(pointwise: Any, *, how: str = "held-out rows", seen: Any = None, sizes: Any = None) -> Score:
    """Return the score of log densities that were computed for rows left out of the fit, as in K-fold cross-validation.

    Parameters
    ----------
    pointwise : Tensor or ndarray, shape (n,)
        log p(row | the rows fitted), in nats: of each row under a fit without it.
    how : str
        How the rows were held out, for tables and sentences.
    seen : Tensor or ndarray, shape (n,), optional
        The same under fits that had the row: gives the effective number of parameters.
    sizes : Tensor or ndarray, shape (n,), optional
        Tokens that were scored per row, for a perplexity.

    Raises
    ------
    ValueError
        For another shape, or values that are nan.
    """
    arrays = {"pointwise": pointwise, "seen": seen, "sizes": sizes}
    given = {name: np.asarray(value, float) for name, value in arrays.items() if value is not None}
    shape = given["pointwise"].shape
    for name, value in given.items():
        if len(shape) != 1 or not len(value) or value.shape != shape:
            raise ValueError(f"held_out: {name} has one number per row, got shape {value.shape}")
        if np.isnan(value).any():
            raise ValueError(f"held_out: {name} is nan in {int(np.isnan(value).sum())} rows")
    found = given["pointwise"]
    parameters = float((given["seen"] - found).sum()) if "seen" in given else None
    return Score(found, how, num_parameters=parameters, sizes=given.get("sizes"))
