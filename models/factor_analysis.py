"""Factor analysis: rows that are a linear map of a few normal factors, plus noise with its own variance per column.

    W[i, j]           ~ Normal(0, s²)         (s: ``prior_scale``)
    loc[i]            ~ Normal(0, (10 s)²)
    noise_variance[i] ~ InverseGamma(1, s² / 10)
    z[n]              ~ Normal(0, I)          (q factors: summed out in `model`, drawn in `latent_model`)
    x[n] | z[n]       ~ Normal(loc + W z[n], diag(noise_variance))

The prior is meant for standardised data. A noise variance is the part of its column's variance that the factors do not
explain: the column's uniqueness. The likelihood may be highest where one is zero (a Heywood case); the prior of `model`
keeps them away from zero. As in probabilistic PCA, a rotation of the factors, W → W R, changes nothing, and `identify`
returns what does not turn.

======  ==================  =======  ========================
symbol  site                shape    support
======  ==================  =======  ========================
W       ``W``               (d, q)   real
μ       ``loc``             (d)      real
ψ       ``noise_variance``  (d)      positive
z       ``z``               (n, q)   real; in `latent_model`
x       ``x``               (n, d)   real
======  ==================  =======  ========================

References
----------
1. Rubin and Thayer (1982), EM algorithms for ML factor analysis, Psychometrika 47.
2. Bishop (2006), Pattern Recognition and Machine Learning, section 12.2.4.
3. Jöreskog (1967), Some contributions to maximum likelihood factor analysis, Psychometrika 32: Heywood cases.
4. Henderson and Varadhan (2019), Damped Anderson acceleration with restarts and monotonicity control for accelerating
   EM and EM-like algorithms, Journal of Computational and Graphical Statistics 28.
"""

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from . import linear_gaussian
from ._shared.init import init
from ._shared.inputs import rows_of
from ._shared.steps import Params, Steps
from .linear_gaussian import (
    FactorPosterior,
    check,
    checked_size,
    e_step,
    identify,
    log_likelihood,
    overview,
    posterior,
    posterior_predictive,
    prepared,
    starting_sites,
    transform,
)

__all__ = [
    "FactorPosterior",
    "em_steps",
    "identify",
    "latent_model",
    "log_likelihood",
    "model",
    "overview",
    "posterior",
    "posterior_predictive",
    "simulate",
    "transform",
]

NO_COST = 1e-3  # nats of log likelihood that do not count
LEAST_SHARE = 1e-10  # of a column's variance: the likelihood of a smaller uniqueness is rounding error


def model(
    x: Tensor | None = None,
    *,
    latent_dim: int = 2,
    prior_scale: float = 1.0,
    num_rows: int | None = None,
    num_features: int | None = None,
) -> Tensor:
    """Pyro model of rows whose columns share a few factors, the factors integrated out.

    Arguments, result and errors as for `ppca.model`; besides, a fit cannot start at data with a constant column
    (ValueError).
    """
    x = None if x is None else rows_of("factor_analysis", x)
    n, d = checked_size("factor_analysis", x, latent_dim, num_rows, num_features, prior_scale)
    zero = torch.zeros(()) if x is None else x.new_zeros(())
    start = init(None if x is None else partial(starting_sites, x, latent_dim, shared_noise=False))
    # Globals.
    W = pyro.sample("W", dist.Normal(zero, prior_scale).expand_by([d, latent_dim]).to_event(2), infer=start("W"))
    loc = pyro.sample("loc", dist.Normal(zero, 10 * prior_scale).expand_by([d]).to_event(1), infer=start("loc"))
    noise = dist.InverseGamma(zero + 1, prior_scale**2 / 10).expand_by([d]).to_event(1)
    noise_variance = pyro.sample("noise_variance", noise, infer=start("noise_variance"))
    # Locals.
    with pyro.plate("rows", n):
        return pyro.sample("x", dist.LowRankMultivariateNormal(loc, W, noise_variance), obs=x)


def latent_model(
    x: Tensor | None = None, *, latent_dim: int = 2, num_rows: int | None = None, num_features: int | None = None
) -> Tensor:
    """As `ppca.latent_model`, but a noise variance starts at its own column's variance."""
    return linear_gaussian.latent_model("factor_analysis", x, latent_dim, num_rows, num_features, shared_noise=False)


def em_steps(
    latent_dim: int = 2, map: bool = False, prior_scale: float = 1.0, *, floor: float = 0.005, missing: bool = False
) -> Steps:
    """Return steps of expectation maximisation: Rubin and Thayer (1982).

    An iteration takes d² q operations, or n d q if there are fewer rows than columns. EM is slow here, so the loop is
    asked to accelerate it (Henderson and Varadhan 2019).

    Parameters
    ----------
    latent_dim, map, prior_scale, missing
        As for `ppca.em_steps`.
    floor : float
        A uniqueness below this share of its column's variance may be a Heywood case. The restart counts as degenerate
        if a tenth of it costs almost no likelihood, which then rises all the way to zero. Not checked with ``map``.

    Returns
    -------
    Steps
        For data ``(x,)`` or ``(x, row_weights)``; a row of weight w counts as w rows like it. The first restart begins
        at the principal axes of the standardised data, the others at random loadings.
        Parameters are ``W``, ``loc`` and ``noise_variance``.
    """
    if missing:
        if map:
            raise ValueError("factor_analysis: map needs rows without missing values")
        return linear_gaussian.em_steps_with_gaps("factor_analysis", latent_dim, shared_noise=False)

    def degenerate(params: Params, expectations: Any, *data: Tensor) -> str | None:
        noise, rows = params["noise_variance"], prepared(*data)
        share = noise / rows.variance
        small = [] if map else [column for column in share.argsort().tolist() if share[column] < floor]
        for column in small:
            tenth = noise.clone()
            tenth[column] /= 10
            found, other = (e_step(at, *rows) for at in (params, params | {"noise_variance": tenth}))
            if found.log_likelihood - other.log_likelihood < NO_COST or share[column] < LEAST_SHARE:
                return (
                    f"the uniqueness of column {column} runs to zero, a Heywood case: it is down to "
                    f"{float(share[column]):.1e} of the column's variance, and a tenth of that would do as well"
                )
        return None

    scale = prior_scale if map else None
    return linear_gaussian.em_steps("factor_analysis", latent_dim, scale, degenerate, shared_noise=False)


def simulate(
    num_rows: int = 300, *, latent_dim: int = 2, num_features: int = 6, seed: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Simulate as `ppca.simulate` does, but with a noise variance per column, each uniform in (.1, 1)."""
    check("factor_analysis", latent_dim, num_features)
    return linear_gaussian.simulate(num_rows, latent_dim, num_features, seed, shared_noise=False)
