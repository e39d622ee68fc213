"""The four shapes that the components' covariances Σ may have, and the operations that differ between them.

S is a root of Σ, Σ = S Sᵀ: a Cholesky factor, or standard deviations.
"""

import functools
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Covariance = Literal["full", "tied", "diagonal", "isotropic"]


class Form(NamedTuple):
    """Shape of Σ: full (…, k, d, d), tied (…, 1, d, d), diagonal (…, k, d) or isotropic (…, k).

    Attributes
    ----------
    matrices : bool
        Whether Σ is a matrix rather than variances.
    shared : bool
        Whether all components share one matrix (tied), or all columns one variance (isotropic).
    """

    matrices: bool
    shared: bool

    @property
    def tied(self) -> bool:
        """Whether all components share one matrix."""
        return self.matrices and self.shared

    def project(self, matrix: Tensor) -> Tensor:
        """Σ of one component that is closest to a matrix (d, d)."""
        if self.matrices:
            return matrix
        return matrix.diagonal().mean() if self.shared else matrix.diagonal()

    def wide(self, sigma: Tensor) -> Tensor:
        """Σ, but isotropic (…, k, 1)."""
        return sigma.unsqueeze(-1) if self.shared and not self.matrices else sigma

    def root(self, sigma: Tensor) -> Tensor:
        """S, as `wide`; nan if Σ is singular."""
        return cholesky(sigma) if self.matrices else self.wide(sigma).sqrt()

    def inverse(self, root: Tensor) -> Tensor:
        """S⁻¹."""
        if self.matrices:
            return torch.linalg.solve_triangular(root, _eye(root.shape[-1], root.device), upper=False)
        return root.reciprocal()

    def times(self, root: Tensor, columns: Tensor) -> Tensor:
        """S or S⁻¹ times columns (…, d, n)."""
        return root @ columns if self.matrices else root.unsqueeze(-1) * columns

    def traces(self, inverse: Tensor, scatter: Tensor) -> Tensor:
        """tr(Σ⁻¹ scatter) per component, (…, k) or (…, 1); a scatter is shaped as Σ."""
        if self.matrices:
            return ((inverse @ scatter) * inverse).sum((-1, -2))
        return (inverse.square() * self.wide(scatter)).sum(-1)

    def scatter(self, r: Tensor, gap: Tensor) -> Tensor:
        """Σ_n r gap gapᵀ, shaped as Σ, for weights r (…, k, n) of columns (…, k, d, n)."""
        if self.matrices:
            scatter = (r.unsqueeze(-2) * gap) @ gap.mT
            return scatter.sum(-3, keepdim=True) if self.shared else scatter
        scatter = (gap.square() @ r.unsqueeze(-1)).squeeze(-1)
        return scatter.sum(-1) if self.shared else scatter

    def sums(self, matrices: Tensor) -> Tensor:
        """Sums of squares and products per component, (k, d, d), as `scatter` has them."""
        if self.matrices:
            return matrices.sum(-3, keepdim=True) if self.shared else matrices
        squares = matrices.diagonal(dim1=-2, dim2=-1)
        return squares.sum(-1) if self.shared else squares

    def degrees(self, counts: Tensor, dim: int) -> Tensor:
        """Degrees of freedom, (…, k) or (…, 1), that N_k rows per component, (…, k), add to each Σ."""
        if not self.shared:
            return counts
        return counts.sum(-1, keepdim=True) if self.matrices else dim * counts

    def blocks(self, sigma: Tensor) -> Tensor:
        """The independent matrices (…, p, p) that Σ consists of; p = 1 for variances. A reshape leads back."""
        return sigma if self.matrices else self.wide(sigma)[..., None, None]

    def per_component(self, value: Tensor, loc: Tensor) -> Tensor:
        """Sum a value per block over the columns of ``loc``, (…, k, d): (…, k) or (…, 1)."""
        return value if self.matrices else value.expand_as(loc).sum(-1)


_FORMS = {
    "full": Form(matrices=True, shared=False),
    "tied": Form(matrices=True, shared=True),
    "diagonal": Form(matrices=False, shared=False),
    "isotropic": Form(matrices=False, shared=True),
}


def form_of(covariance: str) -> Form:
    """Return the operations for a name; ValueError if there is no such covariance."""
    if covariance not in _FORMS:
        raise ValueError(f"gmm: covariance must be one of {', '.join(get_args(Covariance))}, got {covariance!r}")
    return _FORMS[covariance]


def as_matrices(sigma: Tensor, loc: Tensor) -> Tensor:
    """Return each Σ as a matrix, (…, k, d, d), or (…, 1, d, d) if tied, given the means (…, k, d).

    Of the four shapes only isotropic has one dimension fewer than ``loc``, and diagonal as many.
    """
    if sigma.dim() == loc.dim() - 1:
        sigma = sigma.unsqueeze(-1).expand_as(loc)
    return torch.diag_embed(sigma) if sigma.dim() == loc.dim() else sigma


def align(value: Tensor, like: Tensor) -> Tensor:
    """Add dimensions of one on the right until ``value`` has as many as ``like``."""
    return value.reshape(*value.shape, *[1] * (like.dim() - value.dim()))


def cholesky(sigma: Tensor) -> Tensor:
    """Cholesky factors of matrices; nan for those that are not positive definite."""
    root, info = torch.linalg.cholesky_ex(sigma)
    return torch.where((info == 0)[..., None, None], root, torch.nan)


@functools.lru_cache(maxsize=8)
def _eye(dim: int, device: torch.device) -> Tensor:
    return torch.eye(dim, dtype=torch.float64, device=device)
