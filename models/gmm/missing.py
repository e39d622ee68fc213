"""Rows with missing values under a Gaussian mixture: what they are expected to be, and EM that allows for them.

Given a component, the missing entries m of a row have mean μ_m + Σ_mo Σ_oo⁻¹ (x_o - μ_o) and covariance
Σ_mm - Σ_mo Σ_oo⁻¹ Σ_om, o the observed ones. Values are taken to be missing at random.

References
----------
1. Ghahramani and Jordan (1994), Supervised learning from incomplete data via an EM approach, NIPS 6.
2. Little and Rubin (2019), Statistical Analysis with Missing Data, chapter 11.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.steps import Params
from .covariance import Covariance, as_matrices, form_of

FLOOR = 1e-6  # of a variance, as a share of its column's


class Expected(NamedTuple):
    """Rows given what is observed of them.

    Attributes
    ----------
    log_joint : Tensor, shape (n, k)
        log p(observed entries, component), in nats.
    mean : Tensor, shape (n, k, d)
        Of the rows given the component; an observed entry is itself.
    covariance : list of Tensor, shape (k, d, d)
        Σ over rows of responsibility × covariance.
    """

    log_joint: Tensor
    mean: Tensor
    covariance: Tensor


def complete(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return the rows with each NaN replaced by its mean given the row's other entries.

    Parameters
    ----------
    sites : dict
        ``weights``, ``loc`` and ``covariance``, shaped as the sites of `model`: one point, no draws.
    x : Tensor, shape (n, d)
    """
    found = _expected(_as_point(sites), x)
    filled = (found.log_joint.softmax(-1).unsqueeze(-1) * found.mean).sum(1)
    return torch.where(x.isnan(), filled, x)


def impute(
    sites: Params, x: Float[Tensor, "n d"], covariance: Covariance = "full", num_steps: int = 500, tol: float = 1e-7
) -> Float[Tensor, "n d"]:
    """Return the rows with each NaN replaced by its mean at the maximum of the likelihood of what is observed.

    Parameters
    ----------
    sites : dict
        Where EM begins; as for `complete`.
    x : Tensor, shape (n, d)
    covariance : str
        As for `model`.
    num_steps : int
        Iterations at most.
    tol : float
        Gain per row, in nats, below which EM stops.
    """
    form, point, last = form_of(covariance), _as_point(sites), -math.inf
    floor = FLOOR * torch.nan_to_num(x - x.nanmean(0)).square().mean(0)
    for _ in range(num_steps):
        found = _expected(point, x)
        total = float(found.log_joint.logsumexp(-1).sum())
        if total - last < tol * len(x):
            break
        last = total
        r = found.log_joint.softmax(-1)
        counts = r.sum(0).clamp(min=1e-12)
        loc = torch.einsum("nk,nkd->kd", r, found.mean) / counts[:, None]
        gap = found.mean - loc
        scatter = torch.einsum("nk,nkd,nke->kde", r, gap, gap) + found.covariance
        if form.tied:
            scatter, counts_of = scatter.sum(0).expand_as(scatter), counts.new_full((len(counts),), len(x))
        else:
            counts_of = counts
        sigma = [form.project(part / n) for part, n in zip(scatter, counts_of, strict=True)]
        point = {"weights": counts / counts.sum(), "loc": loc, "covariance": as_matrices(torch.stack(sigma), loc)}
        point["covariance"] = point["covariance"] + torch.diag(floor)
    return complete(point, x)


def _as_point(sites: Params) -> Params:
    sigma = as_matrices(sites["covariance"], sites["loc"])
    return {**sites, "covariance": sigma.expand(len(sites["loc"]), *sigma.shape[-2:])}


def _expected(sites: Params, x: Tensor) -> Expected:
    loc, sigma = sites["loc"], sites["covariance"]
    log_joint = sites["weights"].log().expand(len(x), -1).clone()
    mean = x.unsqueeze(1).repeat(1, len(loc), 1)
    parts = []
    for rows, seen in _patterns(x):
        gone = ~seen
        centred = x[rows][:, seen] - loc[:, None, seen]  # (k, rows, o)
        root = torch.linalg.cholesky(sigma[:, seen][:, :, seen])
        whitened = torch.linalg.solve_triangular(root, centred.mT, upper=False)  # (k, o, rows)
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        log_joint[rows] += (-0.5 * (whitened.square().sum(1) + int(seen.sum()) * math.log(2 * math.pi)) - log_det).mT
        across = torch.linalg.solve_triangular(root, sigma[:, seen][:, :, gone], upper=False)  # (k, o, m)
        if gone.any():
            mean[rows[:, None], :, gone.nonzero().T] = (loc[:, gone, None] + across.mT @ whitened).permute(2, 1, 0)
            parts.append((rows, gone, sigma[:, gone][:, :, gone] - across.mT @ across))
    r, total = log_joint.softmax(-1), torch.zeros_like(sigma)
    for rows, gone, left in parts:
        at = gone.nonzero().squeeze(1)
        total[:, at[:, None], at] += r[rows].sum(0)[:, None, None] * left
    return Expected(log_joint, mean, total)


def _patterns(x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows that have the same entries, and which entries those are."""
    patterns, place = torch.unique(~x.isnan(), dim=0, return_inverse=True)
    for number, seen in enumerate(patterns):
        yield (place == number).nonzero().squeeze(1), seen
