"""Squared extrapolation (SQUAREM) of EM, which crawls where much information is missing.

Varadhan and Roland (2008), Simple and globally convergent methods for accelerating the convergence of any EM
algorithm, Scandinavian Journal of Statistics 35: scheme S3.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .restarts import Params, State


def squarem(zero: State, one: State, two: State, e_step: Callable[[Params], State]) -> State:
    """Jump along the path of two EM steps where that raises the objective (equation 9); elsewhere stay at its end."""
    change = {name: one.params[name] - zero.params[name] for name in zero.params}
    bend = {name: two.params[name] - one.params[name] - change[name] for name in zero.params}
    batch = two.objective.shape
    unit = {name: _norm(value, batch).clamp(min=1e-300) for name, value in zero.params.items()}  # one for each
    length = -_total(change, unit, batch) / _total(bend, unit, batch).clamp(
        min=1e-300
    )  # below -1: beyond the two steps
    if not (length < -1).any():
        return two
    far = {}
    for name, value in zero.params.items():
        by = length.reshape([*batch, *[1] * (value.dim() - len(batch))])
        far[name] = value - 2 * by * change[name] + by**2 * bend[name]
    try:
        jumped = e_step(far)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        return two
    higher = (length < -1) & (jumped.objective > two.objective)
    if higher.all() or not higher.any():
        return jumped if higher.all() else two
    return jumped.map(lambda ours, old: torch.where(higher.reshape(-1, *[1] * (ours.dim() - 1)), ours, old), two)


def _total(params: Params, unit: Params, batch: torch.Size) -> Tensor:
    """Return the norm over all parameters, each in its own unit: other units of the data change nothing."""
    return torch.stack([_norm(value, batch) / unit[name] for name, value in params.items()]).norm(dim=0)


def _norm(value: Tensor, batch: torch.Size) -> Tensor:
    largest = value.reshape(*batch, -1).abs().amax(-1).clamp(min=1e-300)  # squares of small numbers would be zero
    return (value.reshape(*batch, -1) / largest.unsqueeze(-1)).norm(dim=-1) * largest
