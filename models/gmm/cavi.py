"""Coordinate ascent for a Gaussian mixture: q(components) × q(weights) × q(means, precisions)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Dirichlet, Gamma, kl_divergence

from ..steps import Params, Steps
from .conjugate import Statistics, prior_scale, statistics, update
from .em import start
from .exact import responsibilities
from .generative import Covariance, Prior, remembered_prior
from .gibbs import draw_posterior


class Expectations(NamedTuple):
    """What the update of q(components) hands on.

    Attributes
    ----------
    shared : Statistics
        Of the rows, shared out by q.
    entropy : Tensor, scalar
        Of q(components), in nats.
    prior : Prior
        Of the data at hand.
    """

    shared: Statistics
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

    def shared_out(shares: Tensor, x: Tensor) -> Expectations:
        entropy = -torch.special.xlogy(shares, shares).sum()
        return Expectations(statistics(shares, x, covariance), entropy, prior or remembered_prior(x, num_components))

    def init(restart: int, x: Tensor) -> Params:
        shares = responsibilities(start(restart, x, num_components, covariance), x)
        return m_step(shared_out(shares, x), x)

    def e_step(params: Params, x: Tensor) -> Expectations:
        log_weights, log_det = _log_moments(params, covariance, x.shape[1])
        gap = (x - params["mean"].unsqueeze(-2)).mT  # (k, d, n)
        distance = _distance(gap, params, covariance) + x.shape[1] / params["mean_strength"][:, None]
        return shared_out((log_weights + 0.5 * (log_det - distance.mT)).softmax(-1), x)

    def m_step(expectations: Expectations, x: Tensor) -> Params:
        posterior = update(expectations.shared, expectations.prior, covariance)
        return {"concentration": expectations.prior.concentration + expectations.shared.counts, **posterior._asdict()}

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return _bound(params, expectations, covariance)

    def draw(params: Params, num_draws: int) -> Params:
        many = {name: value.expand(num_draws, *value.shape) for name, value in params.items()}
        return draw_posterior(many, covariance)

    return Steps(init, e_step, m_step, objective, draw=draw)


def _log_moments(params: Params, covariance: Covariance, dim: int) -> tuple[Tensor, Tensor]:
    """E log weights and E log |Σ⁻¹| under q, each (k), tied (1); Bishop (2006), equations 10.65 and 10.66."""
    concentration, df, scale = params["concentration"], params["df"], params["scale"]
    log_weights = torch.digamma(concentration) - torch.digamma(concentration.sum())
    if covariance in ("full", "tied"):
        halves = (df[:, None] - torch.arange(dim, dtype=df.dtype, device=df.device)) / 2
        return log_weights, torch.digamma(halves).sum(-1) + dim * math.log(2) - torch.logdet(scale)
    if covariance == "diagonal":
        return log_weights, (torch.digamma(df / 2)[:, None] - (scale / 2).log()).sum(-1)
    return log_weights, dim * (torch.digamma(df / 2) - (scale / 2).log())


def _distance(gap: Tensor, params: Params, covariance: Covariance) -> Tensor:
    """E gapᵀ Σ⁻¹ gap under q(Σ), for columns of ``gap``: (k, d, m) gives (k, m)."""
    df, scale = params["df"][:, None], params["scale"]
    if covariance in ("full", "tied"):
        return df * torch.linalg.solve_triangular(torch.linalg.cholesky(scale), gap, upper=False).square().sum(-2)
    scale = scale if covariance == "diagonal" else scale[:, None]
    return df * (gap.square() / scale[..., None]).sum(-2)


def _bound(params: Params, expectations: Expectations, covariance: Covariance) -> Tensor:
    """The evidence lower bound, Bishop (2006), equation 10.70, for any q of this form."""
    shared, entropy, prior = expectations
    present = shared.counts > 0
    counts, dim = shared.counts, len(prior.mean)
    mean = torch.where(present[:, None], shared.mean, prior.mean)
    scatter = torch.nan_to_num(shared.scatter)
    strength, df, scale = params["mean_strength"], params["df"], params["scale"]
    log_weights, log_det = _log_moments(params, covariance, dim)
    first_scale = prior_scale(prior, covariance)
    if covariance in ("full", "tied"):
        inside = df * torch.linalg.solve(scale, scatter).diagonal(dim1=-2, dim2=-1).sum(-1)
        traces = torch.linalg.solve(scale, first_scale.expand_as(scale)).diagonal(dim1=-2, dim2=-1).sum(-1)
        wishart = _log_normaliser(df, scale) - _log_normaliser(df.new_tensor(prior.df), first_scale)
        wishart = wishart + 0.5 * ((df - prior.df) * log_det - df * dim + df * traces)
    else:
        rate = df[:, None] / scale if covariance == "diagonal" else df / scale
        inside = (rate * scatter).reshape(len(counts), -1).sum(-1)
        shape = df[:, None].expand_as(scale) if covariance == "diagonal" else df
        wishart = kl_divergence(Gamma(shape / 2, scale / 2), Gamma(prior.df / 2, first_scale / 2))

    from_mean = _distance((mean - params["mean"]).unsqueeze(-1), params, covariance).squeeze(-1)
    fit = (counts * (log_weights + 0.5 * (log_det - dim * math.log(2 * math.pi) - dim / strength - from_mean))).sum()
    from_prior = _distance((params["mean"] - prior.mean).unsqueeze(-1), params, covariance).squeeze(-1)
    ratio = prior.mean_strength / strength
    means = 0.5 * (dim * (ratio - 1 - ratio.log()) + prior.mean_strength * from_prior).sum()
    first = Dirichlet(torch.full_like(counts, prior.concentration))
    weights = kl_divergence(Dirichlet(params["concentration"]), first)
    return fit - 0.5 * inside.sum() + entropy - weights - means - wishart.sum()


def _log_normaliser(df: Tensor, scale: Tensor) -> Tensor:
    """Logarithm of B in Bishop (2006), equation B.79, of a Wishart with the inverse of ``scale`` for its scale."""
    dim = scale.shape[-1]
    return 0.5 * df * (torch.logdet(scale) - dim * math.log(2)) - torch.mvlgamma(df / 2, dim)
