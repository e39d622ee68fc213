"""A model with a latent variable a row and parameters of its own, whose likelihood is known exactly."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Normal, constraints


def model(x: Tensor) -> None:
    """z[n] ~ Normal(centre, spread²), x[n] ~ Normal(z[n], 1): x[n] ~ Normal(centre, spread² + 1)."""
    centre = pyro.param("centre", lambda: x.new_zeros(()))
    spread = pyro.param("spread", lambda: x.new_ones(()), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(centre, spread))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def encoder(x: Tensor) -> None:
    """The family that holds the exact posterior: z[n] ~ Normal(slope x[n] + shift, scale²)."""
    slope = pyro.param("slope", lambda: x.new_zeros(()))
    shift = pyro.param("shift", lambda: x.new_zeros(()))
    scale = pyro.param("scale", lambda: x.new_ones(()), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(slope * x + shift, scale))


def data(rows: int = 100) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 + 2.5 * torch.randn(rows, generator=generator, dtype=torch.float64)


def log_likelihood(centre: Tensor, spread: Tensor, x: Tensor) -> float:
    return float(Normal(centre, (spread**2 + 1).sqrt()).log_prob(x).sum())


def maximum(x: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum likelihood: the mean, and what of the variance exceeds one."""
    return x.mean(), (x.var(correction=0) - 1).sqrt()
