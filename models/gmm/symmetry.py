"""Quantities of a Gaussian mixture that do not depend on the order of its components."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .generative import as_matrices


def identify(draws: dict[str, Tensor], anchor: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Put the components of all draws in one order.

    Each draw is matched to the mean of all, until no draw changes; then all draws together are matched to the anchor.
    An order is the assignment of least total symmetric Kullback-Leibler divergence between normals (relabelling by a
    cost, as in Stephens 2000, section 5). Draws are not matched to the anchor one by one: where they sit at another
    mode than the anchor does, each would pick its own order, and their spread would be an artefact.

    Parameters
    ----------
    draws : dict
        ``weights``, ``loc``, ``covariance``, each (chain, draw, …) and then shaped as the sites of `model`.
    anchor : dict, optional
        The result of an earlier call, whose order is taken over.

    Returns
    -------
    dict
        The same three sites, in one order.
    """
    flat = {name: draws[name].flatten(0, 1) for name in ("weights", "loc", "covariance")}
    chains, length = draws["loc"].shape[:2]
    order = _orders(flat, _at(flat, -1))
    for _ in range(20):
        last, order = order, _orders(flat, _mean(_reorder(flat, order)))
        if torch.equal(order, last):
            break
    ordered = _reorder(flat, order)
    if anchor is not None:
        mean = {name: value[None] for name, value in _mean(ordered).items()}
        order = _orders(mean, _mean({name: value.flatten(0, 1).to(ordered[name]) for name, value in anchor.items()}))
        ordered = _reorder(ordered, order.expand(len(ordered["loc"]), -1))
    return {name: value.unflatten(0, (chains, length)) for name, value in ordered.items()}


def _at(flat: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    return {name: value[index] for name, value in flat.items()}


def _mean(flat: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.mean(0) for name, value in flat.items()}


def _orders(flat: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
    """For each draw the order of its components, shape (s, k), that puts them beside the target's."""
    ours = as_matrices(flat["covariance"], flat["loc"])
    theirs = as_matrices(target["covariance"], target["loc"])
    return _assign(_divergence(flat["loc"], ours, target["loc"], theirs))


def _reorder(flat: dict[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    rows = torch.arange(len(order))[:, None]
    return {name: value if _is_tied(name, value) else value[rows, order] for name, value in flat.items()}


def _is_tied(name: str, value: Tensor) -> bool:
    """Whether a flattened site is one covariance shared by all components, (s, 1, d, d)."""
    return name == "covariance" and value.dim() == 4 and value.shape[1] == 1


def _divergence(loc: Tensor, covariance: Tensor, other_loc: Tensor, other_covariance: Tensor) -> Tensor:
    """Symmetric Kullback-Leibler divergence between normals: (s, k, …) against (k, …) gives (s, k, k)."""
    precision, other_precision = torch.linalg.inv(covariance), torch.linalg.inv(other_covariance)
    gap = loc.unsqueeze(2) - other_loc  # (s, k, k, d)
    both = precision.unsqueeze(2) + other_precision
    quadratic = torch.einsum("sjki,sjkil,sjkl->sjk", gap, both, gap)
    traces = torch.einsum("kil,sjli->sjk", other_precision, covariance)
    traces = traces + torch.einsum("sjil,kli->sjk", precision, other_covariance)
    return 0.5 * (quadratic + traces) - loc.shape[-1]


def _assign(cost: Tensor) -> Tensor:
    """For each draw, the order of its components that puts them beside the anchor's: (s, k, k) gives (s, k)."""
    return torch.tensor(np.stack([linear_sum_assignment(c)[1] for c in cost.mT.cpu().numpy()]))
