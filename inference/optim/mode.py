"""The mode of a density by Newton's method, whatever the units of its parameters.

Curvatures are taken absolute, so that a saddle repels (reference 1), and dampings and step lengths are not searched one
after another: a batch of them costs as much as one.

References
----------
1. Dauphin, Pascanu, Gulcehre, Cho, Ganguli and Bengio (2014), Identifying and attacking the saddle point problem in
   high-dimensional non-convex optimization, NeurIPS.
2. Nocedal and Wright (2006), Numerical Optimization, chapters 3, 4 and 7.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..engines.batched import Batched

MAX_DENSE = 200  # dimensions up to which d x d matrices are factorised
MAX_ITERATIONS = 100
MAX_DECREMENT = 1e-8  # nats that a Newton step would still gain at a stationary point
ROUNDING_DECREMENT = 1e-4  # nats up to which it may be rounding that no step gains any more
MIN_CURVATURE = 1e-9  # least eigenvalue of a positive Hessian scaled to unit diagonal
DAMPINGS = (0.0, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 1e2, 1e4)
LENGTHS = (0.1, 0.3, 0.6, 1.0, 2.0, 4.0)


class Mode(NamedTuple):
    """Where a search for the mode ended."""

    point: Tensor  # (d)
    energy: float  # nats
    hessian: Tensor | None  # (d, d); None if the search needs none
    is_mode: bool
    message: str
    decrement: float  # nats that a further Newton step would gain, at a mode
    energies: list[float]  # nats, after each step


class Curvature(NamedTuple):
    """Eigenvalues and eigenvectors of Hessians scaled to unit diagonal, and the scales."""

    values: Tensor  # (…, d), the least first
    vectors: Tensor  # (…, d, d)
    scale: Tensor  # (…, d)


def find_mode(
    batched: Batched,
    start: Tensor,
    *,
    max_iterations: int = MAX_ITERATIONS,
    report: Callable[[int, float], object] = lambda *_: None,
) -> Mode:
    """Return the mode that Newton's method reaches from a start (d), or where it ended; d at most `MAX_DENSE`.

    ``report`` is called with the number of steps taken and the energy.
    """
    point, past = start, []
    energy, gradient = (value[0] for value in batched(point.expand(2, -1)))  # one row has a graph of its own
    hessian, decrement = None, math.inf

    def ended(is_mode: bool, message: str) -> Mode:
        return Mode(point, float(energy), hessian, is_mode, message, decrement, past or [float(energy)])

    for iteration in range(max_iterations):
        hessian = batched.hessian(point)
        if not bool(torch.isfinite(hessian).all()):
            hessian = None
            return ended(False, "second derivatives are not finite")
        curvature = curvature_of(hessian)
        along = curvature.vectors.mT @ (gradient / curvature.scale)
        size = curvature.values.abs().clamp(min=MIN_CURVATURE)
        decrement = float((along.square() / size).sum() / 2)
        is_positive = float(curvature.values.min()) > MIN_CURVATURE
        precision = torch.finfo(point.dtype).eps * (1 + abs(float(energy)))
        if is_positive and decrement <= max(MAX_DECREMENT, precision):
            return ended(True, f"found the mode in {iteration} Newton steps")
        steps = [_step(curvature, along, size, damping) for damping in DAMPINGS]
        tried = torch.stack([length * step for step in steps for length in LENGTHS])
        if not is_positive:  # where the gradient is zero it does not tell which way the density rises
            rising = curvature.vectors[:, 0] / curvature.scale
            tried = torch.cat([tried, torch.stack([rising, -rising])])
        energies, gradients = batched(point + tried)
        best = int(energies.argmin())
        if not float(energies[best]) < float(energy) - precision / 100:
            if is_positive and decrement <= ROUNDING_DECREMENT:
                return ended(True, f"found the mode in {iteration} Newton steps")
            return ended(False, "no step gained any more, though the gradient is not zero")
        point, energy, gradient = point + tried[best], energies[best], gradients[best]
        past.append(float(energy))
        report(iteration + 1, past[-1])
    return ended(False, f"the density still rose after {max_iterations} Newton steps: it may have no mode")


def curvature_of(hessian: Tensor) -> Curvature:
    """Return the curvature by Hessians (…, d, d)."""
    scale = hessian.diagonal(dim1=-2, dim2=-1).abs().sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    values, vectors = torch.linalg.eigh(hessian / scale[..., None, :] / scale[..., None])
    return Curvature(values, vectors, scale)


def _step(curvature: Curvature, along: Tensor, size: Tensor, damping: float) -> Tensor:
    return -(curvature.vectors @ (along / (size + damping))) / curvature.scale


def inverse_root(hessian: Tensor) -> Tensor | None:
    """Return a lower triangle L with L Lᵀ the inverse of a symmetric matrix (d, d); None unless it is positive."""
    scale = hessian.diagonal().abs().sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    scaled = hessian / scale / scale[:, None]
    upper, failed = torch.linalg.cholesky_ex(scaled.flip(0, 1))  # of the reversed matrix, so that the root is lower
    if int(failed) or not math.isfinite(float(upper.sum())):
        return None
    back = upper.flip(0, 1)  # upper triangle U with U Uᵀ the scaled matrix; its inverse transposed is lower
    eye = torch.eye(len(back)).to(back)
    return torch.linalg.solve_triangular(back, eye, upper=True).mT / scale[:, None]
