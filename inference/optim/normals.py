"""Independent normals fitted at fixed draws from many starts, in one batch: `fit_normal` at every one of them.

Giordano, Ingram and Broderick (2024), JMLR 25, section 3: the objective.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..engines.batched import Batched
from .descent import descend
from .lbfgs import NO_VALUE

MAX_STEPS = 300  # of L-BFGS
HISTORY = 10  # steps that it remembers
LEVEL = 1e-4  # nats of the ELBO by which three steps improve it at least: the best fits are fitted again


class Normals(NamedTuple):
    """Normals N(centre, root diag(scale)² rootᵀ), one per start."""

    centres: Tensor  # (n, d)
    scales: Tensor  # (n, d)
    losses: Tensor  # (n), negative ELBOs at the fixed draws, nats; `NO_VALUE` where there is none


def fit_normals(batched: Batched, centres: Tensor, roots: Tensor, noise: Tensor) -> Normals:
    """Minimise the negative ELBO at fixed draws from each of many normals.

    Parameters
    ----------
    batched : Batched
    centres, roots : Tensor, shapes (n, d) and (n, d, d)
        The normals to start from, in whose coordinates those that are fitted are independent.
    noise : Tensor, shape (draw, d)
        Standard normal draws, the same for all.
    """
    dim = noise.shape[1]

    def scale_of(theta: Tensor) -> Tensor:
        return theta[:, dim:].clamp(-30, 30).exp()

    def objective(theta: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        scale, root = scale_of(theta), roots[which]
        z = theta[:, None, :dim] + noise * scale[:, None]
        points = centres[which][:, None] + z @ root.mT
        energies, gradients = (v.unflatten(0, points.shape[:2]) for v in batched(points.flatten(0, 1)))
        pulled = gradients @ root
        slopes = torch.cat([pulled.mean(1), (pulled * noise).mean(1) * scale - 1], 1)
        return energies.mean(1) - scale.log().sum(1), slopes

    begin = torch.zeros(len(centres), 2 * dim).to(centres)
    ended = descend(objective, begin, history=HISTORY, num_steps=MAX_STEPS, level=LEVEL)
    theta, values = ended.at, ended.energy.clamp(max=NO_VALUE)
    entropies = roots.diagonal(dim1=-2, dim2=-1).log().sum(1) + dim / 2 * math.log(2 * math.pi * math.e)
    moved = centres + (roots @ theta[:, :dim, None])[..., 0]
    return Normals(moved, scale_of(theta), values - entropies)
