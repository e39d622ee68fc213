"""The log density of parameters and data, as a quantity to rank.

It depends on the data as no parameter does, and so finds a posterior that ignores them: Modrák et al. (2023), section
3.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..engines.batched import Batched
from ..options import size_of
from ..traces.isolate import isolated
from ..traces.potential import Potential
from ..traces.prepare import prepare
from ..traces.supports import UNCONSTRAINED
from ..traces.target import unconstrained_draws
from .quantities import METHOD
from .simulate import Simulations


class JointDensity:
    """log p(data, parameters), in nats, on the unconstrained scale, discrete sites summed out."""

    def __init__(self, simulated: Simulations) -> None:
        self._simulated = simulated
        self._prepared = prepare(METHOD, simulated.model, simulated.data[0], least_dtype=torch.float64)

    def lacking(self, sites: Mapping[str, Tensor]) -> list[str]:
        """Return the sites without which there is no density, of those that are not among these."""
        names = (name.removesuffix(UNCONSTRAINED) for name in self._prepared.log_joint().latent)
        return [name for name in names if name not in sites]

    def of(self, row: int, sites: Mapping[str, Tensor]) -> Tensor:
        """Return the density with one data set at draws (draw, *site), shape (draw)."""
        dtype = self._prepared.dtype
        data = tuple(
            v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for v in self._simulated.data[row]
        )
        prepared = replace(self._prepared, data=data, rows=data)
        with isolated(0, dtype):
            potential = Potential(prepared.log_joint())
            at = unconstrained_draws(METHOD, potential, sites)
            first = {name: value[0] for name, value in at.items()}
            batched = Batched(potential, first, size_of(data), prepared.recurring)
            vectors = torch.cat([value.reshape(len(value), -1) for value in at.values()], 1)
            return -batched(vectors)[0]
