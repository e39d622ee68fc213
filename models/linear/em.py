"""Expectation maximisation: weighted least squares, the weights from how far each row lies off."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .._shared.scores import design
from .._shared.steps import Params, Steps
from .conjugate import NormalInverseGamma, statistics, update
from .model import log_likelihood
from .prior import Noise, Prior, check_noise, check_normal_prior, check_positive, conjugate_prior, data_of, units_of

FLAT = "the features fit the target exactly, so that the noise variance runs to zero"


class Expectations(NamedTuple):
    """What the E-step finds.

    Attributes
    ----------
    omega : Tensor, shape (n,)
        Each row's expected precision, relative to 1 / noise_variance.
    objective : Tensor, scalar
        Log likelihood, or log joint density, of the parameters, in nats.
    """

    omega: Tensor
    objective: Tensor


def em_steps(
    noise: Noise = "normal",
    df: float = 4.0,
    map: bool = False,
    prior: Prior = "normal",
    prior_scale: float = 1.0,
) -> Steps:
    """Return steps of expectation maximisation: Lange, Little and Taylor (1989), section 3.

    The E-step gives each row the weight (ν + 1) / (ν + r[n]² / noise_variance), r[n] its residual; the M-step is least
    squares with these weights. With normal noise all weights are one, and the first M-step is the answer.

    Parameters
    ----------
    noise, df, prior, prior_scale
        As for `model`; the prior is unused without ``map``.
    map : bool
        Whether to maximise the log joint density of `model` (a density of w and noise_variance as they stand) rather
        than the likelihood.

    Returns
    -------
    Steps
        Restart 0 begins at least squares, the others at random weights of the rows. Parameters are ``w`` and
        ``noise_variance``, and ``df``, held, with Student noise. A perfect fit, where the likelihood is unbounded,
        counts as degenerate.

    Raises
    ------
    ValueError
        If an option is out of range, or ``map`` is asked for with a horseshoe; when run, if the target does not vary.
    """
    check_noise(noise, df)
    check_positive(prior_scale=prior_scale)
    if map:
        check_normal_prior("em with map", prior)

    def prior_of(x: Tensor, y: Tensor) -> NormalInverseGamma:
        return conjugate_prior(units_of(y), x.shape[1], prior_scale)

    def init(restart: int, x: Tensor, y: Tensor) -> Params:
        omega = y.new_ones(len(y)) if restart == 0 else torch.rand_like(y)
        return m_step(Expectations(omega, y.new_zeros(())), x, y)

    def e_step(params: Params, x: Tensor, y: Tensor) -> Expectations:
        omega = y.new_ones(len(y))
        if noise == "student":
            residual = y - design(x) @ params["w"]
            omega = (df + 1) / (df + residual.square() / params["noise_variance"])
        objective = log_likelihood(params, x, y).sum()
        return Expectations(omega, objective + log_prior(params, prior_of(x, y)) if map else objective)

    def m_step(expectations: Expectations, x: Tensor, y: Tensor) -> Params:
        before = prior_of(x, y)
        if map:
            found = update(before, statistics(before, x, y, expectations.omega))
            w = found.mean
            noise_variance = found.rate / (found.shape + len(w) / 2 + 1)
        else:
            root = expectations.omega.sqrt()
            columns, target = root[:, None] * design(x), root * (y - before.mean[0])
            w = torch.linalg.lstsq(columns.cpu(), target.cpu()[:, None], driver="gelsd").solution[:, 0].to(y)
            noise_variance = (target - columns @ w).square().mean()
            w = torch.cat([w[:1] + before.mean[0], w[1:]])
        params = {"w": w, "noise_variance": noise_variance}
        return params if noise == "normal" else params | {"df": noise_variance.new_tensor(df)}

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return expectations.objective

    def degenerate(params: Params, expectations: Expectations, x: Tensor, y: Tensor) -> str | None:
        least = 100 * torch.finfo(y.dtype).eps * y.var(correction=0)
        return FLAT if not map and not params["noise_variance"] > least else None

    return Steps(init, e_step, m_step, objective, degenerate, data_of)


def log_prior(params: Params, prior: NormalInverseGamma) -> Tensor:
    """Return the log density of w and noise_variance under their prior, in nats."""
    variance, shift = params["noise_variance"], params["w"] - prior.mean
    gamma = prior.shape * prior.rate.log() - torch.lgamma(prior.shape) - (prior.shape + 1) * variance.log()
    log_det = torch.linalg.slogdet(prior.precision).logabsdet - len(shift) * (2 * math.pi * variance).log()
    return gamma - prior.rate / variance + (log_det - shift @ prior.precision @ shift / variance) / 2
