"""Expectation maximisation of a Gaussian mixture's likelihood, or of its joint density with the prior."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Chi2, Dirichlet, Gamma, MultivariateNormal, Normal

from .._shared.steps import Params, Steps
from .conjugate import Statistics, prior_scale, update
from .e_step import Components, expect, frame_of
from .model import Covariance, Prior, as_matrices, check, remembered_prior, start_loc


class Expectations(NamedTuple):
    """What the E-step hands on.

    Attributes
    ----------
    counts, mean, scatter : Tensor
        `Statistics` of the rows, shared out by p(component | row).
    objective : Tensor, shape (...)
        log p(x), and the prior's log density if that counts, in nats; nan where a covariance is singular.
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
) -> Steps:
    """Expectation maximisation, Bishop (2006), section 9.2.2.

    The likelihood is unbounded: a component that shrinks onto a few rows, or onto a plane, gains without end.
    Such parameters are no optimum: a full covariance with d rows or fewer to its name, or any covariance with an
    eigenvalue below ``floor`` in units in which the whole data set has covariance one. The joint density with the
    prior is bounded, and has no such optimum.

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
        For ``map``; `default_prior` of the data where left out.

    Returns
    -------
    Steps
        Even restarts begin at k-means (k-means++ seeds), odd ones at random rows with the data's covariance.
        Parameters are ``weights``, ``loc`` and ``covariance``.
    """

    def the_prior(x: Tensor) -> Prior:
        return prior or remembered_prior(x, num_components, torch.float64)

    def init(restart: int, x: Tensor) -> Params:
        return start(restart, x, num_components, covariance)

    def e_step(params: Params, x: Tensor) -> Expectations:
        shared = expect(components_at(params, covariance), x, covariance)
        own = log_prior(params, the_prior(x), covariance) if map else 0
        return Expectations(*shared.statistics, shared.log_norm + own)

    def m_step(expectations: Expectations, x: Tensor) -> Params:
        shared = Statistics(*expectations[:3])
        if map:
            return _mode(shared, the_prior(x), covariance)
        counts, rows = shared.counts, len(x)
        if covariance == "tied":
            sigma = shared.scatter / rows
        elif covariance == "isotropic":
            sigma = shared.scatter / (x.shape[1] * counts)
        else:
            sigma = shared.scatter / (counts[..., None] if covariance == "diagonal" else counts[..., None, None])
        return {"weights": counts / rows, "loc": shared.mean, "covariance": sigma}

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return expectations.objective

    def degenerate(params: Params, expectations: Expectations, x: Tensor) -> str | None:
        counts, dim = expectations.counts, x.shape[1]
        if map:
            return None
        if covariance == "full" and not (counts > dim).all():
            return f"a component holds {float(counts.min()):.1f} rows, and a full covariance needs more than {dim}"
        root = torch.linalg.cholesky(frame_of(x, covariance).covariance)
        sigma = as_matrices(params["covariance"], params["loc"])
        if not torch.isfinite(sigma).all():
            return "a component holds no row"
        half = torch.linalg.solve_triangular(root, sigma, upper=False)
        relative = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.mT, upper=False)).min()
        if relative < floor:
            return f"a covariance has collapsed: relative eigenvalue {float(relative):.1e}, below the floor {floor:g}"
        return None

    return Steps(init, e_step, m_step, objective, degenerate, batched=True)


def components_at(params: Params, covariance: Covariance) -> Components:
    """Log joint densities at these weights, means and covariances; nan for a component with a singular covariance."""
    loc, sigma = params["loc"], params["covariance"]
    if covariance in ("full", "tied"):
        root, info = torch.linalg.cholesky_ex(sigma)
        if info.any():
            root = torch.where((info == 0)[..., None, None], root, torch.nan)
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    else:
        root = sigma.sqrt()
        log_det = root.log().sum(-1) if covariance == "diagonal" else loc.shape[-1] * root.log()
    constant = params["weights"].log() - log_det - 0.5 * loc.shape[-1] * math.log(2 * math.pi)
    return Components(constant, loc, root)


def start(restart: int, x: Tensor, num_components: int, covariance: Covariance) -> Params:
    """Parameters to begin with, float64: k-means' centres, or on odd restarts rows at random; one wide covariance."""
    check(num_components, covariance, len(x))
    loc = start_loc(x, num_components) if restart % 2 == 0 else x[torch.randperm(len(x))[:num_components]]
    copies = 1 if covariance == "tied" else num_components
    scale = prior_scale(remembered_prior(x, num_components, torch.float64), covariance)
    weights = scale.new_full((num_components,), 1 / num_components)
    return {"weights": weights, "loc": loc.double(), "covariance": scale.expand(copies, *scale.shape)}


def log_prior(params: Params, prior: Prior, covariance: Covariance) -> Tensor:
    """Log density, shape (...), of the sites of `model` under its prior, at these weights, means and covariances."""
    loc, sigma, dim = params["loc"], params["covariance"], len(prior.mean)
    concentration = loc.new_full((loc.shape[-2],), prior.concentration)
    weights = Dirichlet(concentration, validate_args=False).log_prob(params["weights"])
    if covariance in ("full", "tied"):
        scale_tril, info = torch.linalg.cholesky_ex(sigma)
        scale_tril = torch.where((info == 0)[..., None, None], scale_tril, torch.nan)
        root = torch.linalg.cholesky(prior.scale)
        factor = torch.linalg.solve_triangular(scale_tril, root.expand_as(scale_tril), upper=False).mT  # A
        df = prior.df - dim + 1 + torch.arange(dim, dtype=loc.dtype, device=loc.device)
        row, column = torch.triu_indices(dim, dim, 1)
        square = factor.diagonal(dim1=-2, dim2=-1).square()
        spread = Chi2(df, validate_args=False).log_prob(square).sum((-1, -2))
        normal = Normal(loc.new_zeros(()), 1.0, validate_args=False)
        spread = spread + normal.log_prob(factor[..., row, column]).sum((-1, -2))
        scale_tril = scale_tril / prior.mean_strength**0.5
        centre = MultivariateNormal(prior.mean, scale_tril=scale_tril, validate_args=False)
        return weights + spread + centre.log_prob(loc).sum(-1)
    gamma = Gamma(prior.df / 2, prior_scale(prior, covariance) / 2, validate_args=False)
    spread = gamma.log_prob(1 / sigma).flatten(weights.dim()).sum(-1)
    sd = (sigma / prior.mean_strength).sqrt()
    sd = sd if covariance == "diagonal" else sd.unsqueeze(-1)
    return weights + spread + Normal(prior.mean, sd, validate_args=False).log_prob(loc).sum((-1, -2))


def _mode(shared, prior: Prior, covariance: Covariance) -> Params:
    """Mode of the sites' joint density given the rows' shares.

    For full and tied covariances the columns of the Bartlett factor separate: with R the Cholesky factor of the
    updated Λ, Σ = T Tᵀ where T is R with its column j divided by the root of that column's count.
    """
    counts, (components, dim) = shared.counts, shared.mean.shape[-2:]
    weights = counts + prior.concentration - 1
    posterior = update(shared, prior, covariance)
    if covariance in ("full", "tied"):
        means = 1 if covariance == "full" else components  # how many normals of the means share a covariance
        column = posterior.df[..., None] - dim - 1 + means + torch.arange(dim, dtype=counts.dtype, device=counts.device)
        root = torch.linalg.cholesky(posterior.scale) / column.sqrt().unsqueeze(-2)
        sigma = root @ root.mT
    elif covariance == "diagonal":
        sigma = posterior.scale / (posterior.df - 1).unsqueeze(-1)
    else:
        sigma = posterior.scale / (posterior.df + dim - 2)
    return {"weights": weights / weights.sum(-1, keepdim=True), "loc": posterior.mean, "covariance": sigma}
