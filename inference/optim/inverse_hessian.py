"""Limited-memory estimates of inverse Hessians, and the normals that have them as covariances; batched.

An estimate is Σ = D + B M Bᵀ with D diagonal and B of 2J columns, from the last J steps and the differences of
gradients over them. All functions take leading batch dimensions; unused pairs are zeros.

References
----------
1. Byrd, Nocedal and Schnabel (1994), Representations of quasi-Newton matrices and their use in limited memory methods,
   Mathematical Programming 63: theorem 2.2.
2. Gilbert and Lemaréchal (1989), Some numerical experiments with variable-storage quasi-Newton algorithms, Mathematical
   Programming 45: section 4.2, the diagonal.
3. Zhang, Carpenter, Gelman and Vehtari (2022), Pathfinder: parallel quasi-Newton variational inference, JMLR 23:
   algorithms 3 and 4.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class InverseHessian(NamedTuple):
    """D + B M Bᵀ, positive definite if the pairs have positive curvature."""

    diagonal: Tensor  # (…, d)
    factor: Tensor  # B, (…, d, 2J)
    middle: Tensor  # M, (…, 2J, 2J)

    def __matmul__(self, vector: Tensor) -> Tensor:
        """Return the product with vectors (…, d)."""
        low_rank = self.factor @ (self.middle @ (self.factor.mT @ vector[..., None]))
        return self.diagonal * vector + low_rank[..., 0]


def inverse_hessian(diagonal: Tensor, steps: Tensor, changes: Tensor) -> InverseHessian:
    """Return the estimate from a diagonal (…, d), steps and changes of the gradient (…, J, d), the oldest first."""
    products = steps @ changes.mT
    unused = (products.diagonal(dim1=-2, dim2=-1) == 0).to(products)
    upper = products.triu() + torch.diag_embed(unused)
    identity = torch.eye(upper.shape[-1]).to(upper)
    inverse = torch.linalg.solve_triangular(upper, identity.expand_as(upper), upper=True)
    scaled = diagonal[..., None, :] * changes
    curvature = torch.diag_embed(products.diagonal(dim1=-2, dim2=-1)) + changes @ scaled.mT
    corner = inverse.mT @ curvature @ inverse
    middle = torch.cat(
        [torch.cat([corner, -inverse.mT], -1), torch.cat([-inverse, torch.zeros_like(inverse)], -1)],
        -2,
    )
    return InverseHessian(diagonal, torch.cat([steps, scaled], -2).mT, middle)


def updated_diagonal(diagonal: Tensor, step: Tensor, change: Tensor) -> Tensor:
    """Return the diagonal (…, d) after a step and the change of the gradient over it, (…, d), by reference 2."""
    along = (step * change).sum(-1, keepdim=True)
    of_change = (change.square() * diagonal).sum(-1, keepdim=True)
    of_step = (step.square() / diagonal).sum(-1, keepdim=True)
    precision = of_change / along / diagonal + change.square() / along
    return 1 / (precision - of_change / along / of_step * (step / diagonal).square())


class LowRankNormal(NamedTuple):
    """Normals with such covariances, D^½ (I + Q (L Lᵀ - I) Qᵀ) D^½."""

    mean: Tensor  # (…, d)
    scale: Tensor  # D^½, (…, d)
    basis: Tensor  # Q, orthonormal columns, (…, d, r)
    root: Tensor  # L, lower triangular, (…, r, r)
    exists: Tensor  # (…): whether the covariance is positive definite and finite

    def at(self, index: int | Tensor) -> "LowRankNormal":
        """Return those at an index of the first batch dimension."""
        return LowRankNormal(*(part[index] for part in self))

    def draws(self, noise: Tensor) -> Tensor:
        """Return draws (…, n, d) from standard normal noise of that shape."""
        along = noise @ self.basis
        spread = noise + (along @ self.root.mT - along) @ self.basis.mT
        return self.mean[..., None, :] + self.scale[..., None, :] * spread

    def log_density(self, points: Tensor) -> Tensor:
        """Return the log density in nats, (…, n), at points (…, n, d)."""
        spread = (points - self.mean[..., None, :]) / self.scale[..., None, :]
        along = spread @ self.basis
        inner = torch.linalg.solve_triangular(self.root, along.mT, upper=False).mT
        square = spread.square().sum(-1) - along.square().sum(-1) + inner.square().sum(-1)
        log_scale = self.scale.log().sum(-1) + self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        dim = points.shape[-1]
        return -0.5 * square - log_scale[..., None] - 0.5 * dim * math.log(2 * math.pi)


def normal_at(points: Tensor, gradients: Tensor, estimate: InverseHessian) -> LowRankNormal:
    """Return normals centred where a Newton step leads from points with these gradients of the energy, (…, d)."""
    scale = estimate.diagonal.sqrt()
    basis, upper = torch.linalg.qr(estimate.factor / scale[..., None])
    inner = upper @ estimate.middle @ upper.mT
    identity = torch.eye(inner.shape[-1]).to(inner)
    root, wrong = torch.linalg.cholesky_ex(identity + (inner + inner.mT) / 2)
    mean = points - estimate @ gradients
    finite = torch.isfinite(mean).all(-1) & torch.isfinite(scale).all(-1) & torch.isfinite(root).all((-1, -2))
    return LowRankNormal(mean, scale, basis, root, finite & (wrong == 0))
