"""Exact mathematics of a Gaussian mixture: joint density, responsibilities and the steps of EM."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..steps import Params, Steps
from .generative import Covariance, as_matrices, check, default_prior, start_loc


class Expectations(NamedTuple):
    """What the E-step hands on.

    Attributes
    ----------
    responsibilities : Tensor, shape (n, k)
        p(component | row).
    log_likelihood : Tensor, scalar
        log p(x), in nats; nan where a covariance is singular.
    """

    responsibilities: Tensor
    log_likelihood: Tensor


def log_joint(params: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """Logarithm of p(x[n], component k) for every row and component; nan for a component with a singular covariance.

    Parameters
    ----------
    params : dict
        ``weights``, ``loc`` and ``covariance``, shaped as the sites of `model`.
    x : Tensor, shape (n, d)
    """
    loc, dim = params["loc"], x.shape[1]
    scale_tril, info = torch.linalg.cholesky_ex(as_matrices(params["covariance"], loc))
    scale_tril = torch.where((info == 0)[:, None, None], scale_tril, torch.nan)
    centred = (x - loc.unsqueeze(1)).mT  # (k, d, n)
    whitened = torch.linalg.solve_triangular(scale_tril, centred, upper=False)
    log_det = scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_density = -0.5 * (whitened.square().sum(1) + dim * math.log(2 * math.pi)) - log_det[:, None]
    return log_density.mT + params["weights"].log()


def responsibilities(params: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """p(component | row), Bishop (2006), equation 9.13; arguments as for `log_joint`."""
    return log_joint(params, x).softmax(-1)


def em_steps(num_components: int = 3, covariance: Covariance = "full", floor: float = 1e-6) -> Steps:
    """Expectation maximisation of the likelihood, Bishop (2006), section 9.2.2.

    The likelihood is unbounded: a component that shrinks onto a few rows, or onto a plane, gains without end.
    Such parameters are no optimum: a full covariance with d rows or fewer to its name, or any covariance with an
    eigenvalue below ``floor`` in units in which the whole data set has covariance one.

    Parameters
    ----------
    num_components : int
        K.
    covariance : {"full", "tied", "diagonal", "isotropic"}
    floor : float
        Smallest eigenvalue of a component's covariance, relative to that of the data.

    Returns
    -------
    Steps
        Even restarts begin at k-means (k-means++ seeds), odd ones at random rows with the data's covariance.
        Parameters are ``weights``, ``loc`` and ``covariance``.
    """

    def init(restart: int, x: Tensor) -> Params:
        check(num_components, covariance, len(x))
        prior = default_prior(x, num_components)
        loc = start_loc(x, num_components) if restart % 2 == 0 else x[torch.randperm(len(x))[:num_components]]
        scale = prior.scale
        start = {
            "full": lambda: scale.expand(num_components, -1, -1),
            "tied": lambda: scale[None],
            "diagonal": lambda: scale.diagonal().expand(num_components, -1),
            "isotropic": lambda: scale.diagonal().mean().expand(num_components),
        }
        weights = x.new_full((num_components,), 1 / num_components)
        return {"weights": weights, "loc": loc, "covariance": start[covariance]()}

    def e_step(params: Params, x: Tensor) -> Expectations:
        joint = log_joint(params, x)
        evidence = joint.logsumexp(-1, keepdim=True)
        return Expectations((joint - evidence).exp(), evidence.sum())

    def m_step(expectations: Expectations, x: Tensor) -> Params:
        r = expectations.responsibilities
        counts = r.sum(0)
        loc = (r.mT @ x) / counts[:, None]
        centred = x - loc.unsqueeze(1)  # (k, n, d)
        if covariance in ("full", "tied"):
            scatter = (r.mT.unsqueeze(-1) * centred).mT @ centred
            sigma = scatter / counts[:, None, None] if covariance == "full" else scatter.sum(0, keepdim=True) / len(x)
        else:
            sigma = (r.mT.unsqueeze(-1) * centred.square()).sum(1) / counts[:, None]
            sigma = sigma if covariance == "diagonal" else sigma.mean(-1)
        return {"weights": counts / len(x), "loc": loc, "covariance": sigma}

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return expectations.log_likelihood

    def flaw(params: Params, expectations: Expectations, x: Tensor) -> str | None:
        counts, dim = expectations.responsibilities.sum(0), x.shape[1]
        if covariance == "full" and not (counts > dim).all():
            return f"a component holds {float(counts.min()):.1f} rows, and a full covariance needs more than {dim}"
        root = torch.linalg.cholesky(torch.cov(x.mT, correction=0).reshape(dim, dim))
        sigma = as_matrices(params["covariance"], params["loc"])
        if not torch.isfinite(sigma).all():
            return "a component holds no row"
        half = torch.linalg.solve_triangular(root, sigma, upper=False)
        relative = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.mT, upper=False)).min()
        if relative < floor:
            return f"a covariance has collapsed: relative eigenvalue {float(relative):.1e}, below the floor {floor:g}"
        return None

    return Steps(init, e_step, m_step, objective, flaw)
