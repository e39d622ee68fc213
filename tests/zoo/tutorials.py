"""Twelve models of the kind that tutorials teach, as a user of Pyro writes them, with data and what to compare.

Everything is in torch's default dtype: float32 as a user has it, float64 where the caller sets that first. Simulated
data are the same numbers in both, up to rounding.

1. Rubin (1981), Estimation in parallel randomized experiments: eight schools.
2. Efron and Morris (1975), Data analysis using Stein's estimator: hits of eighteen baseball players.
3. Jarrett (1979), A note on the intervals between coal-mining disasters; yearly counts of 1851 to 1962.
4. Piironen and Vehtari (2017), Sparsity information and regularization in the horseshoe and other shrinkage priors.
"""

from collections.abc import Callable
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

from . import schools

Sites = dict[str, Tensor]


class Tutorial(NamedTuple):
    """A model with its data, in the default dtype at the time of the call.

    ``quantities`` maps draws, shape (chain, draw, *site), to what has one answer whatever the labels and signs, and
    finite moments.
    """

    model: Callable[[], Callable[..., None]]
    data: Callable[[], tuple[Tensor, ...]]
    quantities: Callable[[Sites], Sites]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def as_default(*values: Tensor) -> tuple[Tensor, ...]:
    return tuple(value.to(torch.get_default_dtype()) for value in values)


def sites(*names: str, log: tuple[str, ...] = ()) -> Callable[[Sites], Sites]:
    """The sites of these names, and the logarithms of those in ``log``."""
    return lambda draws: {name: draws[name] for name in names} | {f"log {name}": draws[name].log() for name in log}


AT_BATS = 45
HITS = (18, 17, 16, 15, 14, 14, 13, 12, 11, 11, 10, 10, 10, 10, 10, 9, 8, 7)


def baseball(at_bats: Tensor, hits: Tensor | None = None) -> None:
    """phi[n] ~ Beta(m kappa, (1 - m) kappa), hits[n] ~ Binomial(at_bats[n], phi[n])."""
    m = pyro.sample("m", dist.Uniform(0.0, 1.0))
    kappa = pyro.sample("kappa", dist.Pareto(1.0, 1.5))
    with pyro.plate("players", len(at_bats)):
        phi = pyro.sample("phi", dist.Beta(m * kappa, (1 - m) * kappa))
        pyro.sample("hits", dist.Binomial(at_bats, phi), obs=hits)


def baseball_data() -> tuple[Tensor, ...]:
    hits = torch.tensor(HITS)
    return as_default(torch.full_like(hits, AT_BATS), hits)


class Network(PyroModule):
    """Regression by one hidden layer of four units, a normal prior on each of its 13 weights."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.hidden = PyroModule[nn.Linear](1, width)
        self.hidden.weight = PyroSample(dist.Normal(0.0, 1.0).expand([width, 1]).to_event(2))
        self.hidden.bias = PyroSample(dist.Normal(0.0, 1.0).expand([width]).to_event(1))
        self.output = PyroModule[nn.Linear](width, 1)
        self.output.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, width]).to_event(2))
        self.output.bias = PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 2.0))
        mean = self.output(torch.tanh(self.hidden(x))).squeeze(-1)
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(mean, sigma), obs=y)


def network_data() -> tuple[Tensor, ...]:
    x = torch.linspace(-2, 2, 40, dtype=torch.float64)
    return as_default(x[:, None], x + 0.4 * normal(seeded(3), 40))


def predictions(draws: Sites) -> Sites:
    """Means at five inputs: weights have symmetries, predictions have none."""
    x = torch.linspace(-2, 2, 5, dtype=draws["sigma"].dtype)
    hidden = torch.tanh(draws["hidden.weight"] * x + draws["hidden.bias"][..., None])
    mean = (draws["output.weight"] @ hidden).squeeze(-2) + draws["output.bias"]
    return {"sigma": draws["sigma"], "prediction": mean}


def gaussian_process(x: Tensor, y: Tensor | None = None) -> None:
    """y ~ Normal(0, variance exp(-(x - x')² / (2 length²)) + noise I)."""
    variance = pyro.sample("variance", dist.LogNormal(0.0, 1.0))
    length = pyro.sample("length", dist.LogNormal(0.0, 1.0))
    noise = pyro.sample("noise", dist.LogNormal(-2.0, 1.0))
    kernel = variance * torch.exp(-0.5 * ((x[:, None] - x) / length) ** 2)
    covariance = kernel + (noise + 1e-5) * torch.eye(len(x))
    pyro.sample("y", dist.MultivariateNormal(torch.zeros(len(x)), covariance), obs=y)


def gaussian_process_data() -> tuple[Tensor, ...]:
    x = torch.linspace(-3, 3, 30, dtype=torch.float64)
    return as_default(x, torch.sin(2 * x) + 0.5 * x + 0.3 * normal(seeded(4), 30))


def hidden_markov(y: Tensor) -> None:
    """z[t] ~ Categorical(transition[z[t - 1]]), y[t] ~ Normal(loc[z[t]], scale); the first row starts it."""
    transition = pyro.sample("transition", dist.Dirichlet(torch.ones(3, 3) + 2 * torch.eye(3)).to_event(1))
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-2.0, 0.0, 2.0]), 0.5).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    z = 0
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Categorical(transition[z]), infer={"enumerate": "parallel"})
        pyro.sample(f"y_{t}", dist.Normal(loc[z], scale), obs=y[t])


def hidden_markov_data() -> tuple[Tensor, ...]:
    generator, loc = seeded(5), torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)
    state, states = 0, []
    for stay, other in uniform(generator, 50, 2).tolist():
        if stay > 0.8:
            state = (state + 1 + int(other > 0.5)) % 3
        states.append(state)
    return as_default(loc[states] + 0.7 * normal(generator, 50))


def correlated(y: Tensor) -> None:
    """y[n] ~ Normal(loc, diag(scale) Ω diag(scale)), the correlations Ω by their Cholesky factor."""
    dim = y.shape[1]
    loc = pyro.sample("loc", dist.Normal(0.0, 5.0).expand([dim]).to_event(1))
    scale = pyro.sample("scale", dist.HalfCauchy(1.0).expand([dim]).to_event(1))
    factor = pyro.sample("factor", dist.LKJCholesky(dim, 2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.MultivariateNormal(loc, scale_tril=torch.diag(scale) @ factor), obs=y)


def correlated_data() -> tuple[Tensor, ...]:
    generator = seeded(6)
    mixing = torch.eye(4, dtype=torch.float64) + 0.5 * normal(generator, 4, 4).tril(-1)
    return as_default(normal(generator, 60, 4) @ mixing.mT)


def correlations(draws: Sites) -> Sites:
    factor = draws["factor"]
    row, column = torch.tril_indices(*factor.shape[-2:], offset=-1)
    return {"loc": draws["loc"], "scale": draws["scale"], "correlation": (factor @ factor.mT)[..., row, column]}


def item_response(answers: Tensor) -> None:
    """answers[n, i] ~ Bernoulli(logit⁻¹(discrimination[i] (ability[n] - difficulty[i])))."""
    num_persons, num_items = answers.shape
    persons = pyro.plate("persons", num_persons, dim=-2)
    items = pyro.plate("items", num_items, dim=-1)
    with persons:
        ability = pyro.sample("ability", dist.Normal(0.0, 1.0))
    with items:
        difficulty = pyro.sample("difficulty", dist.Normal(0.0, 2.0))
        discrimination = pyro.sample("discrimination", dist.LogNormal(0.0, 0.5))
    with persons, items:
        pyro.sample("answers", dist.Bernoulli(logits=discrimination * (ability - difficulty)), obs=answers)


def item_response_data() -> tuple[Tensor, ...]:
    generator = seeded(7)
    ability, difficulty = normal(generator, 40, 1), normal(generator, 8)
    discrimination = (0.5 * normal(generator, 8)).exp()
    chance = torch.sigmoid(discrimination * (ability - difficulty))
    return as_default((uniform(generator, 40, 8) < chance).double())


def horseshoe(x: Tensor, y: Tensor | None = None) -> None:
    """The regularised horseshoe: weights far out have the slab's variance, the others shrink towards zero."""
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    tau = pyro.sample("tau", dist.HalfCauchy(0.1))
    slab = pyro.sample("slab", dist.InverseGamma(2.0, 8.0))
    with pyro.plate("columns", x.shape[1]):
        width = pyro.sample("width", dist.HalfCauchy(1.0))
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        shrunk = torch.sqrt(slab * width**2 / (slab + tau**2 * width**2))
        weight = pyro.deterministic("weight", tau * shrunk * z)
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, sigma), obs=y)


def horseshoe_data() -> tuple[Tensor, ...]:
    generator = seeded(8)
    x, noise = normal(generator, 40, 60), normal(generator, 40)
    return as_default(x, x[:, :4] @ torch.tensor([3.0, -3.0, 2.0, 2.0], dtype=torch.float64) + noise)


def large_weights(draws: Sites) -> Sites:
    return {"weight": draws["weight"][..., :6], "log sigma": draws["sigma"].log()}


def survival(x: Tensor, time: Tensor, died: Tensor) -> None:
    """time[n] ~ Weibull(exp(intercept + x[n] w), shape), of which the censored are known to be longer."""
    intercept = pyro.sample("intercept", dist.Normal(0.0, 5.0))
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    shape = pyro.sample("shape", dist.Gamma(2.0, 1.0))
    scale = torch.exp(intercept + x @ w)
    with pyro.plate("patients", len(time)):
        with poutine.mask(mask=died):
            pyro.sample("time", dist.Weibull(scale, shape), obs=time)
        with poutine.mask(mask=~died):
            pyro.factor("outlived", -((time / scale) ** shape))


def survival_data() -> tuple[Tensor, ...]:
    generator = seeded(9)
    x = normal(generator, 80, 2)
    scale = torch.exp(1 + x @ torch.tensor([0.5, -0.3], dtype=torch.float64))
    time = scale * (-uniform(generator, 80).log()) ** (1 / 1.5)
    end = 6 * uniform(generator, 80)
    return *as_default(x, torch.minimum(time, end)), time < end


def zero_inflated(x: Tensor, counts: Tensor | None = None) -> None:
    """counts[n] is zero with probability gate, and otherwise Poisson(exp(w[0] + x[n] w[1:]))."""
    gate = pyro.sample("gate", dist.Beta(1.0, 1.0))
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1] + 1]).to_event(1))
    with pyro.plate("rows", len(x)):
        rate = torch.exp(w[0] + x @ w[1:])
        pyro.sample("counts", dist.ZeroInflatedPoisson(rate, gate=gate), obs=counts)


def zero_inflated_data() -> tuple[Tensor, ...]:
    generator = seeded(10)
    x = normal(generator, 100, 2)
    counts = torch.poisson(torch.exp(0.5 + x @ torch.tensor([0.7, -0.4], dtype=torch.float64)), generator)
    return as_default(x, torch.where(uniform(generator, 100) < 0.3, 0.0, counts))


DISASTERS = (
    *(4, 5, 4, 0, 1, 4, 3, 4, 0, 6, 3, 3, 4, 0, 2, 6, 3, 3, 5, 4, 5, 3, 1, 4, 4, 1, 5, 5, 3, 4, 2, 5, 2, 2, 3, 4, 2, 1),
    *(3, 2, 2, 1, 1, 1, 1, 3, 0, 0, 1, 0, 1, 1, 0, 0, 3, 1, 0, 3, 2, 2, 0, 1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 2, 1, 0, 0, 0),
    *(1, 1, 0, 2, 3, 3, 1, 1, 2, 1, 1, 1, 1, 2, 3, 3, 0, 0, 0, 1, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1),
)


def change_point(disasters: Tensor) -> None:
    """disasters[t] ~ Poisson(early) before the year of change, Poisson(late) from it on."""
    early = pyro.sample("early", dist.Exponential(1.0))
    late = pyro.sample("late", dist.Exponential(1.0))
    years = torch.arange(len(disasters))
    year = pyro.sample("year", dist.Categorical(torch.ones(len(disasters))), infer={"enumerate": "parallel"})
    with pyro.plate("years", len(disasters)):
        pyro.sample("disasters", dist.Poisson(torch.where(years < year, early, late)), obs=disasters)


def change_point_data() -> tuple[Tensor, ...]:
    return as_default(torch.tensor(DISASTERS))


def mixture(x: Tensor) -> None:
    """label[n] ~ Categorical(weights), x[n] ~ Normal(loc[label[n]], scale), the means in order."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((3,), 2.0)))
    apart = dist.Normal(torch.tensor([-2.0, 0.5, 0.5]), 1.0).to_event(1)
    loc = pyro.sample("loc", dist.TransformedDistribution(apart, dist.transforms.OrderedTransform()))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        label = pyro.sample("label", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(loc[label], scale), obs=x)


def mixture_data() -> tuple[Tensor, ...]:
    generator = seeded(12)
    centres = torch.tensor([-3.0, 0.0, 2.5], dtype=torch.float64)[torch.arange(90) % 3]
    return as_default(centres + 0.6 * normal(generator, 90))


TUTORIALS = {
    "eight schools": Tutorial(
        lambda: schools.non_centred,
        lambda: as_default(schools.ERROR, schools.EFFECT),
        sites("mu", "tau", "theta"),
    ),
    "baseball": Tutorial(lambda: baseball, baseball_data, sites("m", "phi", log=("kappa",))),
    "neural network": Tutorial(Network, network_data, predictions),
    "Gaussian process": Tutorial(
        lambda: gaussian_process, gaussian_process_data, sites(log=("variance", "length", "noise"))
    ),
    "hidden Markov": Tutorial(lambda: hidden_markov, hidden_markov_data, sites("transition", "loc", "scale")),
    "LKJ": Tutorial(lambda: correlated, correlated_data, correlations),
    "item response": Tutorial(
        lambda: item_response, item_response_data, sites("ability", "difficulty", log=("discrimination",))
    ),
    "horseshoe": Tutorial(lambda: horseshoe, horseshoe_data, large_weights),
    "survival": Tutorial(lambda: survival, survival_data, sites("intercept", "w", "shape")),
    "zero-inflated Poisson": Tutorial(lambda: zero_inflated, zero_inflated_data, sites("gate", "w")),
    "change point": Tutorial(lambda: change_point, change_point_data, sites("early", "late")),
    "mixture": Tutorial(lambda: mixture, mixture_data, sites("weights", "loc", "scale")),
}
