"""Starts of chains, and a first metric, from the draws of a posterior that was fitted before."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..posterior import Posterior
from ..traces.isolate import isolated
from ..traces.potential import finite_energy
from ..traces.prepare import Prepared
from ..traces.target import VectorTarget
from ..traces.vectors import Sites, as_vector

MOST_TRIED = 20  # draws per chain that are looked at for one with a finite density
MOST_DRAWS = 2000  # that the covariance is taken from
ROUNDING = 1e-12  # standard deviation, relative to the largest draw, up to which draws do not vary
PSEUDO_DRAWS = 5  # draws that the covariance's diagonal alone is worth beside the draws


class FastStart(NamedTuple):
    """Where chains start, and the posterior's covariance, both on the unconstrained scale."""

    starts: list[Sites]  # one per chain
    covariance: Tensor  # (d, d), float64

    def inverse_mass(self, dense: bool) -> np.ndarray:
        """Return the inverse mass matrix, or its diagonal."""
        found = self.covariance if dense else self.covariance.diagonal()
        return found.numpy().copy()


def fast_start(method: str, prepared: Prepared, posterior: Posterior, num_chains: int, seed: int) -> FastStart:
    """Return different draws of a posterior for chains to start at, and its covariance.

    Draws without a finite density are passed over; if none is left, a chain starts as without a posterior. With fewer
    than two draws per dimension the covariance is diagonal. A ValueError, in the method's name, says if the posterior
    is a point, or not one of this model.
    """
    if posterior.info.is_point or not posterior.draws or _count(posterior.draws) < 2:
        raise ValueError(
            f"{method}: init must be a posterior with draws to start at; {posterior.info.method} gave a point"
        )
    with isolated(seed, prepared.dtype), torch.no_grad():
        target = VectorTarget(method, prepared)
        order = torch.randperm(_count(posterior.draws))[:MOST_DRAWS]
        some = {name: value.flatten(0, 1)[order][None] for name, value in posterior.draws.items()}
        vectors = target.vectors(some)[0]
        vectors = vectors[torch.isfinite(vectors).all(1)]
        distinct = _distinct(vectors)[: MOST_TRIED * num_chains]
        starts: list[Sites] = []
        for vector in distinct:
            at = target.batched.sites(vector)
            if bool(torch.isfinite(finite_energy(target.potential, at)[0])):
                starts.append(at)
            if len(starts) == num_chains:
                break
        while len(starts) < num_chains:
            starts.append(target.batched.sites(target.new_start()))
        return FastStart(starts, shrunk_covariance(vectors, len(as_vector(starts[0]))))


def _count(draws: Mapping[str, Tensor]) -> int:
    return next(iter(draws.values())).shape[:2].numel()


def _distinct(vectors: Tensor) -> Tensor:
    """Return the rows without repetitions, in their order."""
    _, first = np.unique(vectors.cpu().numpy(), axis=0, return_index=True)
    return vectors[torch.from_numpy(np.sort(first)).to(vectors.device)]


def shrunk_covariance(vectors: Tensor, dim: int) -> Tensor:
    """Return the covariance of draws (n, d), drawn towards its diagonal; ones for what does not vary."""
    if len(vectors) < 2:
        return torch.eye(dim, dtype=torch.float64)
    centred = (vectors - vectors.mean(0)).double().cpu()
    covariance = centred.T @ centred / (len(vectors) - 1)
    variances = covariance.diagonal()
    least = (ROUNDING * vectors.abs().amax(0).double().cpu()).square().clamp(min=torch.finfo(torch.float64).tiny)
    varies = torch.isfinite(variances) & (variances > least)
    if len(vectors) < 2 * dim or not bool(varies.all()):
        return torch.diag(torch.where(varies, variances, 1.0))
    weight = PSEUDO_DRAWS / (PSEUDO_DRAWS + len(vectors))
    return (1 - weight) * covariance + weight * torch.diag(variances)
