"""Where fits of a linear Gaussian model start: at principal axes, or at small random loadings."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.blocks import Blocks
from .._shared.inputs import check_spread
from .data import check_columns

LEAST_NOISE = 0.01  # smallest initial noise variance, as a share of its column's variance


def qr_compress(
    x: Float[Tensor, "n d"] | Blocks, row_weights: Float[Tensor, " n"] | None = None
) -> tuple[Float[Tensor, " d"], Float[Tensor, "r d"]]:
    """Return the mean row, and at most d rows with the same squares and products as the rows about their mean.

    ``row_weights`` say how many times each row counts; default: once.

    The latter are the triangular factor of a QR decomposition, taken chunk by chunk; d rows or fewer are only centred.
    `Blocks` are read twice, and computed with in float64.
    """
    rows, columns = x.shape
    if not isinstance(x, Tensor):
        if row_weights is not None:
            raise ValueError("em: weights of rows need all rows in memory, and these come in blocks")
        mean = torch.stack([part.double().sum(0) for part in x.split(32 * columns)]).sum(0) / rows
        return mean, _triangular((part.double() - mean for part in x.split(32 * columns)), mean)
    mean = x.mean(0) if row_weights is None else row_weights @ x / row_weights.sum()
    if rows <= columns:
        return mean, x - mean if row_weights is None else row_weights.sqrt()[:, None] * (x - mean)
    times = None if row_weights is None else row_weights.sqrt()[:, None]
    parts = (slice(start, start + 32 * columns) for start in range(0, rows, 32 * columns))
    centred = (x[part] - mean if times is None else times[part] * (x[part] - mean) for part in parts)
    return mean, _triangular(centred, mean)


def _triangular(parts: Iterable[Tensor], mean: Tensor) -> Tensor:
    """Return the triangular factor of a QR decomposition of rows about their mean."""
    factor = mean.new_zeros(0, len(mean))
    for part in parts:
        factor = torch.linalg.qr(torch.cat([factor, part]), mode="r").R
    return factor


def principal_axes(
    x: Float[Tensor, "n d"],
    latent_dim: int,
    scale: Tensor | float = 1.0,
    row_weights: Float[Tensor, " n"] | None = None,
) -> dict[str, Tensor]:
    """Return the maximum likelihood of probabilistic PCA on x / ``scale``: Tipping and Bishop (1999), section 3.2.

    ``W`` (d, q) has eigenvectors of the covariance (1/n), each times (λ[j] - σ²)^½; ``loc`` (d) is x's mean;
    ``noise_variance`` σ², the mean of the d - q smallest eigenvalues; and ``eigenvalues`` (d) come largest first.
    ``row_weights`` as for `qr_compress`.
    """
    loc, rest = qr_compress(x, row_weights)
    total = float(len(x) if row_weights is None else row_weights.sum())
    return {"loc": loc} | _axes(rest / scale, total, latent_dim)


def starting_sites(x: Float[Tensor, "n d"], latent_dim: int, *, shared_noise: bool) -> dict[str, Tensor]:
    """Return the principal axes, of standardised columns unless the noise is shared, as values of the global sites.

    A noise variance starts at a hundredth of its column's variance or more. Raises ValueError for a constant column,
    unless the noise is shared.
    """
    check_spread("ppca" if shared_noise else "factor_analysis", x)
    if not shared_noise:
        check_columns(x)
    return starting_sites_of(*qr_compress(x), float(len(x)), latent_dim, shared_noise=shared_noise)


def starting_sites_of(
    loc: Float[Tensor, " d"], rest: Float[Tensor, "r d"], total: float, latent_dim: int, *, shared_noise: bool
) -> dict[str, Tensor]:
    """Return `starting_sites` of ``total`` rows that `qr_compress` made into a mean row and some rows about it."""
    variance = rest.square().sum(0) / total
    if shared_noise:
        found = _axes(rest, total, latent_dim)
        noise = found["noise_variance"].clamp(min=LEAST_NOISE * float(variance.mean()))
        return {"W": found["W"], "loc": loc, "noise_variance": noise}
    sd = variance.sqrt()
    W = _axes(rest / sd, total, latent_dim)["W"]
    noise = variance * (1 - W.square().sum(1)).clamp(min=LEAST_NOISE)
    return {"W": W * sd[:, None], "loc": loc, "noise_variance": noise}


def _axes(rest: Tensor, total: float, latent_dim: int) -> dict[str, Tensor]:
    """`principal_axes` of rows about their mean, but for the mean."""
    columns = rest.shape[1]
    _, singular, axes = torch.linalg.svd(rest, full_matrices=False)
    eigenvalues = torch.cat([singular.square() / total, rest.new_zeros(columns - len(singular))])
    noise = eigenvalues[latent_dim:].mean()
    W = rest.new_zeros(columns, latent_dim)
    length = (eigenvalues[:latent_dim] - noise).clamp(min=0).sqrt()
    W[:, : len(axes)] = axes[:latent_dim].mT * length[: len(axes)]
    return {"W": W, "noise_variance": noise, "eigenvalues": eigenvalues}


def rough_start(x: Tensor | None, num_features: int, latent_dim: int, *, shared_noise: bool) -> dict[str, Tensor]:
    """Return small random loadings with the data's mean and variances (0 and 1 without data).

    Raises ValueError for a constant column, unless the noise is shared.
    """
    if x is None:
        loc, variance = torch.zeros(num_features), torch.ones(num_features)
    else:
        if not shared_noise:
            check_columns(x)
        loc, variance = x.mean(0), x.var(0, correction=0)
    W = 0.1 * variance.sqrt().unsqueeze(-1) * torch.randn(num_features, latent_dim).to(loc)
    return {"W": W, "loc": loc, "noise_variance": variance.mean() if shared_noise else variance}
