"""Quantities of a mixture of counts that do not depend on the order of its components."""

import torch
from torch import Tensor

from .._shared.matching import match


def identify(draws: dict[str, Tensor], anchor: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Put the components of all draws in one order, by the symmetric Kullback-Leibler divergence between components.

    Parameters
    ----------
    draws : dict
        ``weights`` and ``rate`` or ``probs``, each (chain, draw, …) and then shaped as the sites of `model`.
    anchor : dict, optional
        The result of an earlier call, whose order is taken over.

    Returns
    -------
    dict
        The same two sites, in one order.
    """
    site = "rate" if "rate" in draws else "probs"
    return match({name: draws[name] for name in ("weights", site)}, anchor, _divergence)


def _divergence(flat: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
    """Σ_d (λ_d - μ_d)(log λ_d - log μ_d) between components, one count's where multinomial; (s, k, k).

    Zeros, which maximum likelihood has, are raised to the least positive number, so that no cost is infinite.
    """
    site = "rate" if "rate" in flat else "probs"
    tiny = torch.finfo(flat[site].dtype).tiny
    own, other = flat[site].clamp(min=tiny), target[site].clamp(min=tiny)
    logs, other_logs = own.log(), other.log()
    alone = (own * logs).sum(-1).unsqueeze(-1) + (other * other_logs).sum(-1)
    return alone - own @ other_logs.mT - logs @ other.mT
