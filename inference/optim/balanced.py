"""Standard normal draws that stay fixed: scrambled Sobol points, each with its mirror image, moments matched.

Owen (1997), Scrambled net variance for integrals of smooth functions, Annals of Statistics 25; Buchholz, Wenzel and
Mandt (2018), Quasi-Monte Carlo variational inference, ICML.
"""

import torch
from torch import Tensor

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
