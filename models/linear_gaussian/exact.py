"""Exact mathematics of the linear Gaussian models: density, factors given data, prediction, rotation-free quantities.

Woodbury's identity keeps every inverse and determinant at q × q: (Ψ + W Wᵀ)⁻¹ = Ψ⁻¹ - Ψ⁻¹ W (I + Wᵀ Ψ⁻¹ W)⁻¹ Wᵀ Ψ⁻¹
and |Ψ + W Wᵀ| = |Ψ| |I + Wᵀ Ψ⁻¹ W|.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.steps import Params

MOST_COLUMNS = 40  # of which all covariances are quantities


class FactorPosterior(NamedTuple):
    """Normal distribution of the factors given the data.

    Attributes
    ----------
    mean : Tensor, shape (..., n, q)
    covariance : Tensor, shape (..., q, q)
        The same for every row.
    """

    mean: Tensor
    covariance: Tensor


def posterior(sites: Params, x: Float[Tensor, "n d"]) -> FactorPosterior:
    """Return p(z[n] | x[n], sites), exactly.

    Its covariance is C = (I + Wᵀ Ψ⁻¹ W)⁻¹. For Ψ = σ² I that is σ² M⁻¹ with M = Wᵀ W + σ² I, q × q (Tipping and
    Bishop 1999, section 3.1); for any Ψ see Bishop (2006), equations 12.66 and 12.68.

    Parameters
    ----------
    sites : dict
        ``W``, ``loc`` and ``noise_variance``, with any leading dimensions.
    x : Tensor, shape (n, d)
    """
    projected, root = _project(sites, x)
    return FactorPosterior(torch.cholesky_solve(projected, root).mT, torch.cholesky_inverse(root))


def transform(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "... n q"]:
    """Return E[z[n] | x[n], sites] per draw; each draw has its own axes. Arguments as for `posterior`."""
    return posterior(sites, x).mean


def log_likelihood(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "... n"]:
    """Return log p(x[n] | sites), the factors integrated out, in nats. Arguments as for `posterior`."""
    projected, root = _project(sites, x)
    centred, loc, noise = _centred(sites, x)
    distance = centred.square() @ (1 / noise).unsqueeze(-1) - 2 * centred @ (loc / noise).unsqueeze(-1)
    distance = distance.squeeze(-1) + (loc.square() / noise).sum(-1, keepdim=True)
    explained = torch.linalg.solve_triangular(root, projected, upper=False).square().sum(-2)
    log_det = noise.log().sum(-1) + 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (distance - explained + log_det.unsqueeze(-1) + x.shape[1] * math.log(2 * math.pi))


def posterior_predictive(sites: Params, num_rows: int, *, seed: int = 0) -> Float[Tensor, "... n d"]:
    """Simulate one data set of ``num_rows`` rows per draw; ``sites`` as for `posterior`."""
    W, noise = sites["W"], noise_diagonal(sites)
    lead, (columns, factors) = W.shape[:-2], W.shape[-2:]
    generator = torch.Generator(W.device).manual_seed(seed)
    z, e = (
        torch.randn(*lead, num_rows, size, generator=generator, dtype=W.dtype, device=W.device)
        for size in (factors, columns)
    )
    return sites["loc"].unsqueeze(-2) + z @ W.mT + noise.sqrt().unsqueeze(-2) * e


def identify(draws: Params, anchor: Params | None = None) -> Params:
    """Return quantities that a rotation of the factors, W → W R, does not change; there is no order to match.

    These are ``loc`` (..., d), ``covariance`` (..., d, d), that of a row, W Wᵀ + Ψ, and ``noise_variance``. ``draws``
    as ``sites`` for `posterior`; ``anchor`` is not used.
    """
    W = draws["W"]
    covariance = W @ W.mT + torch.diag_embed(noise_diagonal(draws))
    return {"loc": draws["loc"], "covariance": covariance, "noise_variance": draws["noise_variance"]}


def overview(draws: Params, anchor: Params | None = None) -> Params:
    """Return what `identify` does for at most 40 columns; for more, quantities that d² entries would drown.

    These are ``loc`` (..., d), ``variance`` (..., d), the diagonal of W Wᵀ + Ψ, ``noise_variance``, and ``strength``
    (..., q), the eigenvalues of Wᵀ Ψ⁻¹ W, largest first: how many times the noise each factor is. A rotation of the
    factors changes none of them. Memory is that of the draws.
    """
    W, noise = draws["W"], noise_diagonal(draws)
    if W.shape[-2] <= MOST_COLUMNS:
        return identify(draws, anchor)
    strength = torch.linalg.eigvalsh(W.mT @ (W / noise.unsqueeze(-1))).flip(-1)
    variance = W.square().sum(-1) + noise
    return {
        "loc": draws["loc"],
        "variance": variance,
        "noise_variance": draws["noise_variance"],
        "strength": strength,
    }


def noise_diagonal(sites: Params) -> Float[Tensor, "... d"]:
    """Return the diagonal of Ψ, from one variance or a variance per column."""
    loc, noise = sites["loc"], sites["noise_variance"]
    return noise if noise.dim() == loc.dim() else noise.unsqueeze(-1).expand_as(loc)


def _centred(sites: Params, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Data and ``loc``, both minus the data's mean, which saves digits; and the diagonal of Ψ."""
    centre = x.mean(0)
    return x - centre, sites["loc"] - centre, noise_diagonal(sites)


def _project(sites: Params, x: Tensor) -> tuple[Tensor, Tensor]:
    """Wᵀ Ψ⁻¹ (x - loc), shape (..., q, n), and the Cholesky factor of I + Wᵀ Ψ⁻¹ W, shape (..., q, q)."""
    centred, loc, noise = _centred(sites, x)
    weighted = sites["W"] / noise.unsqueeze(-1)
    eye = torch.eye(weighted.shape[-1], dtype=x.dtype, device=x.device)
    root = torch.linalg.cholesky(eye + sites["W"].mT @ weighted)
    return (centred @ weighted - loc.unsqueeze(-2) @ weighted).mT, root
