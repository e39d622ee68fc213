"""Coordinate ascent for a Gaussian mixture: q(components) × q(weights) × q(means, precisions)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from .._shared.steps import Params, Steps
from .conjugate import Statistics, update
from .covariance import Covariance, Form, align, form_of, per_block
from .e_step import Components, Rows, entropy, expect, prepare, squared_distance
from .em import components_at, start
from .gibbs import draw_posterior
from .prior import Prior


class Expectations(NamedTuple):
    """Result of the update of q(components).

    Attributes
    ----------
    counts, mean, scatter : Tensor
        Expected `Statistics` under q.
    entropy : Tensor, shape (...)
        Of q(components), in nats.
    prior : Prior
    """

    counts: Tensor
    mean: Tensor
    scatter: Tensor
    entropy: Tensor
    prior: Prior


def cavi_steps(num_components: int = 3, covariance: Covariance = "full", prior: Prior | None = None) -> Steps:
    """Coordinate ascent on the evidence lower bound, Bishop (2006), section 10.2.1.

    q(weights) is a Dirichlet, q(mean, precision) of each component normal-Wishart, or normal-gamma for a diagonal or
    isotropic covariance, and q(components) one categorical per row.

    Parameters
    ----------
    num_components : int
        K.
    covariance : {"full", "tied", "diagonal", "isotropic"}
    prior : Prior, optional
        Default: `default_prior` of the data.

    Returns
    -------
    Steps
        Even restarts begin at k-means, odd ones at random rows. Parameters are those of q: ``concentration`` (k),
        ``mean_strength`` (k), ``mean`` (k, d), ``df`` and ``scale`` (c, κ, m, ν and Λ, as in `NormalWishart`).

    Raises
    ------
    ValueError
        If ``covariance`` is unknown.
    """
    form = form_of(covariance)

    def rows_of(x: Tensor | Rows) -> Rows:
        return prepare(x, num_components, covariance)

    def expectations_at(components: Components, rows: Rows) -> Expectations:
        found, log_norm = expect(components, rows, form)
        return Expectations(*found, entropy(components, found, log_norm, form), prior or rows.prior)

    def init(restart: int, x: Tensor | Rows) -> Params:
        rows = rows_of(x)
        first = components_at(start(restart, rows, num_components, form), form)
        return m_step(expectations_at(first, rows), rows)

    def e_step(params: Params, x: Tensor | Rows) -> Expectations:
        log_weights, log_det = _log_moments(params, form)
        dim = params["mean"].shape[-1]
        constant = log_weights + 0.5 * (log_det - dim / params["mean_strength"])
        return expectations_at(Components(constant, params["mean"], _inverse(params, form)), rows_of(x))

    def m_step(expectations: Expectations, x: Tensor | Rows) -> Params:
        posterior = update(Statistics(*expectations[:3]), expectations.prior, form)
        return {"concentration": expectations.prior.concentration + expectations.counts, **posterior._asdict()}

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return _bound(params, expectations, form)

    def draw(params: Params, num_draws: int) -> Params:
        return draw_posterior({name: value.expand(num_draws, *value.shape) for name, value in params.items()}, form)

    return Steps(init, e_step, m_step, objective, prepare=lambda x: (rows_of(x),), draw=draw, batched=True)


def _log_moments(params: Params, form: Form) -> tuple[Tensor, Tensor]:
    """E log weights and E log |Σ⁻¹| under q, each (..., k), tied (..., 1); Bishop (2006), equations 10.65 and 10.66."""
    concentration, dim = params["concentration"], params["mean"].shape[-1]
    log_weights = torch.digamma(concentration) - torch.digamma(concentration.sum(-1, keepdim=True))
    scale = form.blocks(params["scale"])
    return log_weights, form.per_component(_log_det(per_block(params["df"], scale), scale), dim)


def _log_det(df: Tensor, scale: Tensor) -> Tensor:
    """E log |Σ⁻¹| of inverse Wisharts."""
    size = scale.shape[-1]
    halves = (df.unsqueeze(-1) - torch.arange(size, dtype=df.dtype, device=df.device)) / 2
    return torch.digamma(halves).sum(-1) + size * math.log(2) - torch.logdet(scale)


def _inverse(params: Params, form: Form) -> Tensor:
    """S⁻¹ of the covariance whose inverse is E Σ⁻¹ under q."""
    return form.inverse(form.root(params["scale"] / align(params["df"], params["scale"])))


def _bound(params: Params, expectations: Expectations, form: Form) -> Tensor:
    """The evidence lower bound, Bishop (2006), equation 10.70, for any q of this form; shape (...)."""
    counts, mean, scatter, of_z, prior = expectations
    dim, inverse = mean.shape[-1], _inverse(params, form)
    mean = torch.where((counts > 0).unsqueeze(-1), mean, prior.mean)
    strength, loc = params["mean_strength"], params["mean"]
    log_weights, log_det = _log_moments(params, form)
    density = log_weights + 0.5 * (log_det - dim * math.log(2 * math.pi) - dim / strength)
    fit = counts * (density - 0.5 * squared_distance(inverse, mean - loc, form))
    within = form.traces(inverse, scatter)

    ratio = prior.mean_strength / strength
    distance = squared_distance(inverse, loc - prior.mean, form)
    means = 0.5 * (dim * (ratio - 1 - ratio.log()) + prior.mean_strength * distance)
    prior_of_weights = Dirichlet(torch.full_like(counts, prior.concentration), False)
    weights = kl_divergence(Dirichlet(params["concentration"], False), prior_of_weights)
    covariances = _divergence(params, prior, form).flatten(of_z.dim())
    return (fit - means).sum(-1) - 0.5 * within.sum(-1) + of_z - weights - covariances.sum(-1)


def _divergence(params: Params, prior: Prior, form: Form) -> Tensor:
    """Kullback-Leibler divergence from the prior of the Wishart distributions in q."""
    scale, first = form.blocks(params["scale"]), form.blocks(form.project(prior.scale))
    df, size = per_block(params["df"], scale), scale.shape[-1]
    first_df = df.new_tensor(prior.df)
    traces = torch.linalg.solve(scale, first.expand_as(scale)).diagonal(dim1=-2, dim2=-1).sum(-1)
    change = (df - first_df) * _log_det(df, scale) - df * size + df * traces
    return _log_normaliser(df, scale) - _log_normaliser(first_df, first) + 0.5 * change


def _log_normaliser(df: Tensor, scale: Tensor) -> Tensor:
    """Logarithm of B in Bishop (2006), equation B.79, of a Wishart with the inverse of ``scale`` for its scale."""
    size = scale.shape[-1]
    return 0.5 * df * (torch.logdet(scale) - size * math.log(2)) - torch.mvlgamma(df / 2, size)
