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
from typing import NamedTuple

import torch
from torch import Tensor

from ..engines.batched import Batched

MAX_DENSE = 200  # dimensions up to which d x d matrices are factorised
MAX_ITERATIONS = 100
MAX_DECREMENT = 1e-8  # nats that a Newton step would still gain at a stationary point
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
    iterations: int


class _Curvature(NamedTuple):
    """Eigenvalues and eigenvectors of a Hessian scaled to unit diagonal, and the scales."""

    values: Tensor
    vectors: Tensor
    scale: Tensor


def find_mode(batched: Batched, start: Tensor) -> Mode:
    """Return the mode that Newton's method reaches from a start (d), or where it ended; d at most `MAX_DENSE`."""
    point = start
    energy, gradient = (value[0] for value in batched(point.expand(2, -1)))  # one row has a graph of its own
    hessian = None
    for iteration in range(MAX_ITERATIONS):
        hessian = batched.hessian(point)
        if not bool(torch.isfinite(hessian).all()):
            return Mode(point, float(energy), None, False, "second derivatives are not finite", iteration)
        curvature = _curvature(hessian)
        along = curvature.vectors.mT @ (gradient / curvature.scale)
        size = curvature.values.abs().clamp(min=MIN_CURVATURE)
        decrement = float((along.square() / size).sum() / 2)
        is_positive = float(curvature.values.min()) > MIN_CURVATURE
        precision = torch.finfo(point.dtype).eps * (1 + abs(float(energy)))
        if is_positive and decrement <= max(MAX_DECREMENT, 10 * precision):
            return Mode(point, float(energy), hessian, True, f"found the mode in {iteration} steps", iteration)
        steps = [_step(curvature, along, size, damping) for damping in DAMPINGS]
        tried = torch.stack([length * step for step in steps for length in LENGTHS])
        if not is_positive:  # a gradient of zero along a falling direction tells not which way to go
            falling = curvature.vectors[:, 0] / curvature.scale
            tried = torch.cat([tried, torch.stack([falling, -falling])])
        energies, gradients = batched(point + tried)
        best = int(energies.argmin())
        if not float(energies[best]) < float(energy) - precision / 100:
            done = is_positive and decrement <= 1e-4
            words = "found the mode" if done else "no step gained any more, though the gradient is not zero"
            return Mode(point, float(energy), hessian, done, f"{words} in {iteration} steps", iteration)
        point, energy, gradient = point + tried[best], energies[best], gradients[best]
    words = f"the density still rose after {MAX_ITERATIONS} Newton steps: it may have no mode"
    return Mode(point, float(energy), hessian, False, words, MAX_ITERATIONS)


def _curvature(hessian: Tensor) -> _Curvature:
    scale = hessian.diagonal().abs().sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    values, vectors = torch.linalg.eigh(hessian / scale / scale[:, None])
    return _Curvature(values, vectors, scale)


def _step(curvature: _Curvature, along: Tensor, size: Tensor, damping: float) -> Tensor:
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
