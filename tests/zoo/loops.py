"""Models with a Python loop over time, as a user would write them: recorded, they are thousands of operations."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import config_enumerate
from torch import Tensor

F8 = torch.float64


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=F8)


def autoregressive(y: Tensor) -> None:
    """y_t ~ Normal(a + b y_{t-1}, 0.5²): steps that do not depend on each other."""
    a = pyro.sample("a", dist.Normal(number(0.0), 1.0))
    b = pyro.sample("b", dist.Normal(number(0.0), 1.0))
    for t in range(1, len(y)):
        pyro.sample(f"y_{t}", dist.Normal(a + b * y[t - 1], 0.5), obs=y[t])


def moving_average(y: Tensor) -> None:
    """ARMA(1, 1) with a seasonal term: errors of one step before and of four."""
    mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
    phi, theta, season = (pyro.sample(name, dist.Uniform(number(-1.0), 1.0)) for name in ("phi", "theta", "season"))
    sigma = pyro.sample("sigma", dist.HalfCauchy(number(2.5)))
    errors = [number(0.0)] * 4
    for t in range(1, len(y)):
        errors.append(y[t] - (mu + phi * y[t - 1] + theta * errors[-1] + season * errors[-4]))
        pyro.sample(f"error_{t}", dist.Normal(0.0, sigma), obs=errors[-1])


def garch(y: Tensor) -> None:
    """Volatility by a recursion; likelihood by a plate."""
    base = pyro.sample("base", dist.HalfNormal(number(5.0)))
    news, share = (pyro.sample(name, dist.Uniform(number(0.0), 1.0)) for name in ("news", "share"))
    sigma = [number(1.0)]
    for t in range(1, len(y)):
        sigma.append(torch.sqrt(base + news * y[t - 1] ** 2 + share * (1 - news) * sigma[-1] ** 2))
    with pyro.plate("time", len(y)):
        pyro.sample("y", dist.Normal(0.0, torch.stack(sigma)), obs=y)


def walk(y: Tensor) -> None:
    """x_t ~ Normal(x_{t-1}, 0.3²), y_t ~ Normal(x_t, 0.5²): a latent site for each step."""
    x = number(0.0)
    for t in range(len(y)):
        x = pyro.sample(f"x_{t}", dist.Normal(x, 0.3))
        pyro.sample(f"y_{t}", dist.Normal(x, 0.5), obs=y[t])


def gamma_walk(y: Tensor) -> None:
    """Two latent sites a step, both with a transform."""
    x = number(1.0)
    for t in range(len(y)):
        x = pyro.sample(f"x_{t}", dist.Gamma(2.0, 2.0 / (x + 0.1)))
        share = pyro.sample(f"share_{t}", dist.Beta(number(2.0), 2.0))
        pyro.sample(f"y_{t}", dist.Normal(share * x, 1.0), obs=y[t])


def hidden_markov(y: Tensor) -> None:
    """The forward algorithm, written out."""
    rows = pyro.sample("rows", dist.Dirichlet(torch.ones(3, 3, dtype=F8)).to_event(1))
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-2.0, 0.0, 2.0], dtype=F8), 0.5).to_event(1))
    emission = dist.Normal(loc, 1.0).log_prob(y.unsqueeze(-1))
    forward = emission[0]
    for row in emission[1:]:
        forward = torch.logsumexp(forward.unsqueeze(-1) + rows.log(), 0) + row
    pyro.factor("likelihood", torch.logsumexp(forward, 0))


@config_enumerate
def enumerated(y: Tensor) -> None:
    """Two states that stay with probability ``stay``; Pyro sums them out."""
    stay = pyro.sample("stay", dist.Beta(number(2.0), 2.0))
    rows = torch.stack([torch.stack([stay, 1 - stay]), torch.stack([1 - stay, stay])])
    z = torch.tensor(0)
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Categorical(rows[z]))
        pyro.sample(f"y_{t}", dist.Normal(torch.tensor([-1.0, 1.0], dtype=F8)[z], 1.0), obs=y[t])


def enumerated_log_likelihood(stay: Tensor, y: Tensor) -> Tensor:
    """log p(y | stay) of `enumerated`, by the forward algorithm, for any number of values of ``stay``."""
    move = torch.stack([torch.stack([stay, 1 - stay], -1), torch.stack([1 - stay, stay], -1)], -2)
    forward = move[..., 0, :].log()
    for t, value in enumerate(y):
        emission = dist.Normal(torch.tensor([-1.0, 1.0], dtype=F8), 1.0).log_prob(value)
        step = forward if t == 0 else torch.logsumexp(forward[..., None] + move.log(), -2)
        forward = step + emission
    return torch.logsumexp(forward, -1)


def predator_and_prey(y: Tensor) -> None:
    """Lotka–Volterra equations by Runge–Kutta steps: a large body, whose steps differ in nothing but the state."""
    rate = pyro.sample("rate", dist.LogNormal(torch.tensor([0.0, -1.0, 0.0, -1.0], dtype=F8), 0.3).to_event(1))
    state = pyro.sample("start", dist.LogNormal(torch.zeros(2, dtype=F8), 0.5).to_event(1))

    def slope(state: Tensor) -> Tensor:
        met = state[0] * state[1]
        return torch.stack([rate[0] * state[0] - rate[1] * met, rate[3] * met - rate[2] * state[1]])

    states = []
    for _ in range(10 * len(y)):
        one = slope(state)
        two = slope(state + 0.05 * one)
        three = slope(state + 0.05 * two)
        state = state + 0.1 / 6 * (one + 2 * two + 2 * three + slope(state + 0.1 * three))
        states.append(state)
    pyro.sample("y", dist.LogNormal(torch.stack(states)[9::10].log(), 0.1).to_event(2), obs=y)


def trend(y: Tensor) -> None:
    """Numbers that are no tensors, and two totals that are summed in turn."""
    a, b = (pyro.sample(name, dist.Normal(number(0.0), 1.0)) for name in "ab")
    for t in range(len(y)):
        pyro.sample(f"y_{t}", dist.Normal(a + b * (t / 50) - t * 0.01, 1.0), obs=y[t])
        pyro.sample(f"again_{t}", dist.Normal(b * y[t], 1.0), obs=y[t])


def filtered(y: Tensor) -> None:
    """A Kalman filter with two hidden dimensions: products of matrices and solutions of equations in the body."""
    phi = pyro.sample("phi", dist.Normal(number(0.0), 0.5))
    noise = pyro.sample("noise", dist.HalfNormal(number(1.0)))
    move = torch.stack([torch.stack([phi, number(0.1)]), torch.tensor([0.0, 0.5], dtype=F8)])
    seen, unit = torch.tensor([[1.0, 0.5]], dtype=F8), torch.eye(2, dtype=F8)
    mean, spread = torch.zeros(2, dtype=F8), unit
    for t in range(len(y)):
        mean, spread = move @ mean, move @ spread @ move.T + noise**2 * unit
        variance = seen @ spread @ seen.T + 0.1
        pyro.sample(f"y_{t}", dist.MultivariateNormal(seen @ mean, variance), obs=y[t].reshape(1))
        gain = torch.linalg.solve(variance, seen @ spread).T
        mean, spread = mean + gain @ (y[t].reshape(1) - seen @ mean), spread - gain @ seen @ spread


def interrupted(y: Tensor) -> None:
    """Every seventh value is missing, so that seven steps are one."""
    phi, x = pyro.sample("phi", dist.Normal(number(0.0), 1.0)), number(0.0)
    for t in range(len(y)):
        x = torch.tanh(phi * x + 0.1)
        if t % 7 != 3:
            pyro.sample(f"y_{t}", dist.Normal(x, 1.0), obs=y[t])


def irregular(y: Tensor) -> None:
    """Steps of two kinds, in no order: a recursion that cannot be rolled."""
    phi, x = pyro.sample("phi", dist.Normal(number(0.0), 1.0)), number(0.0)
    more = torch.rand(len(y), generator=torch.Generator().manual_seed(1)) < 0.4
    for t in range(len(y)):
        x = torch.tanh(phi * x + 0.1)
        x = x + 0.1 * torch.sin(x) if more[t] else x
        pyro.sample(f"y_{t}", dist.Normal(x, 1.0), obs=y[t])


def phylogeny(y: Tensor) -> None:
    """Every value descends from a random earlier one: the steps are alike, what they depend on is not."""
    parents = [int(torch.randint(0, max(1, t), (), generator=torch.Generator().manual_seed(t))) for t in range(len(y))]
    root = pyro.sample("root", dist.Normal(number(0.0), 1.0))
    x = [root]
    for t in range(1, len(y)):
        x.append(torch.tanh(x[parents[t]] + 0.5 * root))
        pyro.sample(f"y_{t}", dist.Normal(x[t], 1.0), obs=y[t])
