"""Rows with missing values under a Gaussian mixture: what they are expected to be, and EM that allows for them.

Given a component, the missing entries m of a row have mean μ_m + Σ_mo Σ_oo⁻¹ (x_o - μ_o) and covariance
Σ_mm - Σ_mo Σ_oo⁻¹ Σ_om, o the observed ones. Values are taken to be missing at random.

References
----------
1. Ghahramani and Jordan (1994), Supervised learning from incomplete data via an EM approach, NIPS 6.
2. Little and Rubin (2019), Statistical Analysis with Missing Data, chapter 11.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.steps import Params
from .conjugate import Statistics
from .covariance import Covariance, Form, align, as_matrices, cholesky, form_of

FLOOR = 1e-6  # of a variance, as a share of its column's
_AT_ONCE = 2**24  # numbers: rows by components by columns, of as many restarts as fit


class Gaps(NamedTuple):
    """Rows with NaN where a value is missing, by which entries they have.

    Attributes
    ----------
    x : Tensor, shape (n, d)
    patterns : list of (Tensor, Tensor)
        Indices of the rows that have the same entries, and which entries those are, (d,) of bool.
    """

    x: Tensor
    patterns: list[tuple[Tensor, Tensor]]


class Expected(NamedTuple):
    """Rows given what is observed of them.

    Attributes
    ----------
    log_joint : Tensor, shape (..., n, k)
        log p(observed entries, component), in nats.
    mean : Tensor, shape (..., k, d, n)
        Of the rows given the component; an observed entry is itself.
    covariance : Tensor, shape (..., k, d, d)
        Σ over rows of weight × responsibility × covariance.
    """

    log_joint: Tensor
    mean: Tensor
    covariance: Tensor


def gaps_of(x: Tensor) -> Gaps:
    """Return rows in float64, sorted by the entries that they have."""
    patterns, place = torch.unique(~x.isnan(), dim=0, return_inverse=True)
    return Gaps(x.double(), [((place == n).nonzero().squeeze(1), seen) for n, seen in enumerate(patterns)])


def complete(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return the rows with each NaN replaced by its mean given the row's other entries.

    Parameters
    ----------
    sites : dict
        ``weights``, ``loc`` and ``covariance``, shaped as the sites of `model`: one point, no draws.
    x : Tensor, shape (n, d)
    """
    found = _expected(sites, gaps_of(x))
    filled = torch.einsum("nk,kdn->nd", found.log_joint.softmax(-1), found.mean)
    return torch.where(x.isnan(), filled, x)


def observed_log_joint(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """Return log p(observed entries of x[n], component k), in nats; arguments as for `complete`."""
    return _expected(sites, gaps_of(x)).log_joint


def expect_with_gaps(sites: Params, gaps: Gaps, row_weights: Tensor | None, form: Form) -> tuple[Statistics, Tensor]:
    """Return expected statistics given what is observed, and the log likelihood of that in nats, (...).

    ``sites`` as for `complete`, with any leading dimensions.
    """
    lead = sites["weights"].shape[:-1]
    flat = {name: value.reshape(-1, *value.shape[len(lead) :]) for name, value in sites.items()}
    size = max(1, _AT_ONCE // (len(gaps.x) * sites["loc"].shape[-2:].numel()))
    found = []
    for at in range(0, lead.numel(), size):
        expected = _expected({name: value[at : at + size] for name, value in flat.items()}, gaps, row_weights)
        r, log_density = expected.log_joint.softmax(-1), expected.log_joint.logsumexp(-1)
        if row_weights is not None:
            r, log_density = row_weights.unsqueeze(-1) * r, row_weights * log_density
        counts = r.sum(-2)
        mean = torch.einsum("snk,skdn->skd", r, expected.mean) / counts.unsqueeze(-1)
        scatter = form.scatter(r.mT, expected.mean - mean.nan_to_num().unsqueeze(-1)) + form.sums(expected.covariance)
        found.append((counts, mean, scatter, log_density.sum(-1)))
    counts, mean, scatter, total = (torch.cat(parts).unflatten(0, lead or (1,)) for parts in zip(*found, strict=True))
    if not lead:
        counts, mean, scatter, total = counts[0], mean[0], scatter[0], total[0]
    return Statistics(counts, mean, scatter), total


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
    form, point, last, gaps = form_of(covariance), sites, -math.inf, gaps_of(x)
    floor = FLOOR * torch.nan_to_num(x - x.nanmean(0)).square().mean(0)
    for _ in range(num_steps):
        (counts, loc, scatter), total = expect_with_gaps(point, gaps, None, form)
        if float(total) - last < tol * len(x):
            break
        last, counts = float(total), counts.clamp(min=1e-12)
        sigma = as_matrices(scatter / align(form.degrees(counts, len(floor)), scatter), loc) + torch.diag(floor)
        point = {"weights": counts / counts.sum(), "loc": loc, "covariance": sigma}
    return complete(point, x)


def _expected(sites: Params, gaps: Gaps, row_weights: Tensor | None = None) -> Expected:
    x, loc = gaps.x, sites["loc"]
    sigma = as_matrices(sites["covariance"], loc)
    sigma = sigma.expand(*loc.shape, loc.shape[-1])
    log_joint = sites["weights"].log().unsqueeze(-2).repeat(*[1] * (loc.dim() - 2), len(x), 1)
    mean = x.mT.expand(*loc.shape, len(x)).clone()
    parts = []
    for rows, seen in gaps.patterns:
        here, gone = seen.nonzero().squeeze(1), (~seen).nonzero().squeeze(1)
        centred = x[rows][:, here].mT - loc[..., here, None]  # (..., k, o, rows)
        observed = sigma[..., here, :]
        root = cholesky(observed[..., here])
        whitened = torch.linalg.solve_triangular(root, centred, upper=False)
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        density = -0.5 * (whitened.square().sum(-2) + len(here) * math.log(2 * math.pi)) - log_det
        log_joint[..., rows, :] += density.mT
        if len(gone):
            across = torch.linalg.solve_triangular(root, observed[..., gone], upper=False)  # (..., k, o, m)
            mean[..., gone[:, None], rows] = loc[..., gone, None] + across.mT @ whitened
            parts.append((rows, gone, sigma[..., gone, :][..., gone] - across.mT @ across))
    r, total = log_joint.softmax(-1), torch.zeros_like(sigma)
    r = r if row_weights is None else row_weights.unsqueeze(-1) * r
    for rows, gone, left in parts:
        total[..., gone[:, None], gone] += r[..., rows, :].sum(-2)[..., None, None] * left
    return Expected(log_joint, mean, total)
