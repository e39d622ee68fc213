"""Coordinate ascent for a Gaussian mixture: q(components) × q(weights) × q(means, precisions)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Dirichlet, Gamma, kl_divergence

from .._shared.steps import Params, Steps
from .conjugate import Statistics, prior_scale, update
from .e_step import Components, entropy, expect
from .em import components_at, start
from .gibbs import draw_posterior
from .model import Covariance, Prior, remembered_prior


class Expectations(NamedTuple):
    """What the update of q(components) hands on.

    Attributes
    ----------
    counts, mean, scatter : Tensor
        `Statistics` of the rows, shared out by q.
    entropy : Tensor, shape (...)
        Of q(components), in nats.
    prior : Prior
        Of the data at hand.
    """

    counts: Tensor
    mean: Tensor
    scatter: Tensor
    entropy: Tensor
    prior: Prior


def cavi_steps(num_components: int = 3, covariance: Covariance = "full", prior: Prior | None = None) -> Steps:
    """Coordinate ascent of the evidence lower bound, Bishop (2006), section 10.2.1.

    q(weights) is a Dirichlet, q(mean, precision) of each component normal-Wishart, or normal-gamma for a diagonal or
    isotropic covariance, and q(components) a categorical a row.

    Parameters
    ----------
    num_components : int
        K.
    covariance : {"full", "tied", "diagonal", "isotropic"}
    prior : Prior, optional
        `default_prior` of the data where left out.

    Returns
    -------
    Steps
        Even restarts begin at k-means, odd ones at random rows. Parameters are those of q: ``concentration`` (k),
        ``mean_strength`` (k), ``mean`` (k, d), ``df`` and ``scale`` (c, κ, m, ν and Λ, as in `Update`).
    """

    def shared_out(components: Components, x: Tensor) -> Expectations:
        shared = expect(components, x, covariance)
        given = prior or remembered_prior(x, num_components, torch.float64)
        return Expectations(*shared.statistics, entropy(components, shared, covariance), given)

    def init(restart: int, x: Tensor) -> Params:
        first = components_at(start(restart, x, num_components, covariance), covariance)
        return m_step(shared_out(first, x), x)

    def e_step(params: Params, x: Tensor) -> Expectations:
        log_weights, log_det = _log_moments(params, covariance, x.shape[1])
        constant = log_weights + 0.5 * (log_det - x.shape[1] / params["mean_strength"])
        return shared_out(Components(constant, params["mean"], _root(params, covariance)), x)

    def m_step(expectations: Expectations, x: Tensor) -> Params:
        posterior = update(Statistics(*expectations[:3]), expectations.prior, covariance)
        return {"concentration": expectations.prior.concentration + expectations.counts, **posterior._asdict()}

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return _bound(params, expectations, covariance)

    def draw(params: Params, num_draws: int) -> Params:
        many = {name: value.expand(num_draws, *value.shape) for name, value in params.items()}
        return draw_posterior(many, covariance)

    return Steps(init, e_step, m_step, objective, draw=draw, batched=True)


def _log_moments(params: Params, covariance: Covariance, dim: int) -> tuple[Tensor, Tensor]:
    """E log weights and E log |Σ⁻¹| under q, each (..., k), tied (..., 1); Bishop (2006), equations 10.65 and 10.66."""
    concentration, df, scale = params["concentration"], params["df"], params["scale"]
    log_weights = torch.digamma(concentration) - torch.digamma(concentration.sum(-1, keepdim=True))
    if covariance in ("full", "tied"):
        halves = (df[..., None] - torch.arange(dim, dtype=df.dtype, device=df.device)) / 2
        return log_weights, torch.digamma(halves).sum(-1) + dim * math.log(2) - torch.logdet(scale)
    if covariance == "diagonal":
        return log_weights, (torch.digamma(df / 2)[..., None] - (scale / 2).log()).sum(-1)
    return log_weights, dim * (torch.digamma(df / 2) - (scale / 2).log())


def _root(params: Params, covariance: Covariance) -> Tensor:
    """S of `Components`, of the covariance whose inverse is E Σ⁻¹ under q."""
    df, scale = params["df"], params["scale"]
    if covariance in ("full", "tied"):
        return torch.linalg.cholesky(scale) / df[..., None, None].sqrt()
    return (scale / (df[..., None] if covariance == "diagonal" else df)).sqrt()


def _distance(gap: Tensor, root: Tensor, covariance: Covariance) -> Tensor:
    """E gapᵀ Σ⁻¹ gap under q(Σ), shape (..., k), for gaps (..., k, d)."""
    if covariance in ("full", "tied"):
        return torch.linalg.solve_triangular(root, gap.unsqueeze(-1), upper=False).square().sum((-1, -2))
    return (gap / (root if covariance == "diagonal" else root.unsqueeze(-1))).square().sum(-1)


def _bound(params: Params, expectations: Expectations, covariance: Covariance) -> Tensor:
    """The evidence lower bound, Bishop (2006), equation 10.70, for any q of this form; shape (...)."""
    counts, mean, scatter, left, prior = expectations
    dim, root = len(prior.mean), _root(params, covariance)
    mean = torch.where((counts > 0)[..., None], mean, prior.mean)
    scatter = torch.nan_to_num(scatter)
    strength, df, scale = params["mean_strength"], params["df"], params["scale"]
    log_weights, log_det = _log_moments(params, covariance, dim)
    first_scale = prior_scale(prior, covariance)
    if covariance in ("full", "tied"):
        inside = df * torch.linalg.solve(scale, scatter).diagonal(dim1=-2, dim2=-1).sum(-1)
        traces = torch.linalg.solve(scale, first_scale.expand_as(scale)).diagonal(dim1=-2, dim2=-1).sum(-1)
        wishart = _log_normaliser(df, scale) - _log_normaliser(df.new_tensor(prior.df), first_scale)
        wishart = wishart + 0.5 * ((df - prior.df) * log_det - df * dim + df * traces)
    else:
        rate = df[..., None] / scale if covariance == "diagonal" else df / scale
        inside = (rate * scatter).flatten(left.dim())
        shape = df[..., None].expand_as(scale) if covariance == "diagonal" else df
        wishart = kl_divergence(
            Gamma(shape / 2, scale / 2, False), Gamma(prior.df / 2, first_scale.expand_as(scale) / 2, False)
        ).flatten(left.dim())

    from_mean = _distance(mean - params["mean"], root, covariance)
    fit = counts * (log_weights + 0.5 * (log_det - dim * math.log(2 * math.pi) - dim / strength - from_mean))
    from_prior = _distance(params["mean"] - prior.mean, root, covariance)
    ratio = prior.mean_strength / strength
    means = 0.5 * (dim * (ratio - 1 - ratio.log()) + prior.mean_strength * from_prior)
    first = Dirichlet(torch.full_like(counts, prior.concentration), False)
    weights = kl_divergence(Dirichlet(params["concentration"], False), first)
    return (fit - means).sum(-1) - 0.5 * inside.sum(-1) + left - weights - wishart.sum(-1)


def _log_normaliser(df: Tensor, scale: Tensor) -> Tensor:
    """Logarithm of B in Bishop (2006), equation B.79, of a Wishart with the inverse of ``scale`` for its scale."""
    dim = scale.shape[-1]
    return 0.5 * df * (torch.logdet(scale) - dim * math.log(2)) - torch.mvlgamma(df / 2, dim)
