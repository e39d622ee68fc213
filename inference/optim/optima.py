"""Which fits of normals ended at one optimum."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

SAME_ELBO, SAME_PLACE = 0.1, 0.5  # nats, and sds, within which two restarts found one optimum


def groups_of(centres: Tensor, sds: Tensor, losses: Tensor) -> list[list[int]]:
    """Return the indices of normals by optimum, best first, and the best of a group first.

    Parameters
    ----------
    centres, sds : Tensor, shape (n, d)
        Means and standard deviations.
    losses : Tensor, shape (n)
        Negative ELBOs, nats.
    """
    groups, left = [], losses.argsort(stable=True)
    while len(left):
        best = left[0]
        apart = ((centres[left] - centres[best]).abs() / sds[best]).amax(-1)
        same = (losses[left] - losses[best] <= SAME_ELBO) & (apart <= SAME_PLACE)
        same[0] = True  # also if its loss is infinite
        groups.append(left[same].tolist())
        left = left[~same]
    return groups


def found_optima(fits: Sequence[Any], restarts: Sequence[int]) -> list[dict[str, Any]]:
    """Return the different optima among fits, best first, and the sum of the restarts that ended at each."""
    centres, sds = (
        torch.stack(values) for values in ([fit.normal.centre for fit in fits], [fit.normal.sds for fit in fits])
    )
    groups = groups_of(centres, sds, torch.tensor([fit.loss for fit in fits], dtype=torch.float64).to(centres.device))
    return [{"elbo": -fits[group[0]].loss, "restarts": sum(restarts[i] for i in group)} for group in groups]
