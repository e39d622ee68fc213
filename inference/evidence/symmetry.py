"""Whether a model is the same with its components exchanged, and draws show one order of them only.

The posterior of a mixture of K exchangeable components has K! equal modes. Draws from one of them, by a chain that
stays there or by a guide fitted to it, show 1/K! of the evidence (Frühwirth-Schnatter 2004, section 3.3).
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ..diagnostics import r_hat
from ..traces.draws import Sites
from ..traces.params import trace_at

MAX_COMPONENTS = 20
MAX_CHOICES = 100  # of dimensions that may count the components
MOST_DRAWS = 500  # to compare with their exchanged copies
MAX_R_HAT = 1.1  # between draws and their exchanged copies; above it they tell the components apart
MOST_ENTRIES = 1000  # of a site, to compare
NUM_POINTS = 2  # at which the density is compared


def exchangeable(
    model: Callable, draws: Mapping[str, Tensor], latent: Mapping[str, Tensor], data: tuple
) -> dict[str, Any]:
    """Return ``components`` and ``component_sites`` of components that can be exchanged and in the draws are not.

    Exchanged they leave the model's density as it is, yet the draws, (draw, *site), tell them apart. Empty if there are
    none, or if the draws lack a latent site; ``latent`` are values of all.
    """
    if not draws or set(draws) != set(latent):
        return {}
    kept = torch.linspace(0, len(next(iter(draws.values()))) - 1, MOST_DRAWS).round().long().unique()
    draws = {name: value[kept.to(value.device)].to(latent[name]) for name, value in draws.items()}
    for components, dims in _choices(draws):
        shifted = _exchanged(draws, dims, [*range(1, components), 0])
        swapped = _exchanged(draws, dims, [1, 0, *range(2, components)])
        if all(_same_density(model, draws, other, data) for other in (shifted, swapped)):
            pairs = (torch.stack([draws[n], shifted[n]]).flatten(2)[..., :MOST_ENTRIES] for n in dims)
            if any(float(r_hat(pair).nan_to_num(1.0).max()) > MAX_R_HAT for pair in pairs):
                return {"components": components, "component_sites": list(dims)}
    return {}


def _choices(draws: Mapping[str, Tensor]) -> Iterator[tuple[int, dict[str, int]]]:
    """Yield numbers of components, each with the dimension of every site concerned, from the end, that counts them."""
    sizes = {size for value in draws.values() for size in value.shape[1:] if 2 <= size <= MAX_COMPONENTS}
    for components in sorted(sizes):
        dims = {
            name: [dim for dim in range(1 - value.dim(), 0) if value.shape[dim] == components]
            for name, value in draws.items()
        }
        options = [[*found, None] for found in dims.values()]
        for _, chosen in zip(range(MAX_CHOICES), product(*options), strict=False):
            picked = {name: dim for name, dim in zip(dims, chosen, strict=True) if dim is not None}
            if picked:
                yield components, picked


def _exchanged(draws: Mapping[str, Tensor], dims: Mapping[str, int], order: list[int]) -> Sites:
    return {
        name: value.index_select(dims[name], torch.tensor(order, device=value.device)) if name in dims else value
        for name, value in draws.items()
    }


def _same_density(model: Callable, draws: Mapping[str, Tensor], others: Mapping[str, Tensor], data: tuple) -> bool:
    for point in range(NUM_POINTS):
        try:
            here, there = (
                torch.as_tensor(trace_at(model, {n: value[point] for n, value in of.items()}, data).log_prob_sum())
                for of in (draws, others)
            )
        except (RuntimeError, ValueError):  # exchanged values may lie outside of a support
            return False
        if not torch.allclose(here, there, rtol=100 * torch.finfo(here.dtype).eps, atol=1e-6):
            return False
    return True
