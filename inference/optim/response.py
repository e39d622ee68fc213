"""Linear response: covariances from how the optimum of the ELBO moves, which are better than the normal's own.

References
----------
1. Giordano, Broderick and Jordan (2018), Covariances, robustness, and variational Bayes, JMLR 19: theorem 1.
2. Giordano, Ingram and Broderick (2024), JMLR 25: section 3.3, at fixed draws.
"""

import torch
from torch import Tensor

from ..engines.batched import Batched
from .coordinates import Coordinates

MAX_ITERATIONS = 50
TOLERANCE = 1e-3  # relative residual


def linear_response(batched: Batched, at: Coordinates, noise: Tensor, *, full: bool) -> Tensor | None:
    """Return the covariance (d, d) of z by linear response at the optimum in its own coordinates, or None.

    ``noise`` are fixed draws (n, d); ``full`` says, as in `fit_normal`, what the optimum is one of. None
    if the Hessian of the objective is not positive.
    """
    count, dim = noise.shape
    points = at.points(noise)
    columns = at.steps(torch.eye(dim).to(noise))  # what a unit of z moves x by
    blocks = [at.pulled(batched.products(points, column.expand(count, -1))) for column in columns]
    hessians = torch.stack(blocks, 2)  # (n, d, d), with respect to z
    if not bool(torch.isfinite(hessians).all()):
        return None
    mask = torch.ones(dim, dim).to(noise).tril() if full else torch.eye(dim).to(noise)

    def product(shift: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        """Hessian of the negative ELBO times directions: of the mean (k, d) and of the root (k, d, d)."""
        moved = shift[:, None] + noise @ root.mT  # (k, n, d)
        pulled = torch.einsum("nij,knj->kni", hessians, moved)
        outer = (pulled.mT @ noise) / count * mask
        return pulled.mean(1), outer + torch.diag_embed(root.diagonal(dim1=1, dim2=2))

    target = torch.eye(dim).to(noise)
    shift, root = torch.zeros_like(target), torch.zeros(dim, dim, dim).to(noise)
    left, left_root = target.clone(), torch.zeros_like(root)
    weight = mask / (1 + torch.eye(dim).to(noise))  # inverse of the Hessian's diagonal if the posterior is normal

    def inner(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return (a * c).sum(1) + (b * d).sum((1, 2))

    along, along_root = left, left_root * weight
    size = inner(left, left_root, left, left_root * weight)
    for _ in range(MAX_ITERATIONS):
        ahead, ahead_root = product(along, along_root)
        curvature = inner(along, along_root, ahead, ahead_root)
        if bool((curvature <= 0).any()):
            return None
        length = size / curvature
        shift = shift + length[:, None] * along
        root = root + length[:, None, None] * along_root
        left = left - length[:, None] * ahead
        left_root = left_root - length[:, None, None] * ahead_root
        new = inner(left, left_root, left, left_root * weight)
        if float(new.max()) < TOLERANCE**2:
            break
        along = left + (new / size)[:, None] * along
        along_root = left_root * weight + (new / size)[:, None, None] * along_root
        size = new
    covariance = (shift + shift.mT) / 2
    return covariance
