"""Expectation maximisation of a Gaussian mixture's likelihood, or of its joint density with the prior."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Chi2, Dirichlet, Normal

from .._shared.blocks import Blocks
from .._shared.row_weights import random_rows
from .._shared.steps import Params, Steps
from .conjugate import Statistics, update
from .covariance import Covariance, Form, align, as_matrices, form_of
from .e_step import Components, Rows, expect, prepare, squared_distance
from .missing import expect_with_gaps
from .model import k_means
from .prior import Prior


class Expectations(NamedTuple):
    """Result of the E-step.

    Attributes
    ----------
    counts, mean, scatter : Tensor
        Expected `Statistics` under p(component | row).
    objective : Tensor, shape (...)
        log p(x), plus the prior's log density if ``map``, in nats; nan if a covariance is singular.
    """

    counts: Tensor
    mean: Tensor
    scatter: Tensor
    objective: Tensor


def em_steps(
    num_components: int = 3,
    covariance: Covariance = "full",
    floor: float = 1e-6,
    map: bool = False,
    prior: Prior | None = None,
    missing: bool = False,
) -> Steps:
    """Expectation maximisation, Bishop (2006), section 9.2.2.

    The likelihood is unbounded: a component that shrinks onto a few rows, or onto a plane, gains without end.
    Such parameters are degenerate: a full covariance with d rows or fewer, or any covariance with an eigenvalue below
    ``floor`` in units in which the whole data set has covariance one. The joint density with the prior is bounded, and
    has no such optimum.

    Parameters
    ----------
    num_components : int
        K.
    covariance : {"full", "tied", "diagonal", "isotropic"}
    floor : float
        Smallest eigenvalue of a component's covariance, relative to that of the data.
    map : bool
        Whether to maximise the log joint density of the model's own sites, rather than the likelihood.
    prior : Prior, optional
        For ``map``; default: `default_prior` of the data.
    missing : bool
        Whether NaN in the data are missing values, missing at random: then the likelihood is that of the other entries
        (Ghahramani and Jordan 1994). Otherwise they are refused.

    Returns
    -------
    Steps
        For data ``(x,)`` or ``(x, row_weights)``; a row of weight w counts as w rows like it. Even restarts begin at
        k-means (k-means++ seeds), odd ones at random rows with the data's covariance. Parameters are ``weights``,
        ``loc`` and ``covariance``.
    """
    form = form_of(covariance)

    def rows_of(x: Tensor | Blocks | Rows, row_weights: Any = None) -> Rows:
        return prepare(x, num_components, covariance, row_weights, missing=missing)

    def init(restart: int, *data: Tensor | Blocks | Rows) -> Params:
        return start(restart, rows_of(*data), num_components, form)

    def e_step(params: Params, *data: Tensor | Blocks | Rows) -> Expectations:
        rows = rows_of(*data)
        components = components_at(params, form)
        if rows.gaps is not None:
            found, log_density = expect_with_gaps(params, rows.gaps, rows.row_weights, form)
        else:
            found, log_density = expect(components, rows, form)
        if map:
            log_density = log_density + log_prior(params["weights"], components, prior or rows.prior, form)
        return Expectations(*found, log_density)

    def m_step(expectations: Expectations, *data: Tensor | Blocks | Rows) -> Params:
        counts, mean, scatter, _ = expectations
        if map:
            return _mode(Statistics(counts, mean, scatter), prior or rows_of(*data).prior, form)
        return estimates(counts, mean, scatter, form)

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return expectations.objective

    def degenerate(params: Params, expectations: Expectations, *data: Tensor | Blocks | Rows) -> str | None:
        if map:
            return None
        rows, dim = rows_of(*data), params["loc"].shape[-1]
        counts = expectations.counts * (rows.num_positive / rows.total)
        if covariance == "full" and not (counts > dim).all():
            return f"a component holds {float(counts.min()):.1f} rows, and a full covariance needs more than {dim}"
        sigma = as_matrices(params["covariance"], params["loc"])
        if not torch.isfinite(sigma).all():
            return "a component holds no row"
        root = torch.linalg.cholesky(rows.whitening.covariance)
        half = torch.linalg.solve_triangular(root, sigma, upper=False)
        relative = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.mT, upper=False)).min()
        if relative < floor:
            return f"a covariance has collapsed: relative eigenvalue {float(relative):.1e}, below the floor {floor:g}"
        return None

    return Steps(
        init,
        e_step,
        m_step,
        objective,
        degenerate,
        prepare=lambda *data: (rows_of(*data),),
        batched=True,
        accelerate=True,
        by_blocks=True,
    )


def estimates(counts: Tensor, mean: Tensor, scatter: Tensor, form: Form) -> Params:
    """Return the maximum of the likelihood given `Statistics`."""
    sigma = scatter / align(form.degrees(counts, mean.shape[-1]), scatter)
    return {"weights": counts / counts.sum(-1, keepdim=True), "loc": mean, "covariance": sigma}


def components_at(params: Params, form: Form) -> Components:
    """Log joint densities at these weights, means and covariances; nan for a component with a singular covariance."""
    loc, root = params["loc"], form.root(params["covariance"])
    diagonal = root.diagonal(dim1=-2, dim2=-1) if form.matrices else root.expand_as(loc)
    constant = params["weights"].log() - diagonal.log().sum(-1) - 0.5 * loc.shape[-1] * math.log(2 * math.pi)
    return Components(constant, loc, form.inverse(root))


def start(restart: int, rows: Rows, num_components: int, form: Form) -> Params:
    """Starting values, float64: k-means' centres, or on odd restarts random rows; one wide covariance."""
    if restart % 2 == 0:
        loc = k_means(rows.x, num_components, rows.row_weights)[0]
    else:
        loc = random_rows(rows.x, num_components, rows.row_weights)
    scale = form.project(rows.prior.scale)
    weights = scale.new_full((num_components,), 1 / num_components)
    copies = 1 if form.tied else num_components
    return {"weights": weights, "loc": loc.double(), "covariance": scale.expand(copies, *scale.shape)}


def log_prior(weights: Tensor, components: Components, prior: Prior, form: Form) -> Tensor:
    """Log density, shape (...), of the sites of `model` under its prior, at these weights and components."""
    num_components, dim = components.loc.shape[-2:]
    concentration = weights.new_full((num_components,), prior.concentration)
    of_weights = Dirichlet(concentration, validate_args=False).log_prob(weights)

    root = form.root(form.project(prior.scale))
    lower = components.inverse @ root if form.matrices else (components.inverse * root)[..., None, None]  # Aᵀ
    size = lower.shape[-1]
    df = prior.df - size + 1 + torch.arange(size, dtype=weights.dtype, device=weights.device)
    row, column = torch.tril_indices(size, size, -1, device=weights.device)
    of_scale = Chi2(df, validate_args=False).log_prob(lower.diagonal(dim1=-2, dim2=-1).square()).sum(-1)
    of_scale = of_scale + Normal(0.0, 1.0, validate_args=False).log_prob(lower[..., row, column]).sum(-1)
    if not form.matrices:
        of_scale = of_scale + 2 * root.log()  # the site is 1/σ² = A² / Λ

    distance = squared_distance(components.inverse, components.loc - prior.mean, form)
    log_density = components.constant - weights.log() + 0.5 * dim * math.log(prior.mean_strength)
    of_loc = log_density - 0.5 * prior.mean_strength * distance
    return of_weights + of_scale.flatten(of_weights.dim()).sum(-1) + of_loc.sum(-1)


def _mode(given: Statistics, prior: Prior, form: Form) -> Params:
    """Mode of the sites' joint density given the rows' responsibilities.

    The columns of the Bartlett factor separate: with R the Cholesky factor of the updated Λ, Σ = T Tᵀ where T is R with
    its column j divided by the root of that column's count.
    """
    posterior = update(given, prior, form)
    weights = given.counts + prior.concentration - 1
    scale = form.blocks(posterior.scale)
    df, size = align(posterior.df, scale[..., 0, 0]), scale.shape[-1]
    means = given.mean.numel() * size // scale.numel()  # how many means share a block
    column = df.unsqueeze(-1) - size - 1 + means + torch.arange(size, dtype=df.dtype, device=df.device)
    root = torch.linalg.cholesky(scale) / column.sqrt().unsqueeze(-2)
    weights = weights / weights.sum(-1, keepdim=True)
    return {"weights": weights, "loc": posterior.mean, "covariance": (root @ root.mT).reshape(posterior.scale.shape)}
