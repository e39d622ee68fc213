"""The four shapes that the components' covariances Σ may have, and the operations that differ between them.

S is a root of Σ, Σ = S Sᵀ: a Cholesky factor, or standard deviations.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Covariance = Literal["full", "tied", "diagonal", "isotropic"]


class Form(NamedTuple):
    """Operations on Σ: full (…, k, d, d), tied (…, 1, d, d), diagonal (…, k, d), isotropic (…, k).

    Attributes
    ----------
    matrices : bool
        Whether Σ is a matrix rather than variances.
    tied : bool
        Whether all components share one.
    project : callable
        Matrix (d, d) -> the closest Σ of one component.
    root, inverse : callable
        Σ -> S, nan if singular, and S -> S⁻¹; shaped as Σ, but isotropic (…, k, 1).
    log_det : callable
        (S, d) -> log |S| per component, (…, k) or (…, 1).
    times : callable
        (S or S⁻¹, columns (…, d, n)) -> their product.
    compose : callable
        (S⁻¹, another S) -> their product.
    transform : callable
        (scatter, S) -> S scatter Sᵀ; a scatter is shaped as Σ.
    traces : callable
        (S⁻¹, scatter) -> tr(Σ⁻¹ scatter) per component, (…, k) or (…, 1).
    variances : callable
        Scatter -> its diagonal, in any shape.
    scatter : callable
        (weights r (…, k, n), columns (…, k, d, n)) -> Σ_n r gap gapᵀ, a scatter.
    degrees : callable
        (N_k (…, k), d) -> degrees of freedom that N_k rows add to each Σ, (…, k) or (…, 1).
    blocks, from_blocks : callable
        Σ -> the independent matrices (…, p, p) that it consists of (p = 1 for variances), and back.
    per_component : callable
        (value per block, d) -> its sum over the d columns of each component, (…, k) or (…, 1).
    num_products : callable
        d -> how many products of columns have a coefficient per component.
    products : callable
        (columns z (d, n), out): write these products, (num_products, n).
    natural : callable
        (S⁻¹, loc (…, k, d)) -> coefficients of the columns and of their products in -½ ‖S⁻¹ (z - loc)‖².
    second_moments : callable
        (sums of products, d) -> scatter about the origin.
    """

    matrices: bool
    tied: bool
    project: Callable[[Tensor], Tensor]
    root: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    log_det: Callable[[Tensor, int], Tensor]
    times: Callable[[Tensor, Tensor], Tensor]
    compose: Callable[[Tensor, Tensor], Tensor]
    transform: Callable[[Tensor, Tensor], Tensor]
    traces: Callable[[Tensor, Tensor], Tensor]
    variances: Callable[[Tensor], Tensor]
    scatter: Callable[[Tensor, Tensor], Tensor]
    degrees: Callable[[Tensor, int], Tensor]
    blocks: Callable[[Tensor], Tensor]
    from_blocks: Callable[[Tensor], Tensor]
    per_component: Callable[[Tensor, int], Tensor]
    num_products: Callable[[int], int]
    products: Callable[[Tensor, Tensor], object]
    natural: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    second_moments: Callable[[Tensor, int], Tensor]


def form_of(covariance: str) -> Form:
    """Return the operations for a name; ValueError if there is no such covariance."""
    if covariance not in get_args(Covariance):
        raise ValueError(f"gmm: covariance must be one of {', '.join(get_args(Covariance))}, got {covariance!r}")
    return _FORMS[covariance]


def as_matrices(sigma: Tensor, loc: Tensor) -> Tensor:
    """Return each Σ as a matrix, (…, k, d, d), or (…, 1, d, d) if tied, given the means (…, k, d).

    Of the four shapes only isotropic has one dimension fewer than ``loc``, and diagonal as many.
    """
    if sigma.dim() == loc.dim() - 1:
        sigma = sigma.unsqueeze(-1).expand_as(loc)
    return torch.diag_embed(sigma) if sigma.dim() == loc.dim() else sigma


def per_block(df: Tensor, blocks: Tensor) -> Tensor:
    """Expand degrees of freedom per component, (…, k) or (…, 1), to one for each of `Form.blocks`."""
    return align(df, blocks[..., 0, 0]).expand(blocks.shape[:-2])


def align(value: Tensor, like: Tensor) -> Tensor:
    """Add dimensions of one on the right until ``value`` has as many as ``like``."""
    return value.reshape(*value.shape, *[1] * (like.dim() - value.dim()))


def cholesky(sigma: Tensor) -> Tensor:
    """Cholesky factors of matrices; nan for those that are not positive definite."""
    root, info = torch.linalg.cholesky_ex(sigma)
    return torch.where((info == 0)[..., None, None], root, torch.nan)


def _inverse(root: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(root, _eye(root.shape[-1], root.device).to(root), upper=False)


def _outer(r: Tensor, gap: Tensor) -> Tensor:
    return (r.unsqueeze(-2) * gap) @ gap.mT


def _squares(r: Tensor, gap: Tensor) -> Tensor:
    return (gap.square() @ r.unsqueeze(-1)).squeeze(-1)


def _pairwise(z: Tensor, out: Tensor) -> None:
    start, dim = 0, len(z)
    for i in range(dim):
        torch.mul(z[i], z[i:], out=out[start : start + dim - i])
        start += dim - i


def _natural_matrix(inverse: Tensor, loc: Tensor) -> tuple[Tensor, Tensor]:
    precision, pairs = inverse.mT @ inverse, _pairs(loc.shape[-1], loc.device)
    quadratic = precision.flatten(-2).index_select(-1, pairs.entry) * pairs.factor
    return (precision @ loc.unsqueeze(-1)).squeeze(-1), quadratic


def _natural_variance(inverse: Tensor, loc: Tensor) -> tuple[Tensor, Tensor]:
    precision = inverse.square()
    return precision * loc, -0.5 * precision


class _Pairs(NamedTuple):
    """Products of two columns: which entry of a matrix each is, its factor there, and which product each entry is."""

    entry: Tensor
    factor: Tensor
    place: Tensor


@functools.lru_cache(maxsize=8)
def _pairs(dim: int, device: torch.device) -> _Pairs:
    row, column = torch.triu_indices(dim, dim, device=device)
    place = torch.empty(dim, dim, dtype=torch.long, device=device)
    place[row, column] = place[column, row] = torch.arange(len(row), device=device)
    factor = torch.where(row == column, -0.5, -1.0).double()
    return _Pairs(row * dim + column, factor, place.flatten())


@functools.lru_cache(maxsize=8)
def _eye(dim: int, device: torch.device) -> Tensor:
    return torch.eye(dim, dtype=torch.float64, device=device)


FULL = Form(
    matrices=True,
    tied=False,
    project=lambda matrix: matrix,
    root=cholesky,
    inverse=_inverse,
    log_det=lambda root, dim: root.diagonal(dim1=-2, dim2=-1).log().sum(-1),
    times=torch.matmul,
    compose=torch.matmul,
    transform=lambda scatter, root: root @ scatter @ root.mT,
    traces=lambda inverse, scatter: ((inverse @ scatter) * inverse).sum((-1, -2)),
    variances=lambda scatter: scatter.diagonal(dim1=-2, dim2=-1),
    scatter=_outer,
    degrees=lambda counts, dim: counts,
    blocks=lambda sigma: sigma,
    from_blocks=lambda blocks: blocks,
    per_component=lambda value, dim: value,
    num_products=lambda dim: dim * (dim + 1) // 2,
    products=_pairwise,
    natural=_natural_matrix,
    second_moments=lambda sums, dim: sums[..., _pairs(dim, sums.device).place].unflatten(-1, (dim, dim)),
)
TIED = FULL._replace(
    tied=True,
    scatter=lambda r, gap: _outer(r, gap).sum(-3, keepdim=True),
    degrees=lambda counts, dim: counts.sum(-1, keepdim=True),
)
DIAGONAL = Form(
    matrices=False,
    tied=False,
    project=torch.diagonal,
    root=torch.sqrt,
    inverse=torch.reciprocal,
    log_det=lambda root, dim: root.log().sum(-1),
    times=lambda root, columns: root.unsqueeze(-1) * columns,
    compose=torch.mul,
    transform=lambda scatter, root: scatter * root.square(),
    traces=lambda inverse, scatter: (inverse.square() * scatter).sum(-1),
    variances=lambda scatter: scatter,
    scatter=_squares,
    degrees=lambda counts, dim: counts,
    blocks=lambda sigma: sigma[..., None, None],
    from_blocks=lambda blocks: blocks[..., 0, 0],
    per_component=lambda value, dim: value.sum(-1),
    num_products=lambda dim: dim,
    products=lambda z, out: torch.mul(z, z, out=out),
    natural=_natural_variance,
    second_moments=lambda sums, dim: sums,
)
ISOTROPIC = DIAGONAL._replace(
    project=lambda matrix: matrix.diagonal().mean(),
    root=lambda sigma: sigma.unsqueeze(-1).sqrt(),
    log_det=lambda root, dim: dim * root.squeeze(-1).log(),
    traces=lambda inverse, scatter: inverse.squeeze(-1).square() * scatter,
    scatter=lambda r, gap: _squares(r, gap).sum(-1),
    degrees=lambda counts, dim: dim * counts,
    per_component=lambda value, dim: dim * value,
    num_products=lambda dim: 1,
    products=lambda z, out: torch.sum(z.square(), 0, keepdim=True, out=out),
    second_moments=lambda sums, dim: sums.squeeze(-1),
)
_FORMS = {"full": FULL, "tied": TIED, "diagonal": DIAGONAL, "isotropic": ISOTROPIC}
