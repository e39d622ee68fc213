"""Factor analysis: rows that are a linear map of a few normal factors, plus noise with a variance for each column.

    W[i, j]           ~ Normal(0, s²)         (s: ``prior_scale``)
    loc[i]            ~ Normal(0, (10 s)²)
    noise_variance[i] ~ InverseGamma(1, s² / 10)
    z[n]              ~ Normal(0, I)          (q factors: summed out in `model`, drawn in `latent_model`)
    x[n] | z[n]       ~ Normal(loc + W z[n], diag(noise_variance))

The prior is meant for standardised data. A noise variance is what the factors leave of its column's variance, and is
called the column's uniqueness. The likelihood may be highest where one is zero (a Heywood case); the prior of `model`
keeps them away from there. As in probabilistic PCA, a rotation of the factors, W → W R, changes nothing, and `identify`
reads off the posterior what does not turn.

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
3. Jöreskog (1967), Some contributions to maximum likelihood factor analysis, Psychometrika 32.
4. Varadhan and Roland (2008), Simple and globally convergent methods for accelerating the convergence of any EM
   algorithm, Scandinavian Journal of Statistics 35.
"""

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.poutine.runtime import InferDict
from torch import Tensor, zeros
from torch.distributions import constraints

from . import linear_gaussian
from ._shared.steps import Params, Steps
from .linear_gaussian import (
    FactorPosterior,
    check,
    default_prior,
    identify,
    linear_gaussian_em,
    log_likelihood,
    posterior,
    posterior_predictive,
    rough_start,
    rows_and_columns,
    start_at,
    transform,
)

__all__ = [
    "FactorPosterior",
    "em_steps",
    "identify",
    "latent_model",
    "log_likelihood",
    "model",
    "posterior",
    "posterior_predictive",
    "simulate",
    "transform",
]

NO_COST = 1e-3  # nats of log likelihood that count for nothing


def model(
    x: Tensor | None = None,
    *,
    latent_dim: int = 2,
    prior_scale: float = 1.0,
    num_rows: int | None = None,
    num_features: int | None = None,
) -> Tensor:
    """Pyro model of rows whose columns share a few factors, the factors summed out.

    Parameters
    ----------
    x : Tensor, shape (n, d), optional
        The data, standardised. Drawn from the model where left out; ``num_rows`` and ``num_features`` must be given
        then.
    latent_dim : int
        q, less than d.
    prior_scale : float
        s: prior standard deviation of a loading.
    num_rows, num_features : int, optional
        Size of the data to draw where ``x`` is left out.

    Returns
    -------
    Tensor, shape (n, d)
        The data.

    Raises
    ------
    ValueError
        If an option is out of range; where a fit starts, also for a constant column.
    """
    rows, columns = rows_and_columns("factor_analysis", x, num_rows, num_features)
    check("factor_analysis", latent_dim, columns, prior_scale)
    prior = default_prior(
        zeros(()) if x is None else x,
        num_features=columns,
        latent_dim=latent_dim,
        prior_scale=prior_scale,
        shared_noise=False,
    )
    W = pyro.sample("W", prior.W, infer=_start("W", x, latent_dim))
    loc = pyro.sample("loc", prior.loc, infer=_start("loc", x, latent_dim))
    noise = pyro.sample("noise_variance", prior.noise_variance, infer=_start("noise_variance", x, latent_dim))
    with pyro.plate("rows", rows):
        return pyro.sample("x", dist.LowRankMultivariateNormal(loc, W, noise), obs=x)


def latent_model(
    x: Tensor | None = None, *, latent_dim: int = 2, num_rows: int | None = None, num_features: int | None = None
) -> Tensor:
    """Pyro model with a site for each row's factors, and ``W``, ``loc`` and ``noise_variance`` as parameters.

    The parameters start at small random loadings and at the data's mean and variances. Arguments as for `model`.
    """
    rows, columns = rows_and_columns("factor_analysis", x, num_rows, num_features)
    check("factor_analysis", latent_dim, columns)
    start = partial(rough_start, "factor_analysis", x, num_features=columns, latent_dim=latent_dim, shared_noise=False)
    W = pyro.param("W", lambda: start()["W"])
    loc = pyro.param("loc", lambda: start()["loc"])
    noise = pyro.param("noise_variance", lambda: start()["noise_variance"], constraint=constraints.positive)
    with pyro.plate("rows", rows):
        z = pyro.sample("z", dist.Normal(loc.new_zeros(()), 1.0).expand_by([latent_dim]).to_event(1))
        return pyro.sample("x", dist.Normal(loc + z @ W.mT, noise.sqrt()).to_event(1), obs=x)


def em_steps(latent_dim: int = 2, map: bool = False, prior_scale: float = 1.0, *, floor: float = 0.005) -> Steps:
    """Expectation maximisation: Rubin and Thayer (1982); d² q operations an iteration, or n d q where that is less.

    EM crawls here, so the loop is asked to extrapolate (Varadhan and Roland 2008).

    Parameters
    ----------
    latent_dim : int
        q, less than d.
    map : bool
        Whether to maximise the log joint density of `model` (a density of W, loc and the noise variances as they
        stand) rather than the likelihood.
    prior_scale : float
        s, as given to `model`; unused without ``map``.
    floor : float
        Share of a column's variance below which its uniqueness is looked at. It is a Heywood case, and no optimum, if
        a tenth of it would do as well: the likelihood rises all the way to zero. There is none with ``map``.

    Returns
    -------
    Steps
        The first restart begins at the principal axes of the standardised data, the others at random loadings.
        Parameters are ``W``, ``loc`` and ``noise_variance``.
    """

    def degenerate(params: Params, expectations: Any, x: Tensor) -> str | None:
        noise = params["noise_variance"]
        share = noise / x.var(0, correction=0)
        small = [] if map else [column for column in share.argsort().tolist() if share[column] < floor]
        for column in small:
            tenth = noise.clone()
            tenth[column] /= 10
            cost = log_likelihood(params, x).sum() - log_likelihood(params | {"noise_variance": tenth}, x).sum()
            if cost < NO_COST:
                return (
                    f"the uniqueness of column {column} runs to zero, a Heywood case: it is down to "
                    f"{float(share[column]):.1e} of the column's variance, and a tenth of that would do as well"
                )
        return None

    return linear_gaussian_em(
        "factor_analysis",
        latent_dim=latent_dim,
        map=map,
        prior_scale=prior_scale,
        shared_noise=False,
        degenerate=degenerate,
    )


def simulate(
    num_rows: int = 300, *, latent_dim: int = 2, num_features: int = 6, seed: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows from random parameters, float64: W and loc standard normal, the noise variances uniform in (.1, 1).

    Returns
    -------
    x : Tensor, shape (num_rows, num_features)
    truth : dict
        ``W``, ``loc``, ``noise_variance`` and ``z`` (num_rows, latent_dim), the factors of each row.
    """
    check("factor_analysis", latent_dim, num_features)
    return linear_gaussian.simulate(
        num_rows, latent_dim=latent_dim, num_features=num_features, seed=seed, shared_noise=False
    )


def _start(site: str, x: Tensor | None, latent_dim: int) -> InferDict:
    return start_at("factor_analysis", site, x, latent_dim, shared_noise=False)
