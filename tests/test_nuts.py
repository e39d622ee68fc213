"""The No-U-Turn sampler in Pyro against a posterior in closed form, and its traced potential against the eager one."""

import pyro
import pytest
import torch
from pyro.infer.mcmc.util import initialize_model
from zoo import linear
from zoo.branching import branching, summed_out, two_component

from guidebook.inference import nuts
from guidebook.inference.diagnostics import ess
from guidebook.inference.engines.graph import traced

DATA = linear.data()
EXACT = linear.posterior(*DATA)


@pytest.fixture(scope="module")
def posterior():
    return nuts(linear.model, *DATA, num_draws=500, num_warmup=300, num_chains=4, engine="pyro", progress=False)


def test_moments_within_four_monte_carlo_errors(posterior) -> None:
    w = posterior.draws["w"]
    assert w.shape == (4, 500, 3)
    error = EXACT.stddev / posterior.info.ess["w"].sqrt()
    assert ((w.flatten(0, 1).mean(0) - EXACT.mean).abs() < 4 * error).all()
    assert (w.flatten(0, 1).std(0) / EXACT.stddev - 1).abs().max() < 4 / (
        2 * float(posterior.info.ess["w"].min())
    ) ** 0.5
    assert posterior.info.r_hat["w"].max() < 1.02
    assert int(posterior.info.divergences.sum()) == 0
    assert torch.allclose(posterior.draws["total"], w.sum(-1))
    assert posterior.info.engine == "pyro"
    assert posterior.info.energy is None


def test_same_seed_same_numbers_and_chains_differ() -> None:
    runs = [
        nuts(linear.model, *DATA, num_draws=60, num_warmup=60, num_chains=2, seed=7, progress=False) for _ in range(2)
    ]
    assert torch.equal(runs[0].draws["w"], runs[1].draws["w"])
    assert not torch.equal(runs[0].draws["w"][0], runs[0].draws["w"][1])
    alone = nuts(linear.model, *DATA, num_draws=60, num_warmup=60, num_chains=1, seed=7, progress=False)
    assert alone.draws["w"].shape == (1, 60, 3)
    assert torch.equal(alone.draws["w"][0], runs[0].draws["w"][0])  # in this process, or in another


def test_r_hat_and_ess_of_one_chain_are_those_of_its_halves() -> None:
    torch.manual_seed(0)
    draws = torch.randn(1, 1000, dtype=torch.float64)
    assert 700 < float(ess(draws)) < 1300


def test_traced_potential_equals_the_eager_one_and_its_gradient(iris: torch.Tensor) -> None:
    from functools import partial

    from guidebook.models import gmm

    for kind in ("full", "tied", "diagonal", "isotropic"):
        start, potential, _, _ = initialize_model(partial(gmm.model, num_components=3, covariance=kind), (iris,))
        with pyro.validation_enabled(False):
            graph = traced(potential, start)
            assert graph is not None
            torch.manual_seed(1)
            at = {
                name: (value + 0.3 * torch.randn_like(value)).detach().requires_grad_() for name, value in start.items()
            }
            eager = torch.autograd.grad(potential(at), list(at.values()))
            ours = torch.autograd.grad(graph(at), list(at.values()))
            assert float(potential(at).detach()) == pytest.approx(float(graph(at).detach()), rel=1e-12)
            for a, b in zip(eager, ours, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_model_that_branches_runs_untraced() -> None:
    start, potential, _, _ = initialize_model(branching, DATA)
    assert traced(potential, start) is None
    posterior = nuts(branching, *DATA, num_draws=100, num_warmup=100, num_chains=1, progress=False)
    assert posterior.draws["w"].shape == (1, 100)


def test_a_graph_that_disagrees_is_not_trusted() -> None:
    calls = 0

    def fickle(z):
        nonlocal calls
        calls += 1
        return (z["w"] ** 2).sum() * (1 if calls == 1 else 2)  # recorded at the first call

    assert traced(fickle, {"w": torch.ones(2, dtype=torch.float64)}) is None


def test_discrete_sites_are_summed_out() -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(30) - 2, torch.randn(30) + 2]).double()
    run = {"num_draws": 300, "num_warmup": 200, "num_chains": 2, "engine": "pyro", "progress": False}
    ours, exact = nuts(two_component, x, **run), nuts(summed_out, x, **run)
    assert set(ours.draws) == {"loc"}
    a, b = ours.draws["loc"].flatten(0, 1), exact.draws["loc"].flatten(0, 1)
    error = (a.var(0) / ours.info.ess["loc"] + b.var(0) / exact.info.ess["loc"]).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() < 4 * error).all()


def test_options_out_of_range() -> None:
    for options, words in (
        ({"num_draws": 0}, "num_draws"),
        ({"num_warmup": 0}, "num_warmup"),
        ({"num_chains": 0}, "num_chains"),
        ({"target_accept": 1.0}, "target_accept"),
        ({"engine": "stan"}, "engine must be one of auto, pyro, xla"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(ValueError, match=words):
            nuts(linear.model, *DATA, **options)
