"""Affine coordinates in which a posterior has about unit scale: x = centre + root @ z."""

from typing import NamedTuple

import torch
from torch import Tensor


class Coordinates(NamedTuple):
    """A normal distribution N(centre, root rootᵀ), and the map to it from the standard normal.

    ``root`` is a lower triangle, (d, d), or a diagonal, (d), scaled along a few directions: diag(scale) (I + V F Vᵀ).
    """

    centre: Tensor  # (d)
    root: Tensor  # (d, d), or (d)
    directions: Tensor | None = None  # V, (d, rank), orthonormal
    factors: Tensor | None = None  # the diagonal of F, (rank)

    @property
    def is_dense(self) -> bool:
        """Whether the root is a matrix."""
        return self.root.dim() == 2

    @property
    def log_det(self) -> Tensor:
        """Logarithm of the root's determinant."""
        if self.is_dense:
            return self.root.diagonal().log().sum()
        bent = torch.log1p(self.factors).sum() if self.factors is not None else 0.0
        return self.root.log().sum() + bent

    @property
    def sds(self) -> Tensor:
        """Standard deviations, (d)."""
        if self.is_dense:
            return self.root.square().sum(1).sqrt()
        if self.directions is None or self.factors is None:
            return self.root
        return self.root * (1 + self.directions.square() @ ((1 + self.factors).square() - 1)).clamp(min=0).sqrt()

    def points(self, z: Tensor) -> Tensor:
        """Return x at z, (n, d)."""
        return self.centre + self.steps(z)

    def steps(self, z: Tensor) -> Tensor:
        """Return root @ z for each of z, (n, d)."""
        return z @ self.root.mT if self.is_dense else self._bent(z) * self.root

    def pulled(self, gradients: Tensor) -> Tensor:
        """Return gradients with respect to z from those with respect to x, (n, d)."""
        return gradients @ self.root if self.is_dense else self._bent(gradients * self.root)

    def _bent(self, z: Tensor) -> Tensor:
        if self.directions is None or self.factors is None:
            return z
        return z + (z @ self.directions * self.factors) @ self.directions.mT
