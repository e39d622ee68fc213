"""One posterior, y[n] ~ Normal(mu, 1) with mu ~ Normal(0, 10), in forms that take numbers out of the data.

Every function is a model of (y, group, whole), ``group`` all zeros and ``whole`` all true.
"""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor


def data(rows: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    y = 1 + torch.randn(rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return y, torch.zeros(rows, dtype=torch.int64), torch.ones(rows, dtype=torch.bool)


def posterior(y: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of mu, in closed form."""
    precision = len(y) + 1 / 100
    return float(y.sum() / precision), precision**-0.5


def checked(y: Tensor, group: Tensor, whole: Tensor) -> None:
    """Refuses bad data first."""
    if torch.isnan(y).any():
        raise ValueError("y has missing values")
    mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 10.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def counted_groups(y: Tensor, group: Tensor, whole: Tensor) -> None:
    """As many means as the labels say."""
    with pyro.plate("groups", int(group.max()) + 1):
        mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 10.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu[group], 1.0), obs=y)


def scaled_by_item(y: Tensor, group: Tensor, whole: Tensor) -> None:
    """A prior with a number of the data in it."""
    mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 10.0 * whole.double().mean().item()))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def counted_rows(y: Tensor, group: Tensor, whole: Tensor) -> None:
    """A plate over the rows that a mask leaves."""
    mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 10.0))
    with pyro.plate("rows", int(whole.sum())):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y[whole])


def one_by_one(y: Tensor, group: Tensor, whole: Tensor) -> None:
    """A plate in turn, with a branch on the data."""
    mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 10.0))
    for n in pyro.plate("rows", len(y)):
        if whole[n]:
            pyro.sample(f"y{n}", dist.Normal(mu, 1.0), obs=y[n])


IDIOMS: dict[str, Callable[[Tensor, Tensor, Tensor], None]] = {
    model.__name__: model for model in (checked, counted_groups, scaled_by_item, counted_rows, one_by_one)
}
