"""Coordinate ascent on the quadratic lower bound of Jaakkola and Jordan (2000)."""

import math
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from .._shared.scores import design
from .._shared.steps import Params, Steps
from .model import check_prior_scale, checked


class QuadraticBound(NamedTuple):
    """Bound on the log likelihood, constant + linear · w - wᵀ quadratic w, as the E-step places it.

    Attributes
    ----------
    xi : Tensor, shape (n,)
        ξ: the absolute score at which a row's bound is exact.
    constant : Tensor, scalar
        Σ_n log sigmoid(ξ) - ξ/2 + λ(ξ) ξ², in nats.
    linear : Tensor, shape (d + 1,)
        Σ_n (y - ½) x.
    quadratic : Tensor, shape (d + 1, d + 1)
        Σ_n λ(ξ) x xᵀ.
    """

    xi: Tensor
    constant: Tensor
    linear: Tensor
    quadratic: Tensor


def cavi_steps(prior_scale: float = 1.0) -> Steps:
    """Normal q(w) with full covariance, on the bound of Jaakkola and Jordan at each row's best ξ.

    log sigmoid(s) ≥ log sigmoid(ξ) + (s - ξ)/2 - λ(ξ) (s² - ξ²), λ(ξ) = tanh(ξ/2) / 4ξ. The E-step updates ξ, the
    M-step q(w); both have a closed form, and neither lowers the objective. The bound stays below the evidence even
    at the best q, and its λ makes q(w) too narrow. Bishop (2006), equations 10.155 to 10.167.

    Parameters
    ----------
    prior_scale : float
        As for `model`.

    Returns
    -------
    Steps
        Parameters ``mean`` (d + 1) and ``covariance`` (d + 1, d + 1) of q(w); expectations `QuadraticBound`. Restart 0
        starts at the prior, the others at the prior's covariance around a draw from it.

    Raises
    ------
    ValueError
        If ``prior_scale`` is not positive; when run, if the data are no finite rows with a label, 0 or 1, each.
    """
    check_prior_scale(prior_scale)

    def init(restart: int, x: Tensor, y: Tensor) -> Params:
        size = x.shape[1] + 1
        mean = x.new_zeros(size) if restart == 0 else prior_scale * torch.randn(size, dtype=x.dtype, device=x.device)
        return {"mean": mean, "covariance": prior_scale**2 * torch.eye(size, dtype=x.dtype, device=x.device)}

    def e_step(params: Params, x: Tensor, y: Tensor) -> QuadraticBound:
        columns, mean = design(x), params["mean"]
        second_moment = params["covariance"] + mean.outer(mean)
        xi = ((columns @ second_moment) * columns).sum(1).sqrt()
        weight = jj_lambda(xi)
        constant = (-softplus(-xi) - xi / 2 + weight * xi.square()).sum()
        return QuadraticBound(xi, constant, columns.mT @ (y - 0.5), (weight[:, None] * columns).mT @ columns)

    def m_step(bound: QuadraticBound, x: Tensor, y: Tensor) -> Params:
        identity = torch.eye(len(bound.linear), dtype=x.dtype, device=x.device)
        factor = torch.linalg.cholesky(2 * bound.quadratic + identity / prior_scale**2)
        covariance = torch.cholesky_inverse(factor)
        return {"mean": covariance @ bound.linear, "covariance": covariance}

    def objective(params: Params, bound: QuadraticBound) -> Tensor:
        mean, covariance = params["mean"], params["covariance"]
        second_moment = covariance + mean.outer(mean)
        likelihood = bound.constant + bound.linear @ mean - (bound.quadratic * second_moment).sum()
        log_det = 2 * torch.linalg.cholesky(covariance).diagonal().log().sum()
        excess = second_moment.trace() / prior_scale**2 + len(mean) * (2 * math.log(prior_scale) - 1) - log_det
        return likelihood - 0.5 * excess

    def draw(params: Params, num_draws: int) -> Params:
        mean = params["mean"]
        noise = torch.randn(num_draws, len(mean), dtype=mean.dtype, device=mean.device)
        return {"w": mean + noise @ torch.linalg.cholesky(params["covariance"]).mT}

    return Steps(init, e_step, m_step, objective, prepare=partial(checked, prior_scale=prior_scale), draw=draw)


def jj_lambda(xi: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return λ(ξ) = tanh(ξ/2) / 4ξ, which is 1/8 at 0; Bishop (2006), equation 10.150."""
    small = xi.abs() < 1e-3
    safe = torch.where(small, 1.0, xi)
    return torch.where(small, 1 / 8 - xi.square() / 96, torch.tanh(safe / 2) / (4 * safe))
