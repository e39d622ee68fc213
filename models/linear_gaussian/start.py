"""Where fits of a linear Gaussian model start: at principal axes, or at small random loadings."""

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.inputs import check_spread
from .data import check_columns

LEAST_NOISE = 0.01  # smallest initial noise variance, as a share of its column's variance


def qr_compress(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "r d"]]:
    """Return the mean row, and at most d rows with the same squares and products as the rows about their mean.

    The latter are the triangular factor of a QR decomposition, taken chunk by chunk; d rows or fewer are only centred.
    """
    rows, columns = x.shape
    mean = x.mean(0)
    if rows <= columns:
        return mean, x - mean
    factor = x.new_zeros(0, columns)
    for part in x.split(32 * columns):
        factor = torch.linalg.qr(torch.cat([factor, part - mean]), mode="r").R
    return mean, factor


def principal_axes(x: Float[Tensor, "n d"], latent_dim: int, scale: Tensor | float = 1.0) -> dict[str, Tensor]:
    """Return the maximum likelihood of probabilistic PCA on x / ``scale``: Tipping and Bishop (1999), section 3.2.

    ``W`` (d, q) has eigenvectors of the covariance (1/n), each times (λ[j] - σ²)^½; ``loc`` (d) is x's mean;
    ``noise_variance`` σ², the mean of the d - q smallest eigenvalues; and ``eigenvalues`` (d) come largest first.
    """
    rows, columns = x.shape
    loc, rest = qr_compress(x)
    _, singular, axes = torch.linalg.svd(rest / scale, full_matrices=False)
    eigenvalues = torch.cat([singular.square() / rows, x.new_zeros(columns - len(singular))])
    noise = eigenvalues[latent_dim:].mean()
    W = x.new_zeros(columns, latent_dim)
    length = (eigenvalues[:latent_dim] - noise).clamp(min=0).sqrt()
    W[:, : len(axes)] = axes[:latent_dim].mT * length[: len(axes)]
    return {"W": W, "loc": loc, "noise_variance": noise, "eigenvalues": eigenvalues}


def starting_sites(x: Float[Tensor, "n d"], latent_dim: int, *, shared_noise: bool) -> dict[str, Tensor]:
    """Return the principal axes, of standardised columns unless the noise is shared, as values of the global sites.

    A noise variance starts at a hundredth of its column's variance or more. Raises ValueError for a constant column,
    unless the noise is shared.
    """
    check_spread("ppca" if shared_noise else "factor_analysis", x)
    variance = x.var(0, correction=0)
    if shared_noise:
        found = principal_axes(x, latent_dim)
        noise = found["noise_variance"].clamp(min=LEAST_NOISE * float(variance.mean()))
        return {"W": found["W"], "loc": found["loc"], "noise_variance": noise}
    check_columns(x)
    sd = variance.sqrt()
    found = principal_axes(x, latent_dim, sd)
    noise = variance * (1 - found["W"].square().sum(1)).clamp(min=LEAST_NOISE)
    return {"W": found["W"] * sd[:, None], "loc": found["loc"], "noise_variance": noise}


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
