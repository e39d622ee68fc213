"""Relabelling: exchangeable components put in one order across draws, so that their moments mean something.

Stephens (2000), Dealing with label switching in mixture models, JRSS B 62, section 5: relabelling by a cost.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Sites = dict[str, Tensor]


def match(
    draws: Sites,
    anchor: Sites | None,
    cost: Callable[[Sites, Sites], Tensor],
    has_components: Callable[[str, Tensor], bool] = lambda name, value: True,
) -> Sites:
    """Put the components of all draws in one order.

    Each draw is matched to the mean of all, until no draw changes; then all draws together are matched to the anchor.
    Draws are not matched to the anchor one by one: where they sit at another mode than the anchor does, each would
    pick its own order, and their spread would be an artefact.

    Parameters
    ----------
    draws : dict of Tensor
        Shape (chain, draw, k, …), k the components; the result has the same sites.
    anchor : dict of Tensor, optional
        The result of an earlier call, whose order to adopt; only the sites that ``cost`` reads are needed.
    cost : callable
        ``(flat, target) -> (s, k, k)``: how far each component of s draws, shape (s, k, …), is from each of the
        target's, shape (k, …).
    has_components : callable
        ``(name, value) -> bool`` for a site of shape (s, …): whether its second dimension is the components'.
    """
    flat = {name: value.flatten(0, 1) for name, value in draws.items()}
    chains, length = next(iter(draws.values())).shape[:2]

    def reorder(sites: Sites, order: Tensor) -> Sites:
        rows = torch.arange(len(order))[:, None]
        return {n: v[rows, order] if has_components(n, v) else v for n, v in sites.items()}

    order = _assign(cost(flat, {name: value[-1] for name, value in flat.items()}))
    for _ in range(20):
        last, order = order, _assign(cost(flat, _mean(reorder(flat, order))))
        if torch.equal(order, last):
            break
    ordered = reorder(flat, order)
    if anchor is not None:
        mean = {name: value[None] for name, value in _mean(ordered).items()}
        target = _mean({name: value.flatten(0, 1).to(ordered[name]) for name, value in anchor.items()})
        ordered = reorder(ordered, _assign(cost(mean, target)).expand(len(order), -1))
    return {name: value.unflatten(0, (chains, length)) for name, value in ordered.items()}


def _mean(flat: Sites) -> Sites:
    return {name: value.mean(0) for name, value in flat.items()}


def _assign(cost: Tensor) -> Tensor:
    """For each draw, the order of its components that puts them beside the target's: (s, k, k) gives (s, k)."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    return torch.tensor(np.stack([linear_sum_assignment(c)[1] for c in cost.mT.cpu().numpy()]))
