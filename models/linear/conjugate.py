"""Normal-inverse-gamma distributions of weights and noise variance, the conjugate prior of linear regression.

Gelman et al. (2013), Bayesian Data Analysis, sections 14.2 and 14.8; Bishop (2006), exercises 3.12 and 3.23.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Gamma

from .._shared.scores import design
from .._shared.steps import Params


class NormalInverseGamma(NamedTuple):
    """noise_variance ~ InverseGamma(shape, rate), w | noise_variance ~ Normal(mean, noise_variance precision⁻¹).

    Attributes
    ----------
    mean : Tensor, shape (..., p)
    precision : Tensor, shape (..., p, p)
        Of the weights, in units of 1 / noise_variance.
    shape, rate : Tensor, shape (...)
    """

    mean: Tensor
    precision: Tensor
    shape: Tensor
    rate: Tensor


class Statistics(NamedTuple):
    """What rows of weighted normal noise tell of weights and noise variance.

    Attributes
    ----------
    gram : Tensor, shape (..., p, p)
        Σ_n ω[n] x[n] x[n]ᵀ, a leading one in every row.
    cross : Tensor, shape (..., p)
        Σ_n ω[n] x[n] (y[n] - x[n] · mean), mean that of the prior: then large targets cost no digits.
    square : Tensor, shape (...)
        Σ_n ω[n] (y[n] - x[n] · mean)².
    num_rows : int
        Number of rows.
    """

    gram: Tensor
    cross: Tensor
    square: Tensor
    num_rows: int


def statistics(
    prior: NormalInverseGamma, x: Float[Tensor, "n d"], y: Float[Tensor, " n"], omega: Float[Tensor, "... n"]
) -> Statistics:
    """Return sufficient statistics of rows with precisions ``omega``, relative to 1 / noise_variance."""
    columns = design(x)
    residual = y - columns @ prior.mean
    weighted = columns.mT * omega.unsqueeze(-2)
    return Statistics(weighted @ columns, weighted @ residual, (omega * residual.square()).sum(-1), len(x))


def update(prior: NormalInverseGamma, found: Statistics) -> NormalInverseGamma:
    """Return the posterior: Gelman et al. (2013), equations 14.21 and 14.23 to 14.25."""
    precision = prior.precision + found.gram
    factor = torch.linalg.cholesky(precision)
    shift = torch.cholesky_solve(found.cross.unsqueeze(-1), factor).squeeze(-1)
    rate = prior.rate + (found.square - (shift * found.cross).sum(-1)) / 2
    return NormalInverseGamma(prior.mean + shift, precision, prior.shape + found.num_rows / 2, rate)


def log_evidence(prior: NormalInverseGamma, posterior: NormalInverseGamma, num_rows: int) -> Tensor:
    """Return log p(y | x) of normal noise, in nats: Bishop (2006), equation 3.118."""
    log_det = torch.linalg.slogdet(prior.precision).logabsdet - torch.linalg.slogdet(posterior.precision).logabsdet
    gammas = torch.lgamma(posterior.shape) - torch.lgamma(prior.shape)
    rates = prior.shape * prior.rate.log() - posterior.shape * posterior.rate.log()
    return 0.5 * log_det + gammas + rates - num_rows / 2 * math.log(2 * math.pi)


def divergence(q: NormalInverseGamma, p: NormalInverseGamma) -> Tensor:
    """Return the Kullback-Leibler divergence of q from p, in nats."""
    ratio = torch.linalg.solve(q.precision, p.precision)
    shift = q.mean - p.mean
    distance = q.shape / q.rate * (shift @ p.precision @ shift)
    normals = 0.5 * (ratio.diagonal().sum() - len(shift) - torch.linalg.slogdet(ratio).logabsdet + distance)
    gammas = (q.shape - p.shape) * torch.digamma(q.shape) - torch.lgamma(q.shape) + torch.lgamma(p.shape)
    return normals + gammas + p.shape * (q.rate / p.rate).log() + q.shape * (p.rate / q.rate - 1)


def draw(q: NormalInverseGamma, num_draws: tuple[int, ...] = ()) -> Params:
    """Return independent draws of ``w``, (*num_draws, ..., p), and ``noise_variance``, (*num_draws, ...)."""
    shape = q.shape.expand(*num_draws, *q.rate.shape)
    noise_variance = q.rate / Gamma(shape, torch.ones_like(shape)).sample()
    noise = torch.randn(*num_draws, *q.mean.shape, 1, dtype=q.mean.dtype, device=q.mean.device)
    upper = torch.linalg.cholesky(q.precision).mT
    standard = torch.linalg.solve_triangular(upper, noise, upper=True).squeeze(-1)
    return {"w": q.mean + noise_variance.sqrt().unsqueeze(-1) * standard, "noise_variance": noise_variance}
