"""The No-U-Turn sampler in Pyro against a posterior in closed form, its options, and its traced potential."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.mcmc.util import initialize_model
from zoo import linear
from zoo.branching import branching, summed_out, two_component

from guidebook.inference import nuts
from guidebook.inference.diagnostics import mcse
from guidebook.inference.engines.graph import traced
from guidebook.inference.mcmc.metric import MAX_DENSE, is_dense

DATA = linear.data()
EXACT = linear.posterior(*DATA)
brief = pytest.mark.filterwarnings("ignore:nuts.*not mixed")  # of short runs


@pytest.fixture(scope="module")
def posterior():
    return nuts(linear.model, *DATA, num_draws=500, num_warmup=300, num_chains=4, engine="pyro", progress=False)


def test_moments_within_four_monte_carlo_errors(posterior) -> None:
    w = posterior.draws["w"]
    assert w.shape == (4, 500, 3)
    assert ((w.flatten(0, 1).mean(0) - EXACT.mean).abs() < 4 * mcse(w)).all()
    assert ((w.flatten(0, 1).std(0) - EXACT.stddev).abs() < 4 * mcse(w, "sd")).all()
    assert posterior.info.r_hat["w"].max() < 1.02
    assert int(posterior.info.divergences.sum()) == 0
    assert torch.allclose(posterior.draws["total"], w.sum(-1))
    assert posterior.info.engine == "pyro"
    assert posterior.info.energy is None
    assert ((posterior.info.accept_rate > 0.8) & (posterior.info.accept_rate < 0.98)).all()  # .99 of them move


@brief
def test_same_seed_same_numbers_and_chains_differ() -> None:
    runs = [
        nuts(linear.model, *DATA, num_draws=60, num_warmup=60, num_chains=2, seed=7, progress=False) for _ in range(2)
    ]
    assert torch.equal(runs[0].draws["w"], runs[1].draws["w"])
    assert not torch.equal(runs[0].draws["w"][0], runs[0].draws["w"][1])
    alone = nuts(linear.model, *DATA, num_draws=60, num_warmup=60, num_chains=1, seed=7, progress=False)
    assert alone.draws["w"].shape == (1, 60, 3)
    assert torch.equal(alone.draws["w"][0], runs[0].draws["w"][0])  # in this process, or in another


def far_apart() -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(()).double(), 20.0))
    pyro.sample("x", dist.Normal(w.abs(), 1.0), obs=torch.tensor(20.0).double())


def test_chains_that_disagree_are_warned_of_where_nuts_was_called() -> None:
    with pytest.warns(UserWarning, match=r"^nuts: drew 60 .*; the chains have not mixed \(R̂ \S+ at 'w'") as said:
        posterior = nuts(far_apart, num_draws=60, num_warmup=100, num_chains=4, engine="pyro", progress=False)
    assert [warning.filename for warning in said] == [__file__]
    assert not posterior.info.converged


def narrow() -> None:
    """Unit variances and correlations .99: an sd of .1 in four directions, of 2.2 in the fifth."""
    covariance = 0.99 + 0.01 * torch.eye(5, dtype=torch.float64)
    pyro.sample("w", dist.MultivariateNormal(covariance.new_zeros(5), covariance))


@brief
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["pyro", "xla"])
def test_each_option_of_adaptation_changes_the_step_size_as_it_should(engine: str) -> None:
    if engine == "xla":
        pytest.importorskip("numpyro")
    run = partial(nuts, narrow, num_draws=100, num_chains=1, engine=engine, progress=False)
    adapted = run(num_warmup=200).info
    assert float(adapted.step_size) > 0.5  # a full mass matrix makes all directions alike
    diagonal = run(num_warmup=200, dense_mass=False).info
    assert float(diagonal.step_size) < 0.35  # with unit variances the least sd, .1, limits it
    careful = run(num_warmup=200, target_accept=0.97).info
    assert float(careful.step_size) < 0.8 * float(adapted.step_size)
    assert float(careful.accept_rate) > max(0.93, float(adapted.accept_rate))
    hasty = run(num_warmup=10).info
    assert float(hasty.step_size) < 0.35


def test_a_full_mass_matrix_is_for_few_dimensions_or_as_told() -> None:
    assert is_dense(None, MAX_DENSE)
    assert not is_dense(None, MAX_DENSE + 1)
    assert is_dense(True, MAX_DENSE + 1)
    assert not is_dense(False, 1)


def test_traced_potential_equals_the_eager_one_and_its_gradient(iris: torch.Tensor) -> None:
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


@brief
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


@brief  # components with unlike priors, swapped in one of the chains
@pytest.mark.slow
def test_discrete_sites_are_summed_out() -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(30) - 2, torch.randn(30) + 2]).double()
    run = {"num_draws": 300, "num_warmup": 200, "num_chains": 2, "engine": "pyro", "progress": False}
    ours, exact = nuts(two_component, x, **run), nuts(summed_out, x, **run)
    assert set(ours.draws) == {"loc"}
    a, b = ours.draws["loc"].flatten(0, 1), exact.draws["loc"].flatten(0, 1)
    error = torch.hypot(mcse(ours.draws["loc"]), mcse(exact.draws["loc"]))
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
