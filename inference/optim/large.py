"""What takes a d x d matrix in `rounds`, in memory of order d: scales by the Hessian's diagonal, correlations low-rank.

Giordano, Ingram and Broderick (2024), JMLR 25, section 3.3: products with the Hessian are all that linear response
needs; Saad (2011), Numerical Methods for Large Eigenvalue Problems, chapter 6: Lanczos.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engines.batched import ROWS, Batched
from .coordinates import Coordinates
from .lbfgs import NO_VALUE

MAX_ITERATIONS = 500  # of L-BFGS, per rescaling
RESCALINGS = 3
MAX_DECREMENT = 1e-3  # nats that a step by the diagonal of the Hessian would gain at a mode
DIRECTIONS = 20  # eigenvectors at either end of the spectrum


def start_large(batched: Batched, start: Tensor) -> tuple[Coordinates, str]:
    """Return a diagonal normal at the mode, which L-BFGS finds in coordinates scaled by the Hessian's diagonal."""
    from scipy.optimize import minimize  # slow to import

    point, gain = start, float("inf")
    scale = _scale(batched, point)
    for _ in range(RESCALINGS):

        def objective(z: np.ndarray, centre: Tensor = point, scale: Tensor = scale) -> tuple[float, np.ndarray]:
            energy, gradient = batched((centre + scale * torch.from_numpy(z).to(start))[None])
            if not bool(torch.isfinite(energy)):
                return NO_VALUE, np.zeros(len(z))
            return float(energy), (gradient[0] * scale).double().cpu().numpy()

        options = {"maxiter": MAX_ITERATIONS, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-5}
        found: Any = minimize(objective, np.zeros(len(start)), jac=True, method="L-BFGS-B", options=options)
        point = point + scale * torch.from_numpy(found.x).to(start)
        gradient = batched(point[None])[1][0]
        scale = _scale(batched, point)
        gain = float((gradient * scale).square().sum() / 2)
        if gain <= MAX_DECREMENT:
            return Coordinates(point, scale), "started from the mode"
    return Coordinates(start, 0.3 * _scale(batched, start)), "no mode was found"


def low_rank_response(batched: Batched, at: Coordinates, noise: Tensor) -> Coordinates | None:
    """Return a normal with covariance by linear response along the directions in which that differs most from ``at``'s.

    ``at`` is diagonal. The Hessian for the mean has the scales' part eliminated, with that for a normal posterior, two.
    None if it is not positive.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh  # slow to import

    points, dim = at.points(noise), noise.shape[1]

    def pulled(z: Tensor) -> Tensor:
        return at.pulled(batched.products(points, at.steps(z.expand_as(noise))))

    def product(direction: np.ndarray) -> np.ndarray:
        moved = pulled(torch.from_numpy(direction.reshape(-1)).to(noise))
        scales = (moved * noise).mean(0) / 2
        return (moved.mean(0) - pulled(scales * noise).mean(0)).double().cpu().numpy()

    operator = LinearOperator((dim, dim), matvec=product, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    count = min(2 * DIRECTIONS, dim - 1)
    try:
        values, vectors = eigsh(operator, count, which="BE", tol=1e-3, v0=np.ones(dim))  # pyright: ignore[reportArgumentType]
    except ArpackError:
        return None
    if not (np.isfinite(values).all() and values.min() > 0):
        return None
    basis, factors = torch.from_numpy(vectors).to(noise), torch.from_numpy(values).to(noise).rsqrt() - 1
    return at._replace(directions=basis, factors=factors)


def _scale(batched: Batched, point: Tensor) -> Tensor:
    """Return one over the square roots of the Hessian's diagonal, (d); one where it is not finite or zero."""
    found = []
    for rows in torch.arange(batched.dim).split(ROWS):
        directions = torch.zeros(len(rows), batched.dim).to(point)
        directions[torch.arange(len(rows)), rows] = 1
        products = batched.products(point.expand(len(rows), -1), directions)
        found.append(products[torch.arange(len(rows)), rows])
    diagonal = torch.cat(found).abs()
    return torch.where(torch.isfinite(diagonal) & (diagonal > 0), diagonal, torch.ones_like(diagonal)).rsqrt()
