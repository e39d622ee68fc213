"""Models that a user might write in a file of their own, with simulated data by argument name, as NumPy arrays.

Five of ten; the others (item response, Gaussian process, hidden Markov, Bayesian neural network, zero-inflated Poisson)
are in `zoo.tutorials`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

Arrays = dict[str, np.ndarray]


def clinics(X, *, clinic, ill=None, num_clinics=40):
    """ill[n] ~ Bernoulli(logit⁻¹(X[n] w + a[clinic[n]])), a[c] = mean + sd z[c]."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    sd = pyro.sample("sd", dist.HalfNormal(1.0))
    with pyro.plate("clinics", num_clinics):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(X)):
        logits = X @ w + mean + sd * z[clinic]
        pyro.sample("ill", dist.Bernoulli(logits=logits), obs=ill)


def clinics_data() -> Arrays:
    rng = np.random.default_rng(1)
    X, clinic = rng.normal(size=(400, 2)), rng.integers(40, size=400)
    clinic[:40] = np.arange(40)
    logits = X @ [1.0, -0.5] - 0.3 + 0.8 * rng.normal(size=40)[clinic]
    return {"X": X, "clinic": clinic, "ill": (rng.uniform(size=400) < 1 / (1 + np.exp(-logits))).astype(int)}


def pupils(hours, school, score=None):
    """score[n] ~ Normal(b[s, 0] + b[s, 1] hours[n], noise), b[s] = mean + diag(sd) L z[s], L Lᵀ ~ LKJ(2)."""
    num_schools = int(school.max()) + 1
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    sd = pyro.sample("sd", dist.HalfNormal(2.0).expand([2]).to_event(1))
    factor = pyro.sample("factor", dist.LKJCholesky(2, 2.0))
    noise = pyro.sample("noise", dist.HalfNormal(2.0))
    with pyro.plate("schools", num_schools):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    b = mean + z @ (sd[:, None] * factor).mT
    with pyro.plate("rows", len(hours)):
        pyro.sample("score", dist.Normal(b[school, 0] + b[school, 1] * hours, noise), obs=score)


def pupils_data() -> Arrays:
    rng = np.random.default_rng(2)
    school, hours = np.arange(240) % 12, rng.normal(size=240)
    b = rng.multivariate_normal([2.0, 1.0], [[1.0, 0.3], [0.3, 0.5]], 12)
    return {"hours": hours, "school": school, "score": b[school, 0] + b[school, 1] * hours + rng.normal(size=240)}


def accidents(traffic, count=None):
    """count[n] ~ NegativeBinomial with mean exp(a + b traffic[n]) and the given concentration."""
    a = pyro.sample("a", dist.Normal(0.0, 2.0))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    concentration = pyro.sample("concentration", dist.Gamma(2.0, 0.5))
    rate = concentration / torch.exp(a + b * traffic)
    with pyro.plate("rows", len(traffic)):
        pyro.sample("count", dist.GammaPoisson(concentration, rate), obs=count)


def accidents_data() -> Arrays:
    rng = np.random.default_rng(3)
    traffic = rng.normal(size=150)
    mean = np.exp(1 + 0.6 * traffic)
    return {"traffic": traffic, "count": rng.poisson(mean * rng.gamma(3.0, 1 / 3.0, size=150))}


def answers(X, level=None, num_levels=4):
    """level[n] ~ OrderedLogistic(X[n] w, cutpoints)."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    apart = dist.Normal(torch.arange(num_levels - 1.0) - 1, 2.0).to_event(1)
    cutpoints = pyro.sample("cutpoints", dist.TransformedDistribution(apart, dist.transforms.OrderedTransform()))
    with pyro.plate("rows", len(X)):
        pyro.sample("level", dist.OrderedLogistic(X @ w, cutpoints), obs=level)


def answers_data() -> Arrays:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(200, 2))
    return {"X": X, "level": np.searchsorted([-1.0, 0.5, 2.0], X @ [1.0, -0.7] + rng.logistic(size=200))}


def two_lines(x, y=None):
    """label[n] ~ Bernoulli(share), y[n] ~ Normal(a[label] + b[label] x[n], noise), the intercepts in order."""
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    apart = dist.Normal(torch.tensor([-1.0, 0.5]), 1.0).to_event(1)
    a = pyro.sample("a", dist.TransformedDistribution(apart, dist.transforms.OrderedTransform()))
    b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    noise = pyro.sample("noise", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("rows", len(x)):
        label = pyro.sample("label", dist.Bernoulli(share), infer={"enumerate": "parallel"}).long()
        pyro.sample("y", dist.Normal(a[label] + b[label] * x, noise), obs=y)


def two_lines_data() -> Arrays:
    rng = np.random.default_rng(5)
    x, label = rng.normal(size=120), (rng.uniform(size=120) < 0.4).astype(int)
    return {"x": x, "y": np.array([-1.5, 1.5])[label] + np.array([1.0, -0.5])[label] * x + 0.3 * rng.normal(size=120)}


OWN: dict[str, tuple[Callable[..., Any], Callable[[], Arrays]]] = {
    "clinics": (clinics, clinics_data),
    "pupils": (pupils, pupils_data),
    "accidents": (accidents, accidents_data),
    "answers": (answers, answers_data),
    "two_lines": (two_lines, two_lines_data),
}
