"""A model's posterior over vectors: what methods need that work on many points of the unconstrained scale at once."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..engines.batched import Batched
from ..engines.latest import graphs_of
from ..options import size_of
from .draws import all_sites
from .potential import Potential, find_start
from .prepare import Prepared
from .sites import nodes
from .supports import UNCONSTRAINED
from .vectors import Sites
from .vmap import map_rows

CHUNK = 1000  # draws whose stand-ins are computed at once


class VectorTarget:
    """Energies and gradients over vectors of unconstrained values, and what draws of a posterior are as such vectors.

    To be made, and used, in the fit's `isolated` context. A ValueError, in the method's name, says if there is no
    continuous latent site, or no start.

    Attributes
    ----------
    potential : Potential
    batched : Batched
        Its energies (nats) and gradients; `Batched.start` is a point at which they are finite.
    """

    def __init__(self, method: str, prepared: Prepared) -> None:
        joint = prepared.log_joint()
        if not joint.latent:
            kind = "only discrete latent sites, which are summed out" if joint.summed else "no latent site"
            raise ValueError(f"{method}: the model has {kind}, so that there is nothing to draw")
        self.method, self.prepared, self.potential = method, prepared, Potential(joint)
        start = find_start(method, self.potential)
        kept = graphs_of(prepared.given, prepared.rows, {name: value.shape for name, value in start.items()})
        self.batched = Batched(self.potential, start, size_of(prepared.rows), prepared.recurring, kept)

    def new_start(self) -> Tensor:
        """Return another point at which the energy is finite, shape (d), from torch's generator."""
        found = find_start(self.method, self.potential)
        return torch.cat([value.reshape(-1) for value in found.values()])

    def draws(self, vectors: Tensor, dtype: torch.dtype | None = None) -> Sites:
        """Return latent and deterministic sites at vectors (chain, draw, d): (chain, draw, *site), on the CPU.

        Parameters of the model that are held are among them. ``dtype`` is that of the draws; default: the vectors'.
        """
        with torch.no_grad():
            latent = self.potential.constrained(self.batched.sites(vectors.flatten(0, 1)))
        found = all_sites(self.potential.joint, latent)
        draws = {name: value.cpu().unflatten(0, vectors.shape[:2]) for name, value in found.items()}
        draws |= self.prepared.held_draws(draws)
        kept = {name: value.to(dtype) if value.is_floating_point() else value for name, value in draws.items()}
        return kept if dtype else draws

    def vectors(self, draws: Mapping[str, Tensor]) -> Tensor:
        """Return draws by site (chain, draw, *site) as vectors (chain, draw, d).

        A ValueError, in the method's name, says which site has no draws, or draws of another shape than the model's.
        """
        shape = next(iter(draws.values())).shape[:2]
        found = unconstrained_draws(self.method, self.potential, {n: v.flatten(0, 1) for n, v in draws.items()})
        return (
            torch.cat([value.reshape(len(value), -1) for value in found.values()], 1)
            .unflatten(0, shape)
            .to(self.batched.start)
        )


def unconstrained_draws(method: str, potential: Potential, draws: Mapping[str, Tensor]) -> Sites:
    """Return draws by site (draw, *site) as unconstrained values of the sites that a potential takes.

    A ValueError, in the method's name, says which site has no draws, or draws of another shape than the model's.
    """
    joint = potential.joint
    prototype = nodes(joint.prototype)
    given: dict[str, Any] = {}
    for name in joint.latent:
        site = name if name in draws else name.removesuffix(UNCONSTRAINED)
        if site not in draws:
            raise ValueError(f"{method}: the posterior has no draws of site {site!r}, which the model draws")
        if draws[site].shape[1:] != prototype[site]["value"].shape:
            shapes = f"{tuple(draws[site].shape[1:])}, and in the model {tuple(prototype[site]['value'].shape)}"
            raise ValueError(f"{method}: draws of site {site!r} have shape {shapes}")
        given[site] = draws[site].to(prototype[site]["value"])
    if any(name.endswith(UNCONSTRAINED) and name not in given for name in joint.latent):
        given = map_rows(joint.completed, given, chunk_size=CHUNK)
    with torch.no_grad():
        return potential.unconstrained(given)
