"""Where fits of a linear Gaussian model start: at principal axes, or at small random loadings."""

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.inputs import check_spread
from .compress import compress
from .data import check_columns

LEAST_NOISE = 0.01  # smallest initial noise variance, as a share of its column's variance


def principal_axes(
    x: Float[Tensor, "n d"], latent_dim: int, row_weights: Float[Tensor, " n"] | None = None
) -> dict[str, Tensor]:
    """Return the maximum likelihood of probabilistic PCA: Tipping and Bishop (1999), section 3.2.

    ``W`` (d, q) has eigenvectors of the covariance (1/n), each times (λ[j] - σ²)^½; ``loc`` (d) is x's mean;
    ``noise_variance`` σ², the mean of the d - q smallest eigenvalues; and ``eigenvalues`` (d) come largest first.
    They are computed in float64, and returned in the dtype of ``x``. ``row_weights`` as for `compress`. Raises
    ValueError for a column whose variance leaves the range of that dtype.
    """
    loc, rest = compress(x, row_weights)
    total = float(len(x) if row_weights is None else row_weights.sum())
    check_spread("ppca", x, rest.square().sum(0) / total)
    return {name: value.to(x.dtype) for name, value in ({"loc": loc} | _axes(rest, total, latent_dim)).items()}


def starting_sites(x: Float[Tensor, "n d"], latent_dim: int, *, shared_noise: bool) -> dict[str, Tensor]:
    """Return the principal axes, of standardised columns unless the noise is shared, as values of the global sites.

    A noise variance starts at a hundredth of its column's variance or more. Raises ValueError for a constant column,
    unless the noise is shared.
    """
    loc, rest = compress(x)
    check_spread("ppca" if shared_noise else "factor_analysis", x, rest.square().sum(0) / len(x))
    if not shared_noise:
        check_columns(x)
    sites = starting_sites_of(loc, rest, float(len(x)), latent_dim, shared_noise=shared_noise)
    return {name: value.to(x.dtype) for name, value in sites.items()}


def starting_sites_of(
    loc: Float[Tensor, " d"], rest: Float[Tensor, "r d"], total: float, latent_dim: int, *, shared_noise: bool
) -> dict[str, Tensor]:
    """Return `starting_sites` of ``total`` rows that `compress` made into a mean row and some rows about it."""
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
