"""Coordinate ascent for a mixture of counts: q(z) × q(weights) × q(rate or probs)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from .._shared.blocks import Blocks
from .._shared.responsibilities import entropy, weighted_sums
from .._shared.steps import Params, Steps
from .conjugate import Rows, factors, posterior, prepare, prior_factors, sum_over_sites
from .prior import Family, Prior
from .start import cluster, pick


class Statistics(NamedTuple):
    """Result of the update of q(z).

    Attributes
    ----------
    counts : Tensor, shape (..., k)
        N_k: expected number of rows per component.
    sums : Tensor, shape (..., k, d)
        Their expected sums.
    entropy : Tensor, shape (...)
        Of q(z), in nats.
    log_coefficient : Tensor, shape (...)
        Logarithms of the factorials in p(x | z, sites), in nats.
    prior : Prior
    """

    counts: Tensor
    sums: Tensor
    entropy: Tensor
    log_coefficient: Tensor
    prior: Prior


def cavi_steps(num_components: int = 4, family: Family = "poisson", prior: Prior | None = None) -> Steps:
    """Coordinate ascent on the ELBO with q(z) q(weights) q(rate or probs), Bishop (2006), section 10.2.

    Parameters
    ----------
    num_components : int
        K.
    family : {"poisson", "multinomial"}
    prior : Prior, optional
        Default: `default_prior` of the data.

    Returns
    -------
    Steps
        Even restarts begin at k-means (k-means++ seeds), odd ones at random rows. Parameters are those of q:
        ``weights.concentration`` (k,), and (k, d) ``probs.concentration``, or ``rate.concentration`` and
        ``rate.rate``. The objective is the ELBO in nats, with all constants.
    """

    def rows_of(x: Tensor | Blocks | Rows) -> Rows:
        return prepare(x, num_components, family, prior)

    def init(restart: int, x: Tensor | Blocks | Rows) -> Params:
        rows = rows_of(x)
        start = cluster(rows.x, num_components, family) if restart % 2 == 0 else pick(rows.x, num_components)
        return posterior(rows.prior, *start)

    def e_step(params: Params, x: Tensor | Blocks | Rows) -> Statistics:
        rows, (weights, logs, means) = rows_of(x), _expected(params)
        constant = weights - means.sum(-1)
        found = weighted_sums(constant, logs, rows.columns())
        of_z = entropy(found, constant, logs)
        return Statistics(found.counts, found.sums, of_z, rows.log_coefficient.expand_as(of_z), rows.prior)

    def m_step(statistics: Statistics, x: Tensor | Blocks | Rows) -> Params:
        return posterior(statistics.prior, statistics.counts, statistics.sums)

    def objective(params: Params, statistics: Statistics) -> Tensor:
        weights, logs, means = _expected(params)
        counts, sums = statistics.counts, statistics.sums
        expected = (counts * (weights - means.sum(-1))).sum(-1) + (sums * logs).sum((-1, -2))
        own = prior_factors(statistics.prior, counts, sums)
        divergence = sum(sum_over_sites(kl_divergence(q, own[name]), expected) for name, q in factors(params).items())
        return expected + statistics.log_coefficient + statistics.entropy - divergence

    def draw(params: Params, num_draws: int) -> Params:
        return {name: q.sample(torch.Size([num_draws])) for name, q in factors(params).items()}

    return Steps(
        init, e_step, m_step, objective, prepare=lambda x: (rows_of(x),), draw=draw, batched=True, by_blocks=True
    )


def _expected(params: Params) -> tuple[Tensor, Tensor, Tensor]:
    """E log weights, E log rate and E rate under q; for probabilities E log probs, and zero."""
    weights = _log_dirichlet(params["weights.concentration"])
    if "probs.concentration" in params:
        logs = _log_dirichlet(params["probs.concentration"])
        return weights, logs, torch.zeros_like(logs)
    shape, inverse_scale = params["rate.concentration"], params["rate.rate"]
    return weights, shape.digamma() - inverse_scale.log(), shape / inverse_scale


def _log_dirichlet(concentration: Tensor) -> Tensor:
    return concentration.digamma() - concentration.sum(-1, keepdim=True).digamma()
