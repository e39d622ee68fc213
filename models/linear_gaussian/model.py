"""The Pyro models that `ppca` and `factor_analysis` share: with the factors integrated out, and with them as a site."""

from functools import cache, partial

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from .._shared.init import init
from .data import check
from .start import rough_start, starting_sites


def model(
    name: str,
    x: Tensor | None,
    latent_dim: int,
    prior_scale: float,
    num_rows: int | None,
    num_features: int | None,
    *,
    shared_noise: bool,
) -> Tensor:
    """Draw or score rows, (n, d), the factors integrated out; see `ppca.model` for the arguments."""
    n, d = _size(name, x, num_rows, num_features)
    check(name, latent_dim, d, prior_scale)
    zero = torch.zeros(()) if x is None else x.new_zeros(())
    start = init(None if x is None else partial(starting_sites, x, latent_dim, shared_noise=shared_noise))
    # Globals.
    W = pyro.sample("W", dist.Normal(zero, prior_scale).expand_by([d, latent_dim]).to_event(2), infer=start("W"))
    loc = pyro.sample("loc", dist.Normal(zero, 10 * prior_scale).expand_by([d]).to_event(1), infer=start("loc"))
    noise = dist.InverseGamma(zero + 1, prior_scale**2 / 10)
    noise = noise if shared_noise else noise.expand_by([d]).to_event(1)
    noise_variance = pyro.sample("noise_variance", noise, infer=start("noise_variance"))
    # Locals.
    diagonal = noise_variance.unsqueeze(-1).expand(*noise_variance.shape, d) if shared_noise else noise_variance
    with pyro.plate("rows", n):
        return pyro.sample("x", dist.LowRankMultivariateNormal(loc, W, diagonal), obs=x)


def latent_model(
    name: str, x: Tensor | None, latent_dim: int, num_rows: int | None, num_features: int | None, *, shared_noise: bool
) -> Tensor:
    """Draw or score rows, (n, d), with a site for each row's factors; see `ppca.latent_model`."""
    n, d = _size(name, x, num_rows, num_features)
    check(name, latent_dim, d)
    start = cache(partial(rough_start, x, d, latent_dim, shared_noise=shared_noise))
    # Parameters.
    W = pyro.param("W", lambda: start()["W"])
    loc = pyro.param("loc", lambda: start()["loc"])
    noise_variance = pyro.param("noise_variance", lambda: start()["noise_variance"], constraint=constraints.positive)
    # Locals.
    with pyro.plate("rows", n):
        z = pyro.sample("z", dist.Normal(loc.new_zeros(()), 1.0).expand_by([latent_dim]).to_event(1))
        return pyro.sample("x", dist.Normal(loc + z @ W.mT, noise_variance.sqrt()).to_event(1), obs=x)


def _size(name: str, x: Tensor | None, num_rows: int | None, num_features: int | None) -> tuple[int, int]:
    if x is not None:
        return x.shape[0], x.shape[1]
    if num_rows is None or num_features is None:
        raise ValueError(f"{name}: to draw data, give num_rows= and num_features=")
    return num_rows, num_features
