"""Guides of Bayesian linear regression under its normal prior, written out: over weights and noise variance.

They start at the means of the posterior under normal noise. `mean_field` and `cholesky` are twins of the families
`mean_field` and `full_rank`; `conjugate` has the form of that posterior, and its ELBO, once trained, is the evidence.

Bishop (2006), Pattern Recognition and Machine Learning, section 10.1.1; Kucukelbir et al. (2017), Automatic
differentiation variational inference, section 2.5; Gelman et al. (2013), Bayesian Data Analysis, section 14.8.
"""

from collections.abc import Callable
from functools import cache

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.constraints import lower_cholesky, positive

from ..models.linear.conjugate import statistics, update
from ..models.linear.prior import conjugate_prior, data_of, units_of


def mean_field(x: Tensor, y: Tensor, *, prior_scale: float = 1.0) -> None:
    """Independent normals over ``w`` and a log-normal over ``noise_variance``.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,)
    prior_scale : float
        As given to the model.
    """
    start = cache(lambda: _starts(x, y, prior_scale))
    _noise_variance(start)
    mean = pyro.param("w.mean", lambda: start()["mean"])
    scale = pyro.param("w.scale", lambda: start()["scale"], constraint=positive)
    pyro.sample("w", dist.Normal(mean, scale).to_event(1))


def cholesky(x: Tensor, y: Tensor, *, prior_scale: float = 1.0) -> None:
    """One normal over ``w`` and the log of ``noise_variance``: w given the latter is Normal(mean + slope ·, L Lᵀ).

    Parameters as for `mean_field`.
    """
    start = cache(lambda: _starts(x, y, prior_scale))
    standard = _noise_variance(start)
    mean = pyro.param("w.mean", lambda: start()["mean"])
    slope = pyro.param("w.slope", lambda: torch.zeros_like(start()["mean"]))
    root = pyro.param("w.scale_tril", lambda: start()["scale"].diag(), constraint=lower_cholesky)
    pyro.sample("w", dist.MultivariateNormal(mean + slope * standard.unsqueeze(-1), scale_tril=root))


def conjugate(x: Tensor, y: Tensor, *, prior_scale: float = 1.0) -> None:
    """Normal-inverse-gamma: ``noise_variance`` inverse gamma, and w given it Normal(mean, noise_variance L Lᵀ).

    Parameters as for `mean_field`.
    """
    start = cache(lambda: _starts(x, y, prior_scale))
    shape = pyro.param("noise_variance.shape", lambda: start()["shape"], constraint=positive)
    centre = pyro.param("noise_variance.mean", lambda: start()["noise_variance"], constraint=positive)
    noise_variance = pyro.sample("noise_variance", dist.InverseGamma(shape, shape * centre))
    mean = pyro.param("w.mean", lambda: start()["mean"])
    relative = pyro.param(
        "w.scale_tril",
        lambda: start()["relative_scale"].diag(),
        constraint=lower_cholesky,
    )
    root = noise_variance.sqrt()[..., None, None] * relative
    pyro.sample("w", dist.MultivariateNormal(mean, scale_tril=root))


def _noise_variance(start: Callable[[], dict[str, Tensor]]) -> Tensor:
    """Draw the noise variance from a log-normal; return it in standard units."""
    mean = pyro.param("noise_variance.log_mean", lambda: start()["log_noise_variance"])
    scale = pyro.param("noise_variance.log_scale", lambda: start()["log_scale"], constraint=positive)
    return (pyro.sample("noise_variance", dist.LogNormal(mean, scale)).log() - mean) / scale


def _starts(x: Tensor, y: Tensor, prior_scale: float) -> dict[str, Tensor]:
    """Return means of the posterior under normal noise, and the weights' sds if they were independent."""
    x, y = data_of(x, y)
    before = conjugate_prior(units_of(y), x.shape[1], prior_scale)
    after = update(before, statistics(before, x, y, y.new_ones(len(y))))
    noise_variance = after.rate / after.shape
    relative = after.precision.diagonal().rsqrt()
    return {
        "mean": after.mean,
        "scale": noise_variance.sqrt() * relative,
        "relative_scale": relative,
        "noise_variance": noise_variance,
        "log_noise_variance": noise_variance.log(),
        "log_scale": after.shape.rsqrt(),
        "shape": after.shape,
    }
