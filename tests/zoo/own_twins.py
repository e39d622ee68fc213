"""The five models of `zoo.own_models` in NumPyro, the label of `two_lines` summed out by hand."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def clinics(X: Any, clinic: Any, ill: Any, num_clinics: int = 40) -> None:
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0))
    with numpyro.plate("clinics", num_clinics):
        z: Any = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("ill", dist.BernoulliLogits(X @ w + mean + sd * z[clinic]), obs=ill)


def pupils(hours: Any, school: Any, score: Any) -> None:
    mean: Any = numpyro.sample("mean", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    sd: Any = numpyro.sample("sd", dist.HalfNormal(2.0).expand([2]).to_event(1))
    factor: Any = numpyro.sample("factor", dist.LKJCholesky(2, 2.0))
    noise = numpyro.sample("noise", dist.HalfNormal(2.0))
    with numpyro.plate("schools", 12):
        z: Any = numpyro.sample("z", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
    intercept, slope = (mean[:, None] + jnp.diag(sd) @ factor @ z.T)[:, school]
    numpyro.sample("score", dist.Normal(intercept + slope * hours, noise), obs=score)


def accidents(traffic: Any, count: Any) -> None:
    a = numpyro.sample("a", dist.Normal(0.0, 2.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    concentration = numpyro.sample("concentration", dist.Gamma(2.0, 0.5))
    numpyro.sample("count", dist.NegativeBinomial2(jnp.exp(a + b * traffic), concentration), obs=count)


def answers(X: Any, level: Any) -> None:
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    apart = dist.Normal(jnp.array([-1.0, 0.0, 1.0]), 2.0).to_event(1)
    cutpoints = numpyro.sample("cutpoints", dist.TransformedDistribution(apart, dist.transforms.OrderedTransform()))
    numpyro.sample("level", dist.OrderedLogistic(X @ w, cutpoints), obs=level)


def two_lines(x: Any, y: Any) -> None:
    share: Any = numpyro.sample("share", dist.Beta(2.0, 2.0))
    apart = dist.Normal(jnp.array([-1.0, 0.5]), 1.0).to_event(1)
    a: Any = numpyro.sample("a", dist.TransformedDistribution(apart, dist.transforms.OrderedTransform()))
    b: Any = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    noise = numpyro.sample("noise", dist.LogNormal(-1.0, 0.5))
    first, second = (dist.Normal(a[k] + b[k] * x, noise).log_prob(y) for k in range(2))
    numpyro.factor("y", jnp.logaddexp(jnp.log1p(-share) + first, jnp.log(share) + second).sum())


TWINS: dict[str, Callable[..., None]] = {
    "clinics": clinics,
    "pupils": pupils,
    "accidents": accidents,
    "answers": answers,
    "two_lines": two_lines,
}
