"""Probabilistic PCA: rows that are a linear map of a few normal factors, plus noise of one variance in all directions.

    W[i, j]        ~ Normal(0, s²)            (s: ``prior_scale``)
    loc[i]         ~ Normal(0, (10 s)²)
    noise_variance ~ InverseGamma(1, s² / 10)
    z[n]           ~ Normal(0, I)             (q factors: summed out in `model`, drawn in `latent_model`)
    x[n] | z[n]    ~ Normal(loc + W z[n], noise_variance I)

The prior is meant for standardised data. A rotation of the factors, W → W R, changes nothing: the posterior of W is a
ring, and `identify` returns what does not turn. For that reason W is a full matrix: a lower triangular W, which cannot
turn, leaves separate modes, and a sampler does not pass between them.

======  ==================  =======  ========================
symbol  site                shape    support
======  ==================  =======  ========================
W       ``W``               (d, q)   real
μ       ``loc``             (d)      real
σ²      ``noise_variance``  ()       positive
z       ``z``               (n, q)   real; in `latent_model`
x       ``x``               (n, d)   real
======  ==================  =======  ========================

References
----------
1. Tipping and Bishop (1999), Probabilistic principal component analysis, JRSS B 61.
2. Bishop (2006), Pattern Recognition and Machine Learning, section 12.2.
3. Minka (2000), Automatic choice of dimensionality for PCA, NIPS 13.
"""

import math
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from . import linear_gaussian
from ._shared.init import init
from ._shared.inputs import rows_of
from ._shared.row_weights import checked_weights
from ._shared.steps import Params, Steps
from .linear_gaussian import (
    FactorPosterior,
    check,
    checked_size,
    identify,
    laplace_evidence,
    log_likelihood,
    overview,
    posterior,
    posterior_predictive,
    prepared,
    principal_axes,
    starting_sites,
    transform,
)

__all__ = [
    "FactorPosterior",
    "em_steps",
    "identify",
    "laplace_evidence",
    "latent_model",
    "log_likelihood",
    "maximum_likelihood",
    "model",
    "overview",
    "posterior",
    "posterior_predictive",
    "simulate",
    "transform",
]

FLAT = "the rows lie in a plane of latent_dim dimensions, so that the noise variance runs to zero"


def model(
    x: Tensor | None = None,
    *,
    latent_dim: int = 2,
    prior_scale: float = 1.0,
    num_rows: int | None = None,
    num_features: int | None = None,
) -> Tensor:
    """Pyro model of rows near a plane, the factors integrated out.

    Parameters
    ----------
    x : Tensor, shape (n, d), optional
        The data, standardised. Default: drawn from the model, which needs ``num_rows`` and ``num_features``.
    latent_dim : int
        q, less than d.
    prior_scale : float
        s: prior standard deviation of a loading.
    num_rows, num_features : int, optional
        Size of the data to draw.

    Returns
    -------
    Tensor, shape (n, d)

    Raises
    ------
    ValueError
        If an option is out of range, or the data are no finite rows.
    """
    x = None if x is None else rows_of("ppca", x)
    n, d = checked_size("ppca", x, latent_dim, num_rows, num_features, prior_scale)
    zero = torch.zeros(()) if x is None else x.new_zeros(())
    start = init(None if x is None else partial(starting_sites, x, latent_dim, shared_noise=True))
    # Globals.
    W = pyro.sample("W", dist.Normal(zero, prior_scale).expand_by([d, latent_dim]).to_event(2), infer=start("W"))
    loc = pyro.sample("loc", dist.Normal(zero, 10 * prior_scale).expand_by([d]).to_event(1), infer=start("loc"))
    noise = dist.InverseGamma(zero + 1, prior_scale**2 / 10)
    noise_variance = pyro.sample("noise_variance", noise, infer=start("noise_variance"))
    # Locals.
    diagonal = noise_variance.unsqueeze(-1).expand(*noise_variance.shape, d)
    with pyro.plate("rows", n):
        return pyro.sample("x", dist.LowRankMultivariateNormal(loc, W, diagonal), obs=x)


def latent_model(
    x: Tensor | None = None, *, latent_dim: int = 2, num_rows: int | None = None, num_features: int | None = None
) -> Tensor:
    """Pyro model with a site for each row's factors, and ``W``, ``loc`` and ``noise_variance`` as parameters.

    The parameters start at small random loadings and at the data's mean and mean variance. Arguments as for `model`.
    """
    return linear_gaussian.latent_model("ppca", x, latent_dim, num_rows, num_features, shared_noise=True)


def maximum_likelihood(
    x: Float[Tensor, "n d"], latent_dim: int = 2, *, row_weights: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the maximum likelihood estimates in closed form: Tipping and Bishop (1999), section 3.2.

    σ² is the mean of the d - q smallest eigenvalues of the covariance (with 1/n), and W's columns are the eigenvectors
    of the others, each times (λ[j] - σ²)^½.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    latent_dim : int
        q, less than d.
    row_weights : Tensor, shape (n,), optional
        A row of weight w counts as w rows like it. Default: 1.

    Returns
    -------
    dict
        ``W``, ``loc``, ``noise_variance``, and ``log_likelihood``, their log p(x) in nats.

    Raises
    ------
    ValueError
        If ``latent_dim`` is out of range, or the data are no finite rows, or lie in a plane of q dimensions, so that
        the likelihood is unbounded.
    """
    x = rows_of("ppca", x)
    check("ppca", latent_dim, x.shape[1])
    row_weights = checked_weights("ppca", row_weights, len(x))
    found = principal_axes(x, latent_dim, row_weights=row_weights)
    eigenvalues, noise = found.pop("eigenvalues"), found["noise_variance"]
    rows, columns = len(x) if row_weights is None else row_weights.sum(), x.shape[1]
    if not noise > torch.finfo(x.dtype).eps * eigenvalues[0]:
        raise ValueError(f"ppca: {FLAT}: take a smaller latent_dim")
    log_det = eigenvalues[:latent_dim].log().sum() + (columns - latent_dim) * noise.log()
    log_likelihood = -0.5 * rows * (columns * math.log(2 * math.pi) + log_det + columns)
    return found | {"log_likelihood": log_likelihood}


def em_steps(latent_dim: int = 2, map: bool = False, prior_scale: float = 1.0, *, missing: bool = False) -> Steps:
    """Return steps of expectation maximisation: Tipping and Bishop (1999), appendix B.

    An iteration takes d² q operations, or n d q if there are fewer rows than columns.

    Parameters
    ----------
    latent_dim : int
        q, less than d.
    map : bool
        Whether to maximise the log joint density of `model` (a density of W, loc and the noise variance as they stand)
        rather than the likelihood.
    prior_scale : float
        s, as given to `model`; unused without ``map``.
    missing : bool
        Whether NaN in the data are missing values, missing at random: then the likelihood is that of the other entries
        (Ilin and Raiko 2010, Journal of Machine Learning Research 11). Otherwise they are refused.

    Returns
    -------
    Steps
        For data ``(x,)`` or ``(x, row_weights)``; a row of weight w counts as w rows like it. Restarts begin at random
        loadings. Parameters are ``W``, ``loc`` and ``noise_variance``. Rows in a plane of q dimensions, where the
        likelihood is unbounded, count as degenerate.
    """
    if missing:
        if map:
            raise ValueError("ppca: map needs rows without missing values")
        return linear_gaussian.em_steps_with_gaps("ppca", latent_dim, shared_noise=True)

    def degenerate(params: Params, expectations: Any, *data: Tensor) -> str | None:
        least = torch.finfo(data[0].dtype).eps * prepared(*data).variance.sum()
        return FLAT if not map and not params["noise_variance"] > least else None

    return linear_gaussian.em_steps("ppca", latent_dim, prior_scale if map else None, degenerate, shared_noise=True)


def simulate(
    num_rows: int = 300, *, latent_dim: int = 2, num_features: int = 6, seed: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Simulate rows, float64, from random parameters: W and loc standard normal, the noise variance uniform in (.1, 1).

    Returns
    -------
    x : Tensor, shape (num_rows, num_features)
    truth : dict
        ``W``, ``loc``, ``noise_variance`` and ``z`` (num_rows, latent_dim), the factors of each row.
    """
    check("ppca", latent_dim, num_features)
    return linear_gaussian.simulate(num_rows, latent_dim, num_features, seed, shared_noise=True)
