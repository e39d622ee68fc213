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
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.row_weights import checked_weights
from .._shared.steps import Params, Steps
from .data import check
from .exact import noise_diagonal
from .start import starting_sites

FLOOR = 1e-4  # of a noise variance, as a share of its column's variance


class Rows(NamedTuple):
    """Rows with NaN where a value is missing, and what they alone determine."""

    x: Tensor  # (n, d)
    row_weights: Tensor  # (n,): how many times each row counts
    seen: Tensor  # (n, d): 1 for an entry that is there, 0 for a missing one
    centre: Tensor  # (d,): the mean of each column's entries, about which they are taken: it saves digits
    variance: Tensor  # (d,): of each column's entries

    def floor(self, shared_noise: bool) -> Tensor:
        """Least noise variance, () or (d,)."""
        return FLOOR * (self.variance.mean() if shared_noise else self.variance)


class Expectations(NamedTuple):
    """Factors given what is observed of the rows."""

    mean: Tensor  # (n, q): E[z]
    covariance: Tensor  # (n, q, q): of z
    log_likelihood: Tensor  # of the observed entries, in nats


def em_steps_with_gaps(name: str, latent_dim: int, *, shared_noise: bool) -> Steps:
    """Return steps of EM on the likelihood of the entries that are observed, for data ``(x,)`` or ``(x, row_weights)``.

    Given the factors the entries are independent, so the M-step is one regression per column, on the rows that have it.
    The first restart begins at the principal axes of rows with means in their gaps, the others at random loadings. A
    noise variance is held above 1e-4 of its column's variance, so that no optimum is degenerate.
    """

    def init(restart: int, *data: Tensor) -> Params:
        x = data[0]
        check(name, latent_dim, x.shape[1])
        filled = torch.where(x.isnan(), x.nanmean(0), x)
        start = starting_sites(filled, latent_dim, shared_noise=shared_noise)
        if restart:
            start["W"] = (filled.var(0, correction=0) / latent_dim).sqrt()[:, None] * torch.randn_like(start["W"])
        return start

    def e_step(params: Params, *data: Tensor) -> Expectations:
        rows = prepare_gaps(name, *data)
        mean, covariance, density = given_seen(params, rows.x)
        below = (params["noise_variance"] < 0.999 * rows.floor(shared_noise)).any()  # only a jump gets there
        return Expectations(mean, covariance, torch.where(below, torch.nan, rows.row_weights @ density))

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return expectations.log_likelihood

    def m_step(expectations: Expectations, *data: Tensor) -> Params:
        return _m_step(expectations, prepare_gaps(name, *data), shared_noise=shared_noise)

    return Steps(init, e_step, m_step, objective, prepare=partial(prepare_gaps, name), accelerate=True)


def prepare_gaps(name: str, x: Tensor, row_weights: Tensor | None = None, *rest: Tensor) -> Rows:
    """Return data with what they alone determine; unchanged if it is there already.

    ValueError for a column without any value, or weights that are none.
    """
    if rest and row_weights is not None:
        return Rows(x, row_weights, *rest)
    row_weights = checked_weights(name, row_weights, len(x))
    weights = x.new_ones(len(x)) if row_weights is None else row_weights.to(x)
    seen, values = (~x.isnan()).to(x.dtype), torch.nan_to_num(x)
    counts = weights @ seen
    if (column := (counts == 0).nonzero()).numel():
        raise ValueError(f"{name}: column {int(column[0])} has no value")
    centre = weights @ values / counts
    gap = (values - centre) * seen
    return Rows(x, weights, seen, centre, weights @ gap.square() / counts)


def complete(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return the rows with each NaN replaced by its mean given the row's other entries.

    Parameters
    ----------
    sites : dict
        ``W`` (d, q), ``loc`` (d) and ``noise_variance``, () or (d): one point, no draws.
    x : Tensor, shape (n, d)
    """
    return torch.where(x.isnan(), sites["loc"] + given_seen(sites, x)[0] @ sites["W"].mT, x)


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
    rows, last = prepare_gaps("impute", x), -math.inf
    for _ in range(num_steps):
        mean, covariance, density = given_seen(sites, x)
        if float(density.sum()) - last < tol * len(x):
            break
        last = float(density.sum())
        sites = _m_step(Expectations(mean, covariance, density.sum()), rows, shared_noise=shared_noise)
    return complete(sites, x)


def given_seen(sites: Params, x: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor, Tensor]:
    """Return E[z] (n, q) and Cov[z] (n, q, q) given the observed entries, and their log density (n,) in nats.

    Arguments as for `complete`.
    """
    W, loc, noise = sites["W"], sites["loc"], noise_diagonal(sites)
    seen = (~x.isnan()).to(x.dtype)
    weighted = W / noise[:, None]
    outer = (W.unsqueeze(2) * weighted.unsqueeze(1)).flatten(1)  # (d, q q)
    precision = torch.eye(W.shape[1], dtype=x.dtype) + (seen @ outer).unflatten(1, (W.shape[1], W.shape[1]))
    root, info = torch.linalg.cholesky_ex(precision)
    root = torch.where((info == 0)[:, None, None], root, torch.nan)  # where a jump left the support
    centred = torch.nan_to_num(x - loc)
    projected = (centred @ weighted).unsqueeze(-1)
    mean = torch.cholesky_solve(projected, root).squeeze(-1)
    explained = torch.linalg.solve_triangular(root, projected, upper=False).square().sum((1, 2))
    log_det = seen @ noise.log() + 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    distance = centred.square() @ (1 / noise) - explained
    return mean, torch.cholesky_inverse(root), -0.5 * (distance + log_det + seen.sum(1) * math.log(2 * math.pi))


def _m_step(expectations: Expectations, rows: Rows, *, shared_noise: bool) -> Params:
    mean, covariance, _ = expectations
    seen, values = rows.row_weights[:, None] * rows.seen, torch.nan_to_num(rows.x - rows.centre)
    features = torch.cat([mean, mean.new_ones(len(mean), 1)], 1)
    squares = features.unsqueeze(2) * features.unsqueeze(1)
    squares[:, :-1, :-1] += covariance
    gram = torch.einsum("nd,nij->dij", seen, squares)
    coefficients = torch.linalg.solve(gram, ((seen * values).mT @ features).unsqueeze(-1)).squeeze(-1)  # (d, q + 1)
    W, loc = coefficients[:, :-1], coefficients[:, -1]
    residual = (seen * (values - features @ coefficients.mT).square()).sum(0)
    residual = residual + torch.einsum("nd,nij,di,dj->d", seen, covariance, W, W)
    noise = residual.sum() / seen.sum() if shared_noise else residual / seen.sum(0)
    return {"W": W, "loc": rows.centre + loc, "noise_variance": noise.maximum(rows.floor(shared_noise))}
