"""The modes that Newton's method reaches from many starts, in one batch: `find_mode` at every one of them.

Each search goes the way that it would go alone, and ends on its own; a step takes all Hessians in one batch, and tries
all dampings and lengths of all searches in another.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..engines.batched import Batched
from .mode import (
    DAMPINGS,
    LENGTHS,
    MAX_DECREMENT,
    MAX_ITERATIONS,
    MIN_CURVATURE,
    ROUNDING_DECREMENT,
    Curvature,
    curvature_of,
)

FOUND, ENDLESS = "found the mode", f"the density still rose after {MAX_ITERATIONS} Newton steps: it may have no mode"
NOT_FINITE, STUCK = "second derivatives are not finite", "no step gained any more, though the gradient is not zero"


class Modes(NamedTuple):
    """Where searches ended, one per start."""

    points: Tensor  # (n, d)
    energies: Tensor  # (n), nats
    is_mode: Tensor  # (n)
    messages: list[str]  # why each ended


def find_modes(batched: Batched, starts: Tensor) -> Modes:
    """Return the modes that Newton's method reaches from starts (n, d), in memory of order n d (d + 60)."""
    points = starts.clone()
    energies, gradients = batched(points)
    messages = [ENDLESS] * len(points)
    going = torch.arange(len(points), device=points.device)

    def end(indices: Tensor, message: str) -> None:
        for index in indices.tolist():
            messages[index] = message

    for _ in range(MAX_ITERATIONS):
        hessians = batched.hessians(points[going])
        finite = torch.isfinite(hessians).all((-1, -2))
        end(going[~finite], NOT_FINITE)
        going, curvature = going[finite], curvature_of(hessians[finite])
        along = _times(curvature.vectors.mT, gradients[going] / curvature.scale)
        decrement = (along.square() / _size(curvature)).sum(-1) / 2
        is_positive = curvature.values.amin(-1) > MIN_CURVATURE
        precision = torch.finfo(points.dtype).eps * (1 + energies[going].abs())
        is_found = is_positive & (decrement <= precision.clamp(min=MAX_DECREMENT))
        end(going[is_found], FOUND)
        going, along, decrement, is_positive, precision = (
            values[~is_found] for values in (going, along, decrement, is_positive, precision)
        )
        if not len(going):
            break
        steps = _steps(Curvature(*(values[~is_found] for values in curvature)), along, is_positive)
        tried = points[going][:, None] + steps
        there, slopes = (values.unflatten(0, tried.shape[:2]) for values in batched(tried.flatten(0, 1)))
        least, best = there.min(1)
        gains = least < energies[going] - precision / 100
        is_flat = ~gains & is_positive & (decrement <= ROUNDING_DECREMENT)
        end(going[is_flat], FOUND)
        end(going[~gains & ~is_flat], STUCK)
        going, chosen = going[gains], (gains.nonzero()[:, 0], best[gains])
        points[going], energies[going], gradients[going] = tried[chosen], least[gains], slopes[chosen]
        if not len(going):
            break
    is_mode = torch.tensor([message == FOUND for message in messages], device=points.device)
    return Modes(points, energies, is_mode, messages)


def _size(curvature: Curvature) -> Tensor:
    return curvature.values.abs().clamp(min=MIN_CURVATURE)


def _steps(curvature: Curvature, along: Tensor, is_positive: Tensor) -> Tensor:
    """Return the steps to try, (n, steps, d): by Newton's method, damped, and both ways along the least curvature.

    The last two are zero where that is positive.
    """
    damping, length = (torch.tensor(values).to(along) for values in (DAMPINGS, LENGTHS))
    along = along[:, None] / (_size(curvature)[:, None] + damping[:, None])  # (n, damping, d)
    steps = -(along @ curvature.vectors.mT) / curvature.scale[:, None]
    rising = curvature.vectors[..., 0] / curvature.scale
    rising = torch.where(is_positive[:, None], 0.0, rising)[:, None]
    return torch.cat([(steps[:, :, None] * length[:, None]).flatten(1, 2), rising, -rising], 1)


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors[..., None])[..., 0]
