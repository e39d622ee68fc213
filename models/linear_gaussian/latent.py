"""The Pyro model that `ppca` and `factor_analysis` share: with each row's factors as a site."""

from functools import cache, partial

import pyro
import pyro.distributions as dist
from torch import Tensor
from torch.distributions import constraints

from .._shared.inputs import rows_of
from .data import checked_size
from .start import rough_start


def latent_model(
    name: str, x: Tensor | None, latent_dim: int, num_rows: int | None, num_features: int | None, *, shared_noise: bool
) -> Tensor:
    """Draw or score rows, (n, d), with a site for each row's factors; see `ppca.latent_model`."""
    x = None if x is None else rows_of(name, x)
    n, d = checked_size(name, x, latent_dim, num_rows, num_features)
    start = cache(partial(rough_start, x, d, latent_dim, shared_noise=shared_noise))
    # Parameters.
    W = pyro.param("W", lambda: start()["W"])
    loc = pyro.param("loc", lambda: start()["loc"])
    noise_variance = pyro.param("noise_variance", lambda: start()["noise_variance"], constraint=constraints.positive)
    # Locals.
    with pyro.plate("rows", n):
        z = pyro.sample("z", dist.Normal(loc.new_zeros(()), 1.0).expand_by([latent_dim]).to_event(1))
        return pyro.sample("x", dist.Normal(loc + z @ W.mT, noise_variance.sqrt()).to_event(1), obs=x)
