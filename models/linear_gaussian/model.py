"""Priors of the linear Gaussian models, where fits of them start, the checks of their options, and simulated data."""

from typing import NamedTuple

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.poutine.runtime import InferDict
from torch import Tensor

LOC_SCALE = 10.0  # prior standard deviation of loc, in units of that of W
NOISE_SHAPE = 1.0  # of the inverse gamma prior of a noise variance
NOISE_SCALE = 0.1  # likewise, in units of prior_scale²
LEAST_NOISE = 0.01  # share of a column's variance that a noise variance starts with at least


class Prior(NamedTuple):
    """Distributions of the global sites, by the sites' names."""

    W: dist.TorchDistribution
    loc: dist.TorchDistribution
    noise_variance: dist.TorchDistribution


def default_prior(like: Tensor, *, num_features: int, latent_dim: int, prior_scale: float, shared_noise: bool) -> Prior:
    """Weak prior for standardised data, in the dtype and on the device of ``like``.

    With s the ``prior_scale``: W[i, j] ~ Normal(0, s²), loc[i] ~ Normal(0, (10 s)²) and every noise variance
    ~ InverseGamma(1, s² / 10). The last is conjugate, and its density vanishes at zero faster than any power, so that
    a variance of zero is never the mode.
    """
    zero = like.new_zeros(())
    noise = dist.InverseGamma(zero + NOISE_SHAPE, zero + NOISE_SCALE * prior_scale**2)
    return Prior(
        dist.Normal(zero, prior_scale).expand_by([num_features, latent_dim]).to_event(2),
        dist.Normal(zero, LOC_SCALE * prior_scale).expand_by([num_features]).to_event(1),
        noise if shared_noise else noise.expand_by([num_features]).to_event(1),
    )


def check(name: str, latent_dim: int, num_features: int, prior_scale: float = 1.0) -> None:
    """Raise ValueError for options that no model of so many columns can have; ``name`` begins the sentence."""
    if not 1 <= latent_dim < num_features:
        raise ValueError(
            f"{name}: latent_dim must lie between 1 and one less than the number of columns, {num_features}; "
            f"got {latent_dim}"
        )
    if not prior_scale > 0:
        raise ValueError(f"{name}: prior_scale must be positive, got {prior_scale}")


def check_columns(name: str, x: Tensor) -> None:
    """Raise ValueError for a column that a noise variance of its own would fit without bound.

    Called where a fit starts, as a batch of rows may well have a constant column.
    """
    constant = (x == x[0]).all(0)
    if constant.any():
        raise ValueError(f"{name}: column {int(constant.nonzero()[0])} is constant: leave it out")


def rows_and_columns(name: str, x: Tensor | None, num_rows: int | None, num_features: int | None) -> tuple[int, int]:
    """Size of the data, given or to be drawn; ValueError where neither says."""
    if x is not None:
        return x.shape[0], x.shape[1]
    if num_rows is None or num_features is None:
        raise ValueError(f"{name}: to draw data, give num_rows= and num_features=")
    return num_rows, num_features


def triangle(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "r d"]]:
    """Mean of the rows, and at most d rows that have the same squares and products as the rows about their mean.

    They are the triangular factor of a QR decomposition, a chunk of rows after the other; of d rows or fewer, the
    centred rows themselves.
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
    """Maximum likelihood of probabilistic PCA, of columns over ``scale``: Tipping and Bishop (1999), section 3.2.

    Returns
    -------
    dict
        ``W`` (d, q): eigenvectors of the covariance (1/n), each times (λ[j] - σ²)^½; ``loc`` (d): x's mean;
        ``noise_variance``: σ², the mean of the d - q smallest eigenvalues; and ``eigenvalues`` (d), largest first.
    """
    rows, columns = x.shape
    loc, rest = triangle(x)
    _, singular, axes = torch.linalg.svd(rest / scale, full_matrices=False)
    eigenvalues = torch.cat([singular.square() / rows, x.new_zeros(columns - len(singular))])
    noise = eigenvalues[latent_dim:].mean()
    W = x.new_zeros(columns, latent_dim)
    length = (eigenvalues[:latent_dim] - noise).clamp(min=0).sqrt()
    W[:, : len(axes)] = axes[:latent_dim].mT * length[: len(axes)]
    return {"W": W, "loc": loc, "noise_variance": noise, "eigenvalues": eigenvalues}


def starting_sites(name: str, x: Float[Tensor, "n d"], latent_dim: int, *, shared_noise: bool) -> dict[str, Tensor]:
    """Where a fit to data may start: the principal axes, of standardised columns where each has a noise variance.

    A noise variance starts at a hundredth of the column's variance or more. Raises ValueError for a constant column,
    unless the noise is shared.
    """
    if not shared_noise:
        check_columns(name, x)
    variance = x.var(0, correction=0)
    sd = torch.ones_like(variance) if shared_noise else variance.sqrt()
    found = principal_axes(x, latent_dim, sd)
    if shared_noise:
        noise = found["noise_variance"].clamp(min=LEAST_NOISE * float(variance.mean()))
    else:
        noise = variance * (1 - found["W"].square().sum(1)).clamp(min=LEAST_NOISE)
    return {"W": found["W"] * sd[:, None], "loc": found["loc"], "noise_variance": noise}


def start_at(name: str, site: str, x: Tensor | None, latent_dim: int, *, shared_noise: bool) -> InferDict:
    """`starting_sites` as a site's ``infer``, worked out only where a fit asks for it."""
    if x is None:
        return {}
    start = {"init": lambda: starting_sites(name, x, latent_dim, shared_noise=shared_noise)[site]}
    return start  # pyright: ignore[reportReturnType] (Pyro passes keys on that InferDict does not list)


def rough_start(
    name: str, x: Tensor | None, *, num_features: int, latent_dim: int, shared_noise: bool
) -> dict[str, Tensor]:
    """Where the parameters of a latent model start: small random loadings, the data's mean and variances.

    Zero and one stand for mean and variance where there are no data. Raises ValueError for a constant column, unless
    the noise is shared.
    """
    if x is None:
        loc, variance = torch.zeros(num_features), torch.ones(num_features)
    else:
        if not shared_noise:
            check_columns(name, x)
        loc, variance = x.mean(0), x.var(0, correction=0)
    W = 0.1 * variance.sqrt().unsqueeze(-1) * torch.randn(num_features, latent_dim).to(loc)
    return {"W": W, "loc": loc, "noise_variance": variance.mean() if shared_noise else variance}


def simulate(
    num_rows: int, *, latent_dim: int, num_features: int, seed: int, shared_noise: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows from random parameters, float64: W and loc standard normal, noise variances uniform in (.1, 1).

    Returns
    -------
    x : Tensor, shape (num_rows, num_features)
    truth : dict
        ``W``, ``loc``, ``noise_variance`` and ``z`` (num_rows, latent_dim), the factors of each row.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    W, loc, z = normal(num_features, latent_dim), normal(num_features), normal(num_rows, latent_dim)
    shape = [] if shared_noise else [num_features]
    noise = 0.1 + 0.9 * torch.rand(shape, generator=generator, dtype=torch.float64)
    x = loc + z @ W.mT + noise.sqrt() * normal(num_rows, num_features)
    return x, {"W": W, "loc": loc, "noise_variance": noise, "z": z}
