"""Coordinate ascent: weights and noise variance jointly, and each row's precision."""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .._shared.scores import design
from .._shared.steps import Params, Steps
from .conjugate import NormalInverseGamma, Statistics, divergence, draw, statistics, update
from .prior import Noise, Prior, Units, check_noise, check_normal_prior, checked, conjugate_prior, units_of


class Bound(NamedTuple):
    """Expected log likelihood of the rows as a function of weights and noise variance, as the E-step leaves it.

    Attributes
    ----------
    statistics : Statistics
        Of rows with their expected precisions.
    constant : Tensor, scalar
        ½ Σ_n E[log ω[n]] less the divergence of q(ω) from its prior, in nats; 0 for normal noise.
    prior : NormalInverseGamma
    """

    statistics: Statistics
    constant: Tensor
    prior: NormalInverseGamma


def cavi_steps(
    noise: Noise = "normal",
    df: float = 4.0,
    prior: Prior = "normal",
    prior_scale: float = 1.0,
    units: Units | None = None,
) -> Steps:
    """q(w, noise_variance) normal-inverse-gamma, times a gamma distribution of each row's precision.

    With normal noise there are no precisions: q is the posterior after one step, and the bound the evidence. With
    Student noise the E-step makes ω[n] ~ Gamma((ν + 1)/2, (ν + E[r[n]² / noise_variance])/2), r[n] the residual.

    Parameters
    ----------
    noise, df, prior, prior_scale, units
        As for `model`.

    Returns
    -------
    Steps
        Parameters are those of `NormalInverseGamma`; expectations `Bound`. Restart 0 starts from rows that weigh alike,
        the others from random weights.

    Raises
    ------
    ValueError
        If the prior is not normal or an option is out of range; when run, if the target does not vary.
    """
    check_noise(noise, df)
    check_normal_prior("cavi", prior)

    def bound_at(omega: Tensor, constant: Tensor, x: Tensor, y: Tensor) -> Bound:
        before = conjugate_prior(units or units_of(y), x.shape[1], prior_scale)
        return Bound(statistics(before, x, y, omega), constant, before)

    def init(restart: int, x: Tensor, y: Tensor) -> Params:
        omega = y.new_ones(len(y)) if restart == 0 else torch.rand_like(y)
        return m_step(bound_at(omega, y.new_zeros(()), x, y))

    def e_step(params: Params, x: Tensor, y: Tensor) -> Bound:
        if noise == "normal":
            return bound_at(y.new_ones(len(y)), y.new_zeros(()), x, y)
        q, columns = NormalInverseGamma(**params), design(x)
        spread = (columns * torch.linalg.solve(q.precision, columns.mT).mT).sum(1)
        square = (y - columns @ q.mean).square() * q.shape / q.rate + spread
        shape, rate = (df + 1) / 2, (df + square) / 2
        prior_shape = torch.as_tensor(df / 2).to(y)
        log_omega = torch.digamma(torch.as_tensor(shape).to(y)) - rate.log()
        apart = (  # of Gamma(shape, rate) from Gamma(df/2, df/2)
            shape * rate.log()
            - math.lgamma(shape)
            - prior_shape * prior_shape.log()
            + torch.lgamma(prior_shape)
            + (shape - prior_shape) * log_omega
            + (prior_shape - rate) * shape / rate
        )
        return bound_at(shape / rate, (log_omega / 2 - apart).sum(), x, y)

    def m_step(bound: Bound, *_: Tensor) -> Params:
        return update(bound.prior, bound.statistics)._asdict()

    def objective(params: Params, bound: Bound) -> Tensor:
        q, (gram, cross, square, num_rows), p = NormalInverseGamma(**params), bound.statistics, bound.prior
        shift, precision = q.mean - p.mean, q.shape / q.rate
        residual = precision * (square - 2 * shift @ cross + shift @ gram @ shift)
        residual = residual + torch.linalg.solve(q.precision, gram).diagonal().sum()
        log_variance = q.rate.log() - torch.digamma(q.shape) + math.log(2 * math.pi)
        return bound.constant - (num_rows * log_variance + residual) / 2 - divergence(q, p)

    def draws(params: Params, num_draws: int) -> Params:
        found = draw(NormalInverseGamma(**params), (num_draws,))
        return found if noise == "normal" else found | {"df": torch.full_like(found["noise_variance"], df)}

    return Steps(init, e_step, m_step, objective, prepare=partial(checked, prior_scale=prior_scale), draw=draws)
