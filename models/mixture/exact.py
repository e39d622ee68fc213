"""Exact mathematics of a mixture of counts: joint density, responsibilities and the steps of EM."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.responsibilities import chunks, share_out
from .._shared.steps import Params, Steps
from .distributions import IMPOSSIBLE, CountMixture, finite_log, sum_of_coefficients
from .prior import Family, Prior, check_counts, cluster, distributions, factors, pick, posterior, prior_of, site_name


class Expectations(NamedTuple):
    """What the E-step hands on.

    Attributes
    ----------
    counts : Tensor, shape (..., k)
        Expected rows of each component.
    sums : Tensor, shape (..., k, d)
        Their expected sums.
    log_likelihood : Tensor, shape (...)
        log p(x | sites), in nats.
    log_prior : Tensor, shape (...)
        log p(sites), in nats; zero where the likelihood alone is maximised.
    """

    counts: Tensor
    sums: Tensor
    log_likelihood: Tensor
    log_prior: Tensor


def log_joint(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "*batch n k"]:
    """Logarithm of p(x[n], component k | sites) for every row and component, in nats.

    Parameters
    ----------
    sites : dict
        ``weights`` (…, k), and ``rate`` (…, k, d) of a Poisson mixture or ``probs`` (…, k, d) of a multinomial one,
        with any dimensions on the left.
    x : Tensor, shape (n, d)
    """
    weights, intensity = sites["weights"], sites["rate"] if "rate" in sites else sites["probs"]
    if x.dtype != weights.dtype or x.device != weights.device:
        x = x.to(weights)
    totals = None if "rate" in sites else x.sum(-1)
    return CountMixture(weights.unsqueeze(-2), intensity.unsqueeze(-3), totals, validate_args=False).log_joint(x)


def log_likelihood(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "*batch n"]:
    """Pointwise marginal log likelihood: log p(x[n] | sites), in nats; arguments as for `log_joint`."""
    return log_joint(sites, x).logsumexp(-1)


def responsibilities(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "*batch n k"]:
    """p(component | row, sites); nan for a row that no component can bring forth. Arguments as for `log_joint`."""
    return log_joint(sites, x).softmax(-1)


def em_steps(
    num_components: int = 4,
    family: Family = "poisson",
    map: bool = False,
    prior: Prior | None = None,
) -> Steps:
    """Expectation maximisation, McLachlan and Peel (2000), section 2.8.

    Parameters
    ----------
    num_components : int
        K.
    family : {"poisson", "multinomial"}
    map : bool
        Whether to maximise the log joint density of `model`, prior included, rather than the likelihood.
    prior : Prior, optional
        `default_prior` of the data where left out. Its shape and concentration must be at least 1 if ``map``.

    Returns
    -------
    Steps
        Even restarts begin at k-means (k-means++ seeds), odd ones at random rows, drawn towards the prior so that
        nothing is impossible. Parameters are ``weights`` and ``rate`` or ``probs``. Where two components share what
        is one segment plain EM crawls for thousands of iterations: the loop is asked to extrapolate.
    """

    def target(x: Tensor) -> Prior:
        given = prior_of(x, num_components, family, prior, torch.float64)
        return given if map else _flat(given)

    def init(restart: int, x: Tensor) -> Params:
        check_counts(x)
        given = prior_of(x, num_components, family, prior, torch.float64)
        if map and (given.concentration < 1 or not (given.shape >= 1).all()):
            raise ValueError("mixture: with a shape or concentration below 1 the posterior has no mode: map needs more")
        start = cluster(x, num_components, family) if restart % 2 == 0 else pick(x, num_components)
        name = site_name(given)
        weights = start[0].new_full((num_components,), 1 / num_components)
        return {"weights": weights, name: factors(posterior(given, *start))[name].mean}

    def e_step(params: Params, x: Tensor) -> Expectations:
        intensity = params["rate" if family == "poisson" else "probs"]
        constant = params["weights"].log()
        if family == "poisson":
            constant = constant - intensity.sum(-1)
        shared = share_out(constant, finite_log(intensity), columns(x))
        coefficient = sum_of_coefficients(x, family == "multinomial")
        log_likelihood = torch.where(shared.log_norm < IMPOSSIBLE, -math.inf, shared.log_norm) + coefficient
        log_prior = _log_prior(target(x), params) if map else torch.zeros_like(log_likelihood)
        return Expectations(shared.counts, shared.sums, log_likelihood, log_prior)

    def m_step(expectations: Expectations, x: Tensor) -> Params:
        return _mode(target(x), expectations.counts, expectations.sums)

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return expectations.log_likelihood + expectations.log_prior

    def degenerate(params: Params, expectations: Expectations, x: Tensor) -> str | None:
        least = float(expectations.counts.min())
        return f"a component holds no row ({least:.1e} of one)" if not least > 1e-6 else None

    return Steps(init, e_step, m_step, objective, degenerate, accelerate=True, batched=True)


def columns(x: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, "d _"]]:
    """The rows as columns, a chunk at a time, in float64."""
    return (part.mT for part in chunks(x, x.shape[1]))


def _flat(prior: Prior) -> Prior:
    """The improper prior under which the posterior's mode is the maximum of the likelihood."""
    none = None if prior.inverse_scale is None else torch.zeros_like(prior.inverse_scale)
    return Prior(1.0, torch.ones_like(prior.shape), none)


def _log_prior(prior: Prior, params: Params) -> Tensor:
    """Log density of the prior; nan outside of its support, where an extrapolation may step."""
    weights = params["weights"]
    of_weights, of_components = distributions(prior, weights.shape[-1], weights, validate_args=False)
    return of_weights.log_prob(weights) + of_components.log_prob(params[site_name(prior)])


def _mode(prior: Prior, counts: Tensor, sums: Tensor) -> Params:
    """Mode of the posterior once rows have their components, in shares of ``counts`` rows that sum to ``sums``."""
    weights = counts + prior.concentration - 1
    weights = weights / weights.sum(-1, keepdim=True)
    sums = sums + prior.shape - 1
    if prior.inverse_scale is not None:
        rows = counts.unsqueeze(-1) + prior.inverse_scale
        return {"weights": weights, "rate": sums / rows.clamp(min=torch.finfo(rows.dtype).tiny)}
    total = sums.sum(-1, keepdim=True)
    return {"weights": weights, "probs": torch.where(total > 0, sums / total, 1 / sums.shape[-1])}
