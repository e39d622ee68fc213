"""Hamiltonian Monte Carlo and random-walk Metropolis against closed forms and quadrature."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor
from zoo import linear

from guidebook.inference import Posterior
from guidebook.inference.diagnostics import MAX_R_HAT, ess, mcse
from guidebook.inference.engines.graph import traced
from guidebook.inference.hmc import hmc
from guidebook.inference.mcmc.chains import Chains
from guidebook.inference.metropolis import metropolis

DATA = linear.data()
EXACT = linear.posterior(*DATA)
brief = pytest.mark.filterwarnings("ignore:(hmc|metropolis).*not mixed")  # of short runs
METHODS = {
    "hmc": partial(hmc, num_draws=500, num_warmup=150, num_chains=2, progress=False),
    "metropolis": partial(metropolis, num_draws=500, num_warmup=3000, thin=15, num_chains=2, progress=False),
}
both = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def posteriors() -> dict[str, Posterior]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # R̂ is near its limit
        return {name: sample(linear.model, *DATA) for name, sample in METHODS.items()}


def assert_expectation(values: Tensor, exact: Tensor | float) -> None:
    """The mean over (chain, draw, …) lies within four Monte Carlo errors of the exact expectation."""
    distance = (values.flatten(0, 1).mean(0) - torch.as_tensor(exact)).abs()
    assert (distance < 4 * mcse(values)).all(), (distance / mcse(values)).max()


def outer(values: Tensor) -> Tensor:
    return values[..., :, None] * values[..., None, :]


@both
def test_moments_within_four_monte_carlo_errors(posteriors: dict[str, Posterior], method: str) -> None:
    posterior = posteriors[method]
    w = posterior.draws["w"]
    assert w.shape == (2, 500, 3)
    assert_expectation(w, EXACT.mean)
    assert_expectation(outer(w - EXACT.mean), EXACT.covariance_matrix)
    assert torch.allclose(posterior.draws["total"], w.sum(-1))
    assert posterior.info.method == method
    assert posterior.info.r_hat["w"].max() < 1.03
    assert posterior.info.ess["w"].min() > 400
    assert posterior.info.converged or max(r.max() for r in posterior.info.r_hat.values()) > MAX_R_HAT


@brief
def test_acceptance_is_near_its_target(posteriors: dict[str, Posterior]) -> None:
    assert (posteriors["metropolis"].info.accept_rate - 0.234).abs().max() < 0.08
    assert (posteriors["hmc"].info.accept_rate - 0.8).abs().max() < 0.18  # dual averaging ends above its target
    bold = hmc(linear.model, *DATA, num_draws=150, num_warmup=150, num_chains=1, target_accept=0.5, progress=False)
    assert bold.info.accept_rate < posteriors["hmc"].info.accept_rate.min() - 0.1
    assert bold.info.step_size > posteriors["hmc"].info.step_size.max()


def narrow(x: Tensor) -> None:
    """A normal in five dimensions with correlations .99."""
    pyro.sample("w", dist.MultivariateNormal(x.new_zeros(5), 0.99 + 0.01 * torch.eye(5, dtype=x.dtype)))


@brief
def test_each_option_of_hmc_changes_the_run_as_it_should() -> None:
    run = partial(hmc, narrow, torch.zeros(1).double(), num_draws=150, num_chains=1, progress=False)
    adapted = run(num_warmup=200).info
    assert float(adapted.step_size) > 0.4  # a full mass matrix makes all directions alike
    assert float(run(num_warmup=200, dense_mass=False).info.step_size) < 0.2  # the least sd, .1, limits it
    assert float(run(num_warmup=10).info.step_size) < 0.2
    short = run(num_warmup=200, trajectory_length=0.3).info  # a tenth of the way to the other side
    assert short.ess["w"].max() < adapted.ess["w"].min() / 4


@brief
def test_a_short_warm_up_of_metropolis_leaves_the_covariance_unknown() -> None:
    run = partial(metropolis, narrow, torch.zeros(1).double(), num_draws=300, thin=5, num_chains=1, progress=False)
    assert run(num_warmup=100).info.ess["w"].max() < run(num_warmup=3000).info.ess["w"].min() / 4


@brief
@both
def test_same_seed_same_numbers_and_chains_differ(posteriors: dict[str, Posterior], method: str) -> None:
    draws = posteriors[method].draws["w"]
    alone = METHODS[method](linear.model, *DATA, num_chains=1)
    assert torch.equal(alone.draws["w"][0], draws[0])  # in this process, or in another
    assert not torch.equal(draws[0], draws[1])


def poisson(x: Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(x.new_tensor(2.0), 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Poisson(rate), obs=x)


def categorical(x: Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(x.new_ones(3)))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Categorical(weights), obs=x)


@brief
@both
def test_on_constrained_sites_the_jacobian_counts(method: str) -> None:
    exact = torch.distributions.Gamma(3.0, 3.0)  # 2 + 0 + 1 events, in 1 + 2 units of time
    rate = METHODS[method](poisson, torch.tensor([0.0, 1.0]).double()).draws["rate"]
    assert (rate > 0).all()
    assert_expectation(rate, exact.mean)
    assert_expectation((rate - exact.mean) ** 2, exact.variance)
    assert_expectation((rate < 0.5).double(), exact.cdf(torch.tensor(0.5)))

    exact = torch.distributions.Dirichlet(torch.tensor([3.0, 1.0, 2.0]))  # one of each, and these
    weights = METHODS[method](categorical, torch.tensor([0.0, 2.0, 0.0]).double()).draws["weights"]
    assert torch.allclose(weights.sum(-1), torch.ones(()).double())
    assert_expectation(weights, exact.mean)
    assert_expectation((weights - exact.mean) ** 2, exact.variance)


def signs(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(x.new_tensor(1.0), 1.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(x.new_tensor([0.2, 0.8])))
        pyro.sample("x", dist.Normal(loc * (2 * z - 1), 1.0), obs=x)


@brief
@both
def test_discrete_sites_are_summed_out(method: str) -> None:
    x = torch.tensor([1.0, 2.5, -1.5, 0.7]).double()
    grid = torch.linspace(-6, 8, 4001).double()[:, None]
    likelihood = 0.2 * (-0.5 * (x + grid) ** 2).exp() + 0.8 * (-0.5 * (x - grid) ** 2).exp()
    mean, second = moments(grid[:, 0], likelihood.log().sum(-1) - 0.5 * (grid[:, 0] - 1) ** 2)
    draws = METHODS[method](signs, x, num_draws=400, num_chains=1).draws
    assert set(draws) == {"loc"}
    assert_expectation(draws["loc"], mean)
    assert_expectation(draws["loc"] ** 2, second)


def moments(grid: Tensor, log_density: Tensor) -> tuple[Tensor, Tensor]:
    weights = (log_density - log_density.max()).softmax(0)
    return (weights * grid).sum(), (weights * grid**2).sum()


def correlated(x: Tensor) -> None:
    """Beyond (-1, 1) there is no density, and Cholesky's decomposition fails."""
    start: Any = {"init": lambda: x.new_zeros(())}
    r = pyro.sample("r", dist.Normal(x.new_zeros(()), 1.0), infer=start)
    ones = torch.ones_like(r)
    covariance = torch.stack([torch.stack([ones, r], -1), torch.stack([r, ones], -1)], -1)
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.MultivariateNormal(x.new_zeros(2), covariance), obs=x)


@brief
@pytest.mark.parametrize(
    ("engine", "run"), [("eager", {"num_warmup": 500, "thin": 1, "num_draws": 1200}), ("traced", {})]
)
def test_proposals_without_a_density_are_rejected(engine: str, run: dict[str, int]) -> None:
    x = torch.tensor([[1.0, 0.9], [-0.4, 0.2], [0.5, 0.8]]).double()
    grid = torch.linspace(-1, 1, 4003).double()[1:-1]
    squares = ((x**2).sum() - 2 * grid * (x[:, 0] * x[:, 1]).sum()) / (1 - grid**2)
    mean, second = moments(grid, -0.5 * grid**2 - 0.5 * len(x) * (1 - grid**2).log() - 0.5 * squares)
    posterior = METHODS["metropolis"](correlated, x, num_chains=1, **run)
    r = posterior.draws["r"]
    assert r.abs().max() < 1
    assert_expectation(r, mean)
    assert_expectation(r**2, second)
    assert (posterior.info.accept_rate - 0.44).abs().max() < 0.1  # the target in one dimension
    assert posterior.info.engine == engine


@brief
def test_the_walk_is_as_efficient_as_theory_has_it() -> None:
    run = {"num_draws": 1000, "num_warmup": 5000, "thin": 20, "num_chains": 2, "progress": False}
    w = metropolis(narrow, torch.zeros(1).double(), **run).draws["w"]
    theory = 0.331 / 5 * 2 * 1000 * 20  # Gelman, Roberts and Gilks (1996): .331 / d of the iterations
    assert ess(w).min() > theory / 3
    assert_expectation(outer(w), 0.99 + 0.01 * torch.eye(5))


@brief
def test_adaptation_ends_with_the_warm_up_and_thinning_keeps_the_number_of_draws() -> None:
    run = {"num_warmup": 1000, "num_chains": 1, "progress": False, "seed": 3}
    few, many = (metropolis(linear.model, *DATA, num_draws=n, thin=10, **run) for n in (200, 400))
    assert torch.equal(few.info.step_size, many.info.step_size)
    assert torch.equal(few.draws["w"], many.draws["w"][:, :200])
    close = metropolis(linear.model, *DATA, num_draws=400, thin=1, **run)
    assert close.draws["w"].shape == many.draws["w"].shape == (1, 400, 3)
    assert close.info.ess["w"].max() < many.info.ess["w"].min() / 1.5  # theory: a tenth


def standard(x: Tensor) -> None:
    pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))


@brief
def test_trajectories_of_a_whole_period_do_not_come_back_to_their_start() -> None:
    posterior = METHODS["hmc"](standard, torch.zeros(1).double(), num_chains=1, trajectory_length=2 * math.pi)
    assert posterior.info.trajectory_length == 2 * math.pi
    assert posterior.info.ess["w"].min() > 100


def far_apart(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), 20.0))
    pyro.sample("x", dist.Normal(w.abs(), 1.0), obs=x[0])


@both
def test_chains_that_disagree_are_called_so(method: str) -> None:
    with pytest.warns(UserWarning, match=f"^{method}: .*have not mixed"):
        posterior = METHODS[method](far_apart, torch.tensor([20.0]).double(), num_draws=100, num_chains=4)
    assert not posterior.info.converged
    assert "not mixed" in posterior.info.message
    assert "at 'w'" in posterior.info.message


def test_chains_that_never_moved_are_counted() -> None:
    draws = {"w": torch.randn(3, 50, 2, generator=torch.Generator().manual_seed(0))}
    assert "never moved" not in Chains(draws, {}, {}, {}, 0.0).disagreement
    draws["w"][1] = 1.0
    assert Chains(draws, {}, {}, {}, 0.0).disagreement == "1 of 3 chains never moved"


@both
def test_saved_and_loaded_it_is_the_same(posteriors: dict[str, Posterior], method: str, tmp_path: Path) -> None:
    posterior = posteriors[method]
    posterior.save(tmp_path / "run.safetensors")
    again = Posterior.load(tmp_path / "run.safetensors")
    assert type(again.info) is type(posterior.info)
    assert torch.equal(again.draws["w"], posterior.draws["w"])
    for name, value in vars(posterior.info).items():
        same = getattr(again.info, name)
        if isinstance(value, dict):
            assert value.keys() == same.keys()
            assert all(torch.equal(value[key], same[key]) for key in value)
        else:
            assert torch.equal(value, same) if isinstance(value, Tensor) else value == same


def branching(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
    pyro.sample("x", dist.Normal(w if w.item() > 0 else 2 * w, 1.0), obs=x[0])


@brief
def test_the_value_alone_is_traced_and_checked(iris: Tensor) -> None:
    from guidebook.models import gmm

    start, potential, _, _ = initialize_model(partial(gmm.model, num_components=3), (iris,))
    with torch.no_grad(), pyro.validation_enabled(False):
        graph = traced(potential, start, gradient=False)
        assert graph is not None
        torch.manual_seed(1)
        at = {name: value + 0.3 * torch.randn_like(value) for name, value in start.items()}
        assert float(graph(at)) == pytest.approx(float(potential(at)), rel=1e-12)

    calls = 0

    def fickle(z: dict[str, Tensor]) -> Tensor:
        nonlocal calls
        calls += 1
        return (z["w"] ** 2).sum() * min(calls, 2)  # recorded at the first call

    assert traced(fickle, {"w": torch.ones(2).double()}, gradient=False) is None
    start, potential, _, _ = initialize_model(branching, (torch.ones(1).double(),))
    assert traced(potential, start, gradient=False) is None
    posterior = metropolis(
        branching, torch.ones(1).double(), num_draws=400, num_warmup=500, thin=4, num_chains=1, progress=False
    )
    grid = torch.linspace(-8, 8, 4001).double()
    slope = torch.where(grid > 0, grid, 2 * grid)
    mean, _ = moments(grid, -0.5 * grid**2 - 0.5 * (1 - slope) ** 2)
    assert posterior.info.engine == "eager"
    assert_expectation(posterior.draws["w"], mean)


def nothing(x: Tensor) -> None:
    pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x[0])


def test_options_out_of_range() -> None:
    bad: list[tuple[Callable, dict, str]] = [
        (hmc, {"num_draws": 0}, "^hmc: num_draws must be at least 1, got 0$"),
        (hmc, {"num_warmup": 0}, "^hmc: num_warmup"),
        (hmc, {"num_chains": 0}, "^hmc: num_chains"),
        (hmc, {"target_accept": 1.0}, "^hmc: target_accept must lie between 0 and 1"),
        (hmc, {"trajectory_length": 0.0}, "^hmc: trajectory_length must be positive"),
        (hmc, {"trajectory_length": math.nan}, "^hmc: trajectory_length must be positive"),
        (hmc, {"seed": -1}, "seed must lie"),
        (metropolis, {"num_draws": 0}, "^metropolis: num_draws"),
        (metropolis, {"num_warmup": 0}, "^metropolis: num_warmup"),
        (metropolis, {"thin": 0}, "^metropolis: thin"),
        (metropolis, {"num_chains": 0}, "^metropolis: num_chains"),
        (metropolis, {"seed": 2**32}, "seed must lie"),
    ]
    for method, options, words in bad:
        with pytest.raises(ValueError, match=words):
            method(linear.model, *DATA, **options)
    with pytest.raises(ValueError, match=r"^metropolis: the model has no latent site"):
        metropolis(nothing, torch.zeros(1).double(), num_chains=1, progress=False)
