"""The twelve models of ``tests/zoo/tutorials.py`` in NumPyro, discrete sites summed out by hand.

NumPyro's own enumeration needs funsor. A chain of states is summed by the forward algorithm in ``lax.scan``.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from numpyro.handlers import mask

from .numpyro_models import schools


def baseball(at_bats: Any, hits: Any) -> None:
    m: Any = numpyro.sample("m", dist.Uniform(0.0, 1.0))
    kappa: Any = numpyro.sample("kappa", dist.Pareto(1.0, 1.5))
    with numpyro.plate("players", len(at_bats)):
        phi = numpyro.sample("phi", dist.Beta(m * kappa, (1 - m) * kappa))
        numpyro.sample("hits", dist.Binomial(at_bats, phi), obs=hits)


def network(x: Any, y: Any, width: int = 4) -> None:
    def weights(name: str, *shape: int) -> Any:
        return numpyro.sample(name, dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape)))

    sigma = numpyro.sample("sigma", dist.Uniform(0.0, 2.0))
    hidden = jnp.tanh(x @ weights("hidden.weight", width, 1).T + weights("hidden.bias", width))
    mean = hidden @ weights("output.weight", 1, width).T + weights("output.bias", 1)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(mean[:, 0], sigma), obs=y)


def gaussian_process(x: Any, y: Any) -> None:
    variance: Any = numpyro.sample("variance", dist.LogNormal(0.0, 1.0))
    length: Any = numpyro.sample("length", dist.LogNormal(0.0, 1.0))
    noise: Any = numpyro.sample("noise", dist.LogNormal(-2.0, 1.0))
    kernel = variance * jnp.exp(-0.5 * ((x[:, None] - x) / length) ** 2)
    covariance = kernel + (noise + 1e-5) * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), covariance), obs=y)


def hidden_markov(y: Any) -> None:
    prior = dist.Dirichlet(jnp.ones((3, 3)) + 2 * jnp.eye(3)).to_event(1)
    log_transition = jnp.log(numpyro.sample("transition", prior))  # pyright: ignore[reportArgumentType]
    loc = numpyro.sample("loc", dist.Normal(jnp.array([-2.0, 0.0, 2.0]), 0.5).to_event(1))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    log_density = dist.Normal(loc, scale).log_prob(y[:, None])

    def forward(log_alpha: Any, step: Any) -> tuple[Any, None]:
        return logsumexp(log_alpha[:, None] + log_transition, 0) + step, None

    log_alpha, _ = jax.lax.scan(forward, log_transition[0] + log_density[0], log_density[1:])
    numpyro.factor("y", logsumexp(log_alpha))


def correlated(y: Any) -> None:
    dim = y.shape[1]
    loc = numpyro.sample("loc", dist.Normal(0.0, 5.0).expand([dim]).to_event(1))
    scale: Any = numpyro.sample("scale", dist.HalfCauchy(1.0).expand([dim]).to_event(1))
    factor = numpyro.sample("factor", dist.LKJCholesky(dim, 2.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.MultivariateNormal(loc, scale_tril=scale[:, None] * factor), obs=y)


def item_response(answers: Any) -> None:
    persons = numpyro.plate("persons", answers.shape[0], dim=-2)
    items = numpyro.plate("items", answers.shape[1], dim=-1)
    with persons:
        ability: Any = numpyro.sample("ability", dist.Normal(0.0, 1.0))
    with items:
        difficulty = numpyro.sample("difficulty", dist.Normal(0.0, 2.0))
        discrimination: Any = numpyro.sample("discrimination", dist.LogNormal(0.0, 0.5))
    with persons, items:
        numpyro.sample("answers", dist.Bernoulli(logits=discrimination * (ability - difficulty)), obs=answers)


def horseshoe(x: Any, y: Any) -> None:
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    tau: Any = numpyro.sample("tau", dist.HalfCauchy(0.1))
    slab: Any = numpyro.sample("slab", dist.InverseGamma(2.0, 8.0))
    with numpyro.plate("columns", x.shape[1]):
        width: Any = numpyro.sample("width", dist.HalfCauchy(1.0))
        z: Any = numpyro.sample("z", dist.Normal(0.0, 1.0))
        shrunk = jnp.sqrt(slab * width**2 / (slab + tau**2 * width**2))
        weight = numpyro.deterministic("weight", tau * shrunk * z)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(x @ weight, sigma), obs=y)


def survival(x: Any, time: Any, died: Any) -> None:
    intercept: Any = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    shape: Any = numpyro.sample("shape", dist.Gamma(2.0, 1.0))
    scale = jnp.exp(intercept + x @ w)
    with numpyro.plate("patients", len(time)):
        with mask(mask=died):
            numpyro.sample("time", dist.Weibull(scale, shape), obs=time)
        with mask(mask=~died):
            numpyro.factor("outlived", -((time / scale) ** shape))


def zero_inflated(x: Any, counts: Any) -> None:
    gate = numpyro.sample("gate", dist.Beta(1.0, 1.0))
    w: Any = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1] + 1]).to_event(1))
    with numpyro.plate("rows", len(x)):
        rate = jnp.exp(w[0] + x @ w[1:])
        numpyro.sample("counts", dist.ZeroInflatedPoisson(gate, rate), obs=counts)


def change_point(disasters: Any) -> None:
    early = numpyro.sample("early", dist.Exponential(1.0))
    late = numpyro.sample("late", dist.Exponential(1.0))
    years = jnp.arange(len(disasters))
    rate = jnp.where(years < years[:, None], early, late)  # (year of change, year)
    by_change = dist.Poisson(rate).log_prob(disasters).sum(-1)
    numpyro.factor("disasters", logsumexp(by_change) - np.log(len(disasters)))


def mixture(x: Any) -> None:
    weights: Any = numpyro.sample("weights", dist.Dirichlet(jnp.full(3, 2.0)))
    apart = dist.Normal(jnp.array([-2.0, 0.5, 0.5]), 1.0).to_event(1)
    loc = numpyro.sample("loc", dist.TransformedDistribution(apart, dist.transforms.OrderedTransform()))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", len(x)):
        parts: Any = dist.Normal(loc, scale)
        numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), parts), obs=x)


MODELS: dict[str, Callable[..., None]] = {
    "eight schools": schools,
    "baseball": baseball,
    "neural network": network,
    "Gaussian process": gaussian_process,
    "hidden Markov": hidden_markov,
    "LKJ": correlated,
    "item response": item_response,
    "horseshoe": horseshoe,
    "survival": survival,
    "zero-inflated Poisson": zero_inflated,
    "change point": change_point,
    "mixture": mixture,
}
