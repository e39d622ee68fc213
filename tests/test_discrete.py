"""Discrete latent sites are summed out by every method, without being told; what depends on them is drawn exactly.

Right values are by quadrature over the continuous sites and sums over the discrete ones.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal
from torch import Tensor

from guidebook.guides import flow, full_rank, laplace, low_rank, mean_field
from guidebook.inference import Posterior, check, dadvi, discrete_draws, evidence, fit, nuts, pathfinder, svi
from guidebook.inference.traces.prepare import prepare

X = torch.tensor([-0.3, 0.1, 0.2, 3.5, 4.4, 2.1, 0.4, 3.9]).double()
SHIFTS = torch.tensor([0.0, 4.0]).double()
SHARES = torch.tensor([0.4, 0.6]).double()


def rows(x: Tensor) -> None:
    """A label per row."""
    mu = pyro.sample("mu", dist.Normal(x.new_tensor(0.0), 2.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(SHARES))
        pyro.sample("x", dist.Normal(mu + SHIFTS[z], 1.0), obs=x)


def nested(x: Tensor) -> None:
    """A label per row whose shares depend on a label of all."""
    mu = pyro.sample("mu", dist.Normal(x.new_tensor(0.0), 2.0))
    a = pyro.sample("a", dist.Bernoulli(x.new_tensor(0.3))).long()
    shares = torch.stack([SHARES, SHARES.flip(0)])
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(shares[a]))
        pyro.sample("x", dist.Normal(mu + SHIFTS[z], 1.0), obs=x)


def chain(x: Tensor) -> None:
    """A hidden Markov chain that stays with probability .8."""
    mu = pyro.sample("mu", dist.Normal(x.new_tensor(0.0), 2.0))
    z = torch.tensor(0)
    for t in pyro.markov(range(len(x))):
        z = pyro.sample(f"z{t}", dist.Bernoulli(torch.where(z == 0, x.new_tensor(0.2), x.new_tensor(0.8)))).long()
        pyro.sample(f"x{t}", dist.Normal(mu + SHIFTS[z], 1.0), obs=x[t])


def change(x: Tensor) -> None:
    """A row from which values are four higher."""
    mu = pyro.sample("mu", dist.Normal(x.new_tensor(0.0), 2.0))
    tau = pyro.sample("tau", dist.Categorical(torch.ones(len(x)).to(x)))
    with pyro.plate("rows", len(x)):
        mean = torch.where(torch.arange(len(x)) < tau, mu, mu + 4.0)
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


GRID = torch.linspace(-8, 8, 4001).double()
DENSITIES = dist.Normal(GRID[:, None, None] + SHIFTS, 1.0).log_prob(X[:, None])  # (grid, row, label)


def log_likelihoods() -> dict[Callable, Tensor]:
    """Return log p(x | mu) of each model on the grid."""
    shared = [(DENSITIES + shares.log()).logsumexp(2).sum(1) for shares in (SHARES, SHARES.flip(0))]
    forward = torch.tensor([0.8, 0.2]).double().log() + DENSITIES[:, 0]
    step = torch.tensor([[0.8, 0.2], [0.2, 0.8]]).double().log()
    for row in range(1, len(X)):
        forward = (forward[:, :, None] + step).logsumexp(1) + DENSITIES[:, row]
    changes = [DENSITIES[:, :t, 0].sum(1) + DENSITIES[:, t:, 1].sum(1) - math.log(len(X)) for t in range(len(X))]
    weights = torch.tensor([0.7, 0.3]).double().log()
    return {
        rows: shared[0],
        nested: (torch.stack(shared, 1) + weights).logsumexp(1),
        chain: forward.logsumexp(1),
        change: torch.stack(changes, 1).logsumexp(1),
    }


def exact(model: Callable) -> tuple[float, float, float]:
    """Return log evidence, mean and sd of mu."""
    log_joint = dist.Normal(0.0, 2.0).log_prob(GRID) + log_likelihoods()[model]
    evidence = float(log_joint.logsumexp(0)) + math.log(float(GRID[1] - GRID[0]))
    weights = log_joint.softmax(0)
    mean = (weights * GRID).sum()
    return evidence, float(mean), float((weights * (GRID - mean) ** 2).sum().sqrt())


MODELS = [rows, nested, chain, change]
QUICK: dict[str, Any] = {"progress": False}
METHODS: dict[str, Callable[..., Posterior]] = {
    "dadvi": partial(dadvi, **QUICK),
    "pathfinder": partial(pathfinder, num_draws=2000, **QUICK),
    "laplace": lambda model, x: svi(model, laplace, x, num_draws=4000, **QUICK),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_methods_sum_out_what_can_be_enumerated(model: Callable, method: str) -> None:
    log_evidence, mean, sd = exact(model)
    found = METHODS[method](model, X)
    of_mean, of_sd = (0.15, 0.2) if method == "laplace" else (0.08, 0.1)  # a mode and its curvature are not the moments
    assert float(found.draws["mu"].mean()) == pytest.approx(mean, abs=of_mean * sd)
    assert float(found.draws["mu"].std()) == pytest.approx(sd, rel=of_sd)
    assert found.info.elbo == pytest.approx(log_evidence, abs=0.08)
    assert found.info.k_hat is not None
    assert set(discrete_draws(found, model, X)) == set(prepare("any", model, (X,)).summed)


@pytest.mark.parametrize("family", [mean_field, full_rank, low_rank, flow, AutoDiagonalNormal])
def test_every_family_fits_the_sum(family: Callable) -> None:
    log_evidence, mean, sd = exact(nested)
    start = dadvi(nested, X, **QUICK)
    found = svi(nested, family, X, num_steps=120, lr=0.02, num_draws=500, engine="eager", init=start, **QUICK)
    assert found.info.elbo == pytest.approx(log_evidence, abs=0.5)
    assert float(found.draws["mu"].mean()) == pytest.approx(mean, abs=0.6 * sd)
    labels = discrete_draws(found, nested, X)
    assert labels["z"].shape == (1, 500, len(X))
    assert labels["a"].shape == (1, 500)


def test_check_and_fit_judge_the_sum() -> None:
    _, mean, sd = exact(rows)
    fast = dadvi(rows, X, **QUICK)
    assert check(fast, rows, X, **QUICK).judgement == "good"
    assert float(fit(rows, X, **QUICK).draws["mu"].mean()) == pytest.approx(mean, abs=0.1 * sd)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("naive", {"num_draws": 2000}),
        ("ais", {"num_draws": 40, "num_temperatures": 20, "num_leapfrogs": 3}),
        ("importance", {"num_draws": 1000}),
        ("bridge", {}),
    ],
)
@pytest.mark.parametrize("model", [rows, nested])
def test_the_evidence_is_that_of_the_sum(model: Callable, method: str, options: dict) -> None:
    log_evidence, mean, sd = exact(model)
    given: dict[str, Any] = {}
    if method == "importance":
        given["guide"] = lambda x: pyro.sample("mu", dist.Normal(x.new_tensor(mean), 1.5 * sd))
    elif method == "bridge":
        torch.manual_seed(0)
        grid = dist.Normal(0.0, 2.0).log_prob(GRID) + log_likelihoods()[model]
        given["posterior"] = {"mu": GRID[torch.multinomial(grid.softmax(0), 1000, replacement=True)].reshape(2, 500)}
    found = evidence(model, X, method=method, **given, **options)
    assert abs(found.estimate - log_evidence) < 4 * found.error + 0.02
    assert found.error < 0.3


def test_without_continuous_sites_the_evidence_is_the_sum() -> None:
    def labels(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Categorical(SHARES))
            pyro.sample("x", dist.Normal(SHIFTS[z], 1.0), obs=x)

    at_zero = (dist.Normal(SHIFTS, 1.0).log_prob(X[:, None]) + SHARES.log()).logsumexp(1).sum()
    assert evidence(labels, X, method="naive").estimate == pytest.approx(float(at_zero), rel=1e-6)


def test_a_label_without_any_density_is_drawn_all_the_same() -> None:
    """A guide's draw far in a tail may round to the edge of a support, where no label has a density."""

    def counts(x: Tensor) -> None:
        rate = pyro.sample("rate", dist.Gamma(x.new_tensor(2.0), 1.0))
        z = pyro.sample("z", dist.Bernoulli(x.new_tensor(0.5)))
        pyro.sample("x", dist.Poisson(rate * (1 + z)), obs=x[0])

    x = torch.tensor([3.0]).double()
    draws = {"rate": torch.tensor([[0.0, 2.0, 2.0, 0.0]]).double()}
    posterior = Posterior(draws=draws, info=dadvi(rows, X, num_draws=64, **QUICK).info)
    z = discrete_draws(posterior, counts, x)["z"]
    assert z.shape == (1, 4)
    assert bool(((z == 0) | (z == 1)).all())


def test_labels_are_drawn_jointly_after_chains() -> None:
    posterior = nuts(nested, X, num_draws=300, num_warmup=150, num_chains=2, engine="pyro", **QUICK)
    labels = discrete_draws(posterior, nested, X)
    mu = posterior.draws["mu"].double()[..., None, None]
    densities = dist.Normal(mu + SHIFTS, 1.0).log_prob(X[:, None])
    by_a = [(densities + shares.log()).logsumexp(-1).sum(-1) for shares in (SHARES, SHARES.flip(0))]
    probability = (torch.stack(by_a, -1) + torch.tensor([0.7, 0.3]).double().log()).softmax(-1)[..., 1]
    error = float((probability * (1 - probability)).mean() / 600) ** 0.5
    assert float(labels["a"].double().mean()) == pytest.approx(float(probability.mean()), abs=4 * error)
