"""Rows with missing values under a linear Gaussian model: what they are expected to be, and EM that allows for them.

Given the observed entries of a row its factors are normal, with precision I + Σ_i w_i w_iᵀ / ψ_i over observed i; a
missing entry has the mean loc_i + w_iᵀ E[z]. Values are taken to be missing at random.

References
----------
1. Rubin and Thayer (1982), EM algorithms for ML factor analysis, Psychometrika 47.
2. Ilin and Raiko (2010), Practical approaches to principal component analysis in the presence of missing values, JMLR
   11, section 3.2.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.steps import Params

FLOOR = 1e-4  # of a noise variance, as a share of its column's variance


def complete(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return the rows with each NaN replaced by its mean given the row's other entries.

    Parameters
    ----------
    sites : dict
        ``W`` (d, q), ``loc`` (d) and ``noise_variance``, () or (d): one point, no draws.
    x : Tensor, shape (n, d)
    """
    mean, _, _ = _factors(sites["W"], sites["loc"], sites["noise_variance"].expand(x.shape[1]), x)
    return torch.where(x.isnan(), sites["loc"] + mean @ sites["W"].mT, x)


def impute(
    sites: Params, x: Float[Tensor, "n d"], *, shared_noise: bool, num_steps: int = 2000, tol: float = 1e-6
) -> Float[Tensor, "n d"]:
    """Return the rows with each NaN replaced by its mean at the maximum of the likelihood of what is observed.

    Parameters
    ----------
    sites : dict
        Where EM begins; as for `complete`.
    x : Tensor, shape (n, d)
    shared_noise : bool
        Whether one noise variance serves all columns.
    num_steps : int
        Iterations at most.
    tol : float
        Gain per row, in nats, below which EM stops.
    """
    W, loc, noise = sites["W"], sites["loc"], sites["noise_variance"].expand(x.shape[1])
    seen = (~x.isnan()).to(x.dtype)
    values, counts, last = torch.nan_to_num(x), seen.sum(0), -math.inf
    variance = ((values - values.sum(0) / counts) * seen).square().sum(0) / counts
    for _ in range(num_steps):
        mean, covariance, log_likelihood = _factors(W, loc, noise, x)
        if float(log_likelihood) - last < tol * len(x):
            break
        last = float(log_likelihood)
        features = torch.cat([mean, mean.new_ones(len(mean), 1)], 1)
        squares = features.unsqueeze(2) * features.unsqueeze(1)
        squares[:, :-1, :-1] += covariance
        gram = torch.einsum("nd,nij->dij", seen, squares)
        coefficients = torch.linalg.solve(gram, (values.mT @ features).unsqueeze(-1)).squeeze(-1)  # (d, q + 1)
        W, loc = coefficients[:, :-1], coefficients[:, -1]
        residual = ((values - features @ coefficients.mT) * seen).square().sum(0)
        residual = residual + torch.einsum("nd,nij,di,dj->d", seen, covariance, W, W)
        noise = (residual.sum() / counts.sum()).expand_as(loc) if shared_noise else residual / counts
        noise = noise.maximum(FLOOR * variance.clamp(min=1e-300))
    return complete({"W": W, "loc": loc, "noise_variance": noise}, x)


def _factors(W: Tensor, loc: Tensor, noise: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return E[z] (n, q) and Cov[z] (n, q, q) given the observed entries, and their log likelihood in nats."""
    seen = (~x.isnan()).to(x.dtype)
    weighted = W / noise[:, None]
    outer = (W.unsqueeze(2) * weighted.unsqueeze(1)).flatten(1)  # (d, q q)
    precision = torch.eye(W.shape[1], dtype=x.dtype) + (seen @ outer).unflatten(1, (W.shape[1], W.shape[1]))
    root = torch.linalg.cholesky(precision)
    centred = torch.nan_to_num(x - loc)
    projected = (centred @ weighted).unsqueeze(-1)
    mean = torch.cholesky_solve(projected, root).squeeze(-1)
    explained = torch.linalg.solve_triangular(root, projected, upper=False).square().sum()
    log_det = (seen @ noise.log()).sum() + 2 * root.diagonal(dim1=-2, dim2=-1).log().sum()
    distance = (centred.square() @ (1 / noise)).sum() - explained
    log_likelihood = -0.5 * (distance + log_det + seen.sum() * math.log(2 * math.pi))
    return mean, torch.cholesky_inverse(root), log_likelihood
