"""Models that an engine may stumble over: a Python branch on a draw, and discrete sites."""

import pyro
import pyro.distributions as dist
import torch


def branching(x: torch.Tensor, y: torch.Tensor | None = None) -> None:
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
    slope = w if w.item() > 0 else 2 * w
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(slope * x[:, 0], 1.0), obs=y)


def two_component(x: torch.Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(x.new_tensor([-2.0, 2.0]), 0.5).to_event(1))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(x.new_tensor([0.5, 0.5])))
        pyro.sample("x", dist.Normal(loc[..., z], 1.0), obs=x)


def summed_out(x: torch.Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(x.new_tensor([-2.0, 2.0]), 0.5).to_event(1))
    with pyro.plate("rows", len(x)):
        mixing = dist.Categorical(x.new_tensor([0.5, 0.5]))
        pyro.sample("x", dist.MixtureSameFamily(mixing, dist.Normal(loc, 1.0)), obs=x)
