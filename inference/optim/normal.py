"""A normal fitted at fixed draws: the negative ELBO as an ordinary function, minimised by L-BFGS in unit scale.

References
----------
1. Giordano, Ingram and Broderick (2024), Black box variational inference with a deterministic objective: faster, more
   accurate, and even more black box, JMLR 25: section 3, the objective.
2. Burroni, Domke and Sheldon (2024), Sample average approximation for black-box variational inference, UAI.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..engines.batched import Batched
from .coordinates import Coordinates
from .lbfgs import NO_VALUE

MAX_ITERATIONS = 500
MAX_GRADIENT = 1e-3  # of the ELBO per sd: what a mean may be off, in sds


class NormalFit(NamedTuple):
    """The normal at which the objective was least."""

    coordinates: Coordinates
    loss: float  # negative ELBO at the fixed draws, nats
    converged: bool


def fit_normal(batched: Batched, start: Coordinates, noise: Tensor, *, full: bool) -> NormalFit:
    """Minimise the negative ELBO at fixed standard normal draws ``noise`` (n, d), in the coordinates of ``start``.

    A ``full`` normal has any covariance, which takes a dense root and more draws than twice the dimensions: with fewer
    it can shrink onto them. Otherwise it is independent in the coordinates.
    """
    from scipy.optimize import minimize  # slow to import

    dim, like = noise.shape[1], noise
    lower = torch.tril_indices(dim, dim, -1) if full else None

    def unpacked(theta: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        vector = torch.from_numpy(theta).to(like)
        shift, log_scale, below = vector[:dim], vector[dim : 2 * dim].clamp(-30, 30), vector[2 * dim :]
        if lower is None:
            return shift, log_scale, log_scale.exp()
        triangle = log_scale.exp().diag()
        triangle[lower[0], lower[1]] = below
        return shift, log_scale, triangle

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        shift, log_scale, root = unpacked(theta)
        z = shift + (noise * root if lower is None else noise @ root.mT)
        energies, gradients = batched(start.points(z))
        value = float(energies.mean() - log_scale.sum())
        if not np.isfinite(value):
            return NO_VALUE, np.zeros(len(theta))
        pulled = start.pulled(gradients)
        if lower is None:
            parts = [pulled.mean(0), (pulled * noise).mean(0) * root - 1]
        else:
            outer = pulled.mT @ noise / len(noise)
            parts = [pulled.mean(0), outer.diagonal() * root.diagonal() - 1, outer[lower[0], lower[1]]]
        return value, torch.cat(parts).double().cpu().numpy()

    size = 2 * dim + (0 if lower is None else lower.shape[1])
    options = {
        "maxiter": MAX_ITERATIONS,
        "maxfun": 4 * MAX_ITERATIONS,
        "maxcor": 20,
        "ftol": 1e-11,
        "gtol": MAX_GRADIENT,
    }
    found: Any = minimize(objective, np.zeros(size), jac=True, method="L-BFGS-B", options=options)
    shift, _, root = unpacked(found.x)
    new = Coordinates(start.points(shift[None])[0], start.root @ root if full else start.root * root)
    converged = found.fun < NO_VALUE and float(np.abs(found.jac).max()) < 10 * MAX_GRADIENT
    entropy = float(start.log_det) + dim / 2 * math.log(2 * math.pi * math.e)
    return NormalFit(new, float(found.fun) - entropy, converged)
