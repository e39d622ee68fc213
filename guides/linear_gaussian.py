"""Guides that probabilistic PCA and factor analysis share, for the factors of a latent model and for global sites.

Tipping and Bishop (1999), Probabilistic principal component analysis, JRSS B 61, section 3.1; Kingma and Welling
(2014), Auto-encoding variational Bayes, ICLR.
"""

from functools import cache

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ..models._shared.inputs import rows_of
from ..models.linear_gaussian import starting_sites


def linear_encoder(x: Tensor, *, latent_dim: int = 2) -> None:
    """z[n] ~ Normal(A (x[n] - b), L Lᵀ), A, b and L shared by all rows: exact once trained, as the posterior is linear.

    Parameters
    ----------
    x : Tensor, shape (n, d)
        All rows, or a batch of them.
    latent_dim : int
        q, as given to the model.
    """
    x = rows_of("linear_encoder", x)
    weight = pyro.param("encoder.weight", lambda: _small(latent_dim, x.shape[1], like=x) / _spread(x))
    centre = pyro.param("encoder.centre", lambda: x.mean(0))
    scale = pyro.param("encoder.scale_tril", lambda: torch.eye(latent_dim).to(x), constraint=constraints.lower_cholesky)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.MultivariateNormal((x - centre) @ weight.mT, scale_tril=scale))


def factors(x: Tensor, *, latent_dim: int = 2) -> None:
    """z[n, j] ~ Normal(loc[n, j], scale[n, j]²), with its own location and scale per factor and row: no encoder.

    For a linear model nothing is lost by the independence: the loadings can turn until the factors are independent
    given the data.

    Parameters
    ----------
    x : Tensor, shape (n, d)
        All rows: the parameters of a batch would be unknown.
    latent_dim : int
        q, as given to the model.

    Raises
    ------
    ValueError
        If the number of rows has changed since the first call.
    """
    x = rows_of("factors", x)
    loc = pyro.param("factors.loc", lambda: _small(len(x), latent_dim, like=x))
    scale = pyro.param("factors.scale", lambda: x.new_ones(len(x), latent_dim), constraint=constraints.positive)
    if len(loc) != len(x):
        raise ValueError(
            f"factors: the guide has parameters for {len(loc)} rows and was given {len(x)}: "
            "fit all rows at once, or take an encoder"
        )
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def mean_field(x: Tensor, latent_dim: int, *, shared_noise: bool) -> None:
    """Independent normals for loadings and means, log-normals for noise variances: one for all columns, or one each.

    Locations start at principal axes, to give the loadings a direction to settle in, and scales at those of a
    regression on known factors.
    """
    start = cache(lambda: _starts(x, latent_dim, shared_noise))

    def param(name: str) -> Tensor:
        constraint = constraints.positive if name.endswith("scale") else constraints.real
        return pyro.param(name, lambda: start()[name], constraint=constraint)

    pyro.sample("W", dist.Normal(param("W.mean"), param("W.scale")).to_event(2))
    pyro.sample("loc", dist.Normal(param("loc.mean"), param("loc.scale")).to_event(1))
    noise = dist.LogNormal(param("noise_variance.log_mean"), param("noise_variance.log_scale"))
    pyro.sample("noise_variance", noise if shared_noise else noise.to_event(1))


def _starts(x: Tensor, latent_dim: int, shared_noise: bool) -> dict[str, Tensor]:
    x = rows_of("mean_field", x)
    rows, columns = x.shape
    sites = starting_sites(x, latent_dim, shared_noise=shared_noise)
    W, noise = sites["W"], sites["noise_variance"]
    count = rows * columns if shared_noise else rows
    return {
        "W.mean": W,
        "W.scale": (noise / rows).sqrt().unsqueeze(-1).expand_as(W),
        "loc.mean": sites["loc"],
        "loc.scale": ((W.square().sum(1) + noise) / rows).sqrt(),
        "noise_variance.log_mean": noise.log(),
        "noise_variance.log_scale": torch.full_like(noise, (2 / count) ** 0.5),
    }


def _spread(x: Tensor) -> Tensor:
    """Standard deviation of every column, one for a constant column."""
    sd = x.std(0, correction=0)
    return torch.where(sd > 0, sd, 1)


def _small(*shape: int, like: Tensor) -> Tensor:
    return 0.1 * torch.randn(*shape, dtype=like.dtype, device=like.device)
