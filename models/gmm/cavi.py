"""Coordinate ascent for a Gaussian mixture: q(components) × q(weights) × q(means, precisions)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from .._shared.blocks import Blocks
from .._shared.steps import Params, Steps
from .conjugate import Statistics, update
from .covariance import Covariance, Form, align, form_of
from .e_step import Components, Rows, expect, expected_log_joint, prepare, squared_distance
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
    """
    form = form_of(covariance)

    def rows_of(x: Tensor | Blocks | Rows) -> Rows:
        return prepare(x, num_components, covariance)

    def update_z(components: Components, rows: Rows) -> Expectations:
        found, log_norm = expect(components, rows, form)
        return Expectations(*found, log_norm - expected_log_joint(components, found, form), prior or rows.prior)

    def init(restart: int, x: Tensor | Blocks | Rows) -> Params:
        rows = rows_of(x)
        return m_step(update_z(components_at(start(restart, rows, num_components, form), form), rows), rows)

    def e_step(params: Params, x: Tensor | Blocks | Rows) -> Expectations:
        return update_z(_expected_components(params, form), rows_of(x))

    def m_step(expectations: Expectations, x: Tensor | Blocks | Rows) -> Params:
        given = Statistics(*expectations[:3])
        concentration = expectations.prior.concentration + given.counts
        return {"concentration": concentration, **update(given, expectations.prior, form)._asdict()}

    def objective(params: Params, expectations: Expectations) -> Tensor:
        """Bishop (2006), equation 10.70, for any q of this form."""
        components = _expected_components(params, form)
        fit = expected_log_joint(components, Statistics(*expectations[:3]), form)
        return fit + expectations.entropy - _divergence(params, components, expectations.prior, form)

    def draw(params: Params, num_draws: int) -> Params:
        return draw_posterior({name: value.expand(num_draws, *value.shape) for name, value in params.items()}, form)

    return Steps(
        init, e_step, m_step, objective, prepare=lambda x: (rows_of(x),), draw=draw, batched=True, by_blocks=True
    )


def _expected_components(params: Params, form: Form) -> Components:
    """Expected log joint densities under q, Bishop (2006), equations 10.64 to 10.66."""
    concentration, loc, scale = params["concentration"], params["mean"], params["scale"]
    log_weights = torch.digamma(concentration) - torch.digamma(concentration.sum(-1, keepdim=True))
    blocks = form.blocks(scale)
    log_det = form.per_component(_log_det(align(params["df"], blocks[..., 0, 0]), blocks), loc)
    constant = log_weights + 0.5 * (log_det - loc.shape[-1] * (math.log(2 * math.pi) + 1 / params["mean_strength"]))
    return Components(constant, loc, form.inverse(form.root(scale / align(params["df"], scale))))


def _divergence(params: Params, components: Components, prior: Prior, form: Form) -> Tensor:
    """Kullback-Leibler divergence, shape (...), of q(weights) q(means, precisions) from the prior."""
    concentration = params["concentration"]
    prior_of_weights = Dirichlet(torch.full_like(concentration, prior.concentration), False)
    of_weights = kl_divergence(Dirichlet(concentration, False), prior_of_weights)

    ratio = prior.mean_strength / params["mean_strength"]
    distance = squared_distance(components.inverse, components.loc - prior.mean, form)
    of_means = 0.5 * (components.loc.shape[-1] * (ratio - 1 - ratio.log()) + prior.mean_strength * distance)

    scale, first = form.blocks(params["scale"]), form.blocks(form.project(prior.scale))
    df, first_df, size = align(params["df"], scale[..., 0, 0]), params["df"].new_tensor(prior.df), scale.shape[-1]
    traces = torch.linalg.solve(scale, first.expand_as(scale)).diagonal(dim1=-2, dim2=-1).sum(-1)
    of_wisharts = _log_normaliser(df, scale) - _log_normaliser(first_df, first)
    of_wisharts = of_wisharts + 0.5 * ((df - first_df) * _log_det(df, scale) + df * (traces - size))
    return of_weights + of_means.sum(-1) + of_wisharts.flatten(of_weights.dim()).sum(-1)


def _log_det(df: Tensor, scale: Tensor) -> Tensor:
    """E log |Σ⁻¹| of inverse Wisharts, Bishop (2006), equation B.81."""
    size = scale.shape[-1]
    halves = (df.unsqueeze(-1) - torch.arange(size, dtype=df.dtype, device=df.device)) / 2
    return torch.digamma(halves).sum(-1) + size * math.log(2) - torch.logdet(scale)


def _log_normaliser(df: Tensor, scale: Tensor) -> Tensor:
    """Logarithm of B in Bishop (2006), equation B.79, of a Wishart with the inverse of ``scale`` for its scale."""
    size = scale.shape[-1]
    return 0.5 * df * (torch.logdet(scale) - size * math.log(2)) - torch.mvlgamma(df / 2, size)
