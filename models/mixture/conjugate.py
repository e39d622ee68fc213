"""Updates that the conjugate prior closes: coordinate ascent on the ELBO, and Gibbs sampling.

References
----------
1. Bishop (2006), Pattern Recognition and Machine Learning, section 10.2: the same for normal components.
2. Diebolt and Robert (1994), Estimation of finite mixture distributions through Bayesian sampling, JRSS B 56.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from .._shared.responsibilities import entropy, share_out
from .._shared.steps import GibbsSteps, Params, Steps
from .distributions import sum_of_coefficients
from .exact import columns, responsibilities
from .prior import Family, Prior, check_counts, cluster, factors, pick, posterior, prior_of


class Statistics(NamedTuple):
    """What q(z) says about the data: all that the M-step and the bound need.

    Attributes
    ----------
    counts : Tensor, shape (..., k)
        Expected rows of each component.
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
        `default_prior` of the data where left out.

    Returns
    -------
    Steps
        Even restarts begin at k-means (k-means++ seeds), odd ones at random rows. Parameters are those of q:
        ``weights.concentration`` (k,), and (k, d) ``probs.concentration``, or ``rate.concentration`` and
        ``rate.rate``. The objective is the ELBO in nats, all constants in.
    """

    def init(restart: int, x: Tensor) -> Params:
        check_counts(x)
        start = cluster(x, num_components, family) if restart % 2 == 0 else pick(x, num_components)
        return posterior(prior_of(x, num_components, family, prior, torch.float64), *start)

    def e_step(params: Params, x: Tensor) -> Statistics:
        weights, logs, means = _expected(params)
        constant = weights - means.sum(-1)
        shared = share_out(constant, logs, columns(x))
        given = prior_of(x, num_components, family, prior, torch.float64)
        left = entropy(shared, constant, logs)
        coefficient = sum_of_coefficients(x, family == "multinomial").expand_as(left)
        return Statistics(shared.counts, shared.sums, left, coefficient, given)

    def m_step(statistics: Statistics, x: Tensor) -> Params:
        return posterior(statistics.prior, statistics.counts, statistics.sums)

    def objective(params: Params, statistics: Statistics) -> Tensor:
        weights, logs, means = _expected(params)
        counts, sums = statistics.counts, statistics.sums
        expected = (counts * (weights - means.sum(-1))).sum(-1) + (sums * logs).sum((-1, -2))
        own = factors(posterior(statistics.prior, torch.zeros_like(counts), torch.zeros_like(sums)))
        divergence = sum(_per_restart(kl_divergence(q, own[name]), expected) for name, q in factors(params).items())
        return expected + statistics.log_coefficient + statistics.entropy - divergence

    def draw(params: Params, num_draws: int) -> Params:
        return {name: q.sample(torch.Size([num_draws])) for name, q in factors(params).items()}

    return Steps(init, e_step, m_step, objective, draw=draw, batched=True)


def gibbs_steps(num_components: int = 4, family: Family = "poisson", prior: Prior | None = None) -> GibbsSteps:
    """Gibbs sampling: the components of the rows, then all parameters given them, Diebolt and Robert (1994).

    Parameters
    ----------
    num_components : int
        K.
    family : {"poisson", "multinomial"}
    prior : Prior, optional
        `default_prior` of the data where left out.

    Returns
    -------
    GibbsSteps
        Two blocks, of which the second draws the weights and the components' parameters at once. Each chain starts at
        a draw given clusters of k-means, the best of ten tries of its own. The state has ``z`` (chain, n), ``weights``
        (chain, k) and ``rate`` or ``probs`` (chain, k, d).
    """
    site = "rate" if family == "poisson" else "probs"

    def init(num_chains: int, x: Tensor) -> Params:
        check_counts(x)
        clusters = [cluster(x, num_components, family, tries=10) for _ in range(num_chains)]
        counts, sums = (torch.stack(values) for values in zip(*clusters, strict=True))
        state = draw_sites(counts, sums, x)
        return state | draw_z(state, x)

    def draw_z(state: Params, x: Tensor) -> Params:
        cumulative = responsibilities({name: state[name] for name in ("weights", site)}, x).cumsum(-1)
        uniform = torch.rand_like(cumulative[..., :1])
        return {"z": (uniform > cumulative[..., :-1]).sum(-1)}

    def draw_parameters(state: Params, x: Tensor) -> Params:
        member = torch.nn.functional.one_hot(state["z"], num_components).to(x)
        return draw_sites(member.sum(-2), member.mT @ x, x)

    def draw_sites(counts: Tensor, sums: Tensor, x: Tensor) -> Params:
        given = prior_of(x, num_components, family, prior)
        return {name: q.sample() for name, q in factors(posterior(given, counts, sums)).items()}

    return GibbsSteps(init, (draw_z, draw_parameters), ("weights", site))


def _per_restart(value: Tensor, like: Tensor) -> Tensor:
    """Sum over the dimensions that ``like`` does not have."""
    return value.reshape(*like.shape, -1).sum(-1)


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
