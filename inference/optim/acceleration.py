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
    length = -_norm(change, batch) / _norm(bend, batch).clamp(min=1e-300)  # below -1: further than the two steps went
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


def _norm(params: Params, batch: torch.Size) -> Tensor:
    return torch.cat([value.reshape(*batch, -1) for value in params.values()], -1).norm(dim=-1)
