"""Quantities of a Gaussian mixture that do not depend on the order of its components."""

import torch
from torch import Tensor

from .._shared.matching import match
from .covariance import as_matrices


def identify(draws: dict[str, Tensor], anchor: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Put the components of all draws in one order, by the symmetric Kullback-Leibler divergence between normals.

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
    return match({name: draws[name] for name in ("weights", "loc", "covariance")}, anchor, _divergence, _has_components)


def _has_components(name: str, value: Tensor) -> bool:
    """All but one covariance shared by all components, (s, 1, d, d)."""
    return not (name == "covariance" and value.dim() == 4 and value.shape[1] == 1)


def _divergence(flat: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
    """Symmetric Kullback-Leibler divergence between components: (s, k, …) against (k, …) gives (s, k, k)."""
    loc, other_loc = flat["loc"], target["loc"]
    covariance, other_covariance = as_matrices(flat["covariance"], loc), as_matrices(target["covariance"], other_loc)
    precision, other_precision = torch.linalg.inv(covariance), torch.linalg.inv(other_covariance)
    gap = loc.unsqueeze(2) - other_loc  # (s, k, k, d)
    both = precision.unsqueeze(2) + other_precision
    quadratic = torch.einsum("sjki,sjkil,sjkl->sjk", gap, both, gap)
    traces = torch.einsum("kil,sjli->sjk", other_precision, covariance)
    traces = traces + torch.einsum("sjil,kli->sjk", precision, other_covariance)
    return 0.5 * (quadratic + traces) - loc.shape[-1]
