"""Balanced draws from normals: scrambled Sobol points, each with its mirror image, moments matched.

Owen (1997), Scrambled net variance for integrals of smooth functions, Annals of Statistics 25; Buchholz, Wenzel and
Mandt (2018), Quasi-Monte Carlo variational inference, ICML.
"""

from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Size, Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)

from ..traces.draws import DRAWS

MAX_BALANCED = 500  # numbers of a site: more take a factorisation that takes long
MAX_SOBOL_DIM = torch.quasirandom.SobolEngine.MAXDIM


def balanced_normals(count: int, dim: int, seed: int) -> Tensor:
    """Return ``count`` draws (rounded up to an even number) from N(0, I), shape (count, dim), float64, on the CPU.

    Their mean is zero, and their covariance the identity where there are more than twice as many draws as dimensions;
    with fewer, each dimension has variance one. Their order is random, so that any part of them is a sample too.
    """
    half = (count + 1) // 2
    generator = torch.Generator().manual_seed(seed)
    if dim <= MAX_SOBOL_DIM:
        points = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed).draw(half, dtype=torch.float64)
        z = torch.special.ndtri(points.clamp(1e-12, 1 - 1e-12))
    else:
        z = torch.randn(half, dim, generator=generator, dtype=torch.float64)
    if half > dim:
        root = torch.linalg.cholesky(z.mT @ z / half)
        z = torch.linalg.solve_triangular(root, z.mT, upper=False).mT
    else:
        z = z / z.square().mean(0).sqrt()
    return torch.cat([z, -z])[torch.randperm(2 * half, generator=generator)]


class BalancedDraws(Messenger):
    """Has `draw_guide` draw sites that are normal, or transformations of normals, from balanced noise.

    Means and covariances of its draws, before transformations, are then those of the guide.
    """

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        frame = next((frame for frame in msg["cond_indep_stack"] if frame.name == DRAWS), None)
        if frame is None or msg["value"] is not None or not isinstance(msg["fn"], Distribution):
            return
        shape = msg["fn"].batch_shape
        if len(shape) == -frame.dim and shape[0] == frame.size:
            msg["value"] = _balanced(msg["fn"])


def _balanced(fn: Any) -> Tensor | None:
    """Return draws of an expanded distribution; None if it is none that is known."""
    if isinstance(fn, TransformedDistribution):
        value = _balanced(fn.base_dist)
        for transform in fn.transforms if value is not None else ():
            value = transform(value)
        return value
    if isinstance(fn, Independent):
        return _balanced(fn.base_dist)
    if isinstance(fn, Normal):
        z = _noise_like(fn.loc, fn.batch_shape)
        return None if z is None else fn.loc + fn.scale * z
    if isinstance(fn, MultivariateNormal):
        z = _noise_like(fn.loc, fn.loc.shape)
        return None if z is None else fn.loc + (fn.scale_tril @ z[..., None])[..., 0]
    if isinstance(fn, LowRankMultivariateNormal):
        rank = fn.cov_factor.shape[-1]
        z = _noise_like(fn.loc, Size([*fn.batch_shape, rank + fn.loc.shape[-1]]))
        if z is None:
            return None
        return fn.loc + (fn.cov_factor @ z[..., :rank, None])[..., 0] + fn.cov_diag.sqrt() * z[..., rank:]
    return None


def _noise_like(like: Tensor, shape: Size) -> Tensor | None:
    count, dim = shape[0], shape[1:].numel()
    if count % 2 or not 0 < dim <= MAX_BALANCED:
        return None
    seed = int(torch.randint(2**31, ()))
    return balanced_normals(count, dim, seed).to(like).reshape(shape)
