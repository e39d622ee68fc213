"""Checks of options and data, and simulated data, of the linear Gaussian models."""

import torch
from torch import Tensor

from .._shared.blocks import Blocks


def check(name: str, latent_dim: int, num_features: int, prior_scale: float = 1.0) -> None:
    """Raise ValueError for options impossible with so many columns; the sentence begins with ``name``."""
    if not 1 <= latent_dim < num_features:
        raise ValueError(
            f"{name}: latent_dim must lie between 1 and one less than the number of columns, {num_features}; "
            f"got {latent_dim}"
        )
    if not prior_scale > 0:
        raise ValueError(f"{name}: prior_scale must be positive, got {prior_scale}")


def check_columns(x: Tensor | Blocks) -> None:
    """Raise ValueError for a constant column, whose own noise variance would run to zero.

    For the start of a fit: a batch of rows may well have a constant column.
    """
    parts = [x] if isinstance(x, Tensor) else x.split(1024)
    first, constant = None, torch.tensor(True)
    for part in parts:
        first = part[0] if first is None else first
        constant = constant.to(part.device) & (part == first).all(0)
    if constant.any():
        raise ValueError(f"factor_analysis: column {int(constant.nonzero()[0])} is constant: leave it out")


def checked_size(
    name: str, x: Tensor | None, latent_dim: int, rows: int | None, columns: int | None, prior_scale: float = 1.0
) -> tuple[int, int]:
    """Return the size of the data, given or to be drawn; ValueError if it is unknown, or for impossible options."""
    if x is not None:
        rows, columns = x.shape
    if rows is None or columns is None:
        raise ValueError(f"{name}: to draw data, give num_rows= and num_features=")
    check(name, latent_dim, columns, prior_scale)
    return rows, columns


def simulate(
    num_rows: int, latent_dim: int, num_features: int, seed: int, *, shared_noise: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return rows and the random parameters behind them; see `ppca.simulate`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    W, loc, z = normal(num_features, latent_dim), normal(num_features), normal(num_rows, latent_dim)
    noise = 0.1 + 0.9 * torch.rand([] if shared_noise else [num_features], generator=generator, dtype=torch.float64)
    x = loc + z @ W.mT + noise.sqrt() * normal(num_rows, num_features)
    return x, {"W": W, "loc": loc, "noise_variance": noise, "z": z}
