"""Eight schools, not centred, as a Pyro model: Rubin (1981); Gelman et al., Bayesian Data Analysis, section 5.5."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

EFFECT = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=torch.float64)
ERROR = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=torch.float64)


def eight_schools(error: Tensor, effect: Tensor | None = None) -> None:
    zero = error.new_zeros(())
    mu = pyro.sample("mu", dist.Normal(zero, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(zero + 5.0))
    with pyro.plate("schools", len(error)):
        z = pyro.sample("z", dist.Normal(zero, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("effect", dist.Normal(theta, error), obs=effect)


def identify(draws: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: draws[name] for name in ("mu", "tau", "theta")}
