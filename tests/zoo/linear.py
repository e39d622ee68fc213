"""A model with a posterior in closed form: linear regression with known noise, for tests of any method."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

NOISE = 0.5


def model(x: Tensor, y: Tensor | None = None) -> None:
    """w ~ Normal(0, 1), y ~ Normal(x w, NOISE²); tolerates a batch of draws on the left."""
    w = pyro.sample("w", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))
    pyro.deterministic("total", w.sum(-1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((x * w).sum(-1), NOISE), obs=y)


def data(rows: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two strongly correlated columns and one of its own."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    x[:, 1] = 0.8 * x[:, 0] + 0.6 * x[:, 1]
    noise = torch.randn(rows, generator=generator, dtype=torch.float64)
    return x, x @ torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64) + NOISE * noise


def posterior(x: Tensor, y: Tensor) -> MultivariateNormal:
    """The exact posterior, Bishop (2006), equations 3.53 and 3.54."""
    precision = torch.eye(x.shape[1], dtype=x.dtype) + x.mT @ x / NOISE**2
    covariance = torch.linalg.inv(precision)
    return MultivariateNormal(covariance @ x.mT @ y / NOISE**2, covariance)


def log_evidence(x: Tensor, y: Tensor) -> float:
    """The exact log p(y | x): y is normal with covariance x xᵀ + NOISE² I."""
    covariance = x @ x.mT + NOISE**2 * torch.eye(len(x), dtype=x.dtype)
    return float(MultivariateNormal(torch.zeros(len(x), dtype=x.dtype), covariance).log_prob(y))
