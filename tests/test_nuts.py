"""The No-U-Turn sampler in Pyro against a posterior in closed form, its options, and its traced potential."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.mcmc.util import initialize_model
from zoo import linear
from zoo.branching import branching, summed_out, two_component
from zoo.posteriors import by_svi

from guidebook.inference import Posterior, nuts
from guidebook.inference.diagnostics import mcse
from guidebook.inference.engines.graph import traced
from guidebook.inference.mcmc.fast_start import fast_start
from guidebook.inference.mcmc.metric import (
    LEAST_GAIN,
    LEAST_HALF,
    MAX_DENSE,
    Window,
    conditioning_gain,
    diagonal_metric,
    effective_share,
    is_dense,
    metric,
)
from guidebook.inference.traces.prepare import prepare

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
    assert posterior.info.metric in ("dense", "diagonal")
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
    assert (adapted.metric, diagonal.metric) == ("dense", "diagonal")
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


# Started from a posterior

ENGINES = ["pyro", pytest.param("xla", marks=pytest.mark.slow)]


def fast(mean: torch.Tensor, sd: torch.Tensor, count: int = 400, **fields) -> Posterior:
    """Independent normal draws of the weights, as an approximation would return them."""
    torch.manual_seed(1)
    return by_svi({"w": (mean + sd * torch.randn(1, count, 3, dtype=torch.float64))}, **fields)


BAD = {
    "far": fast(EXACT.mean + 30 * EXACT.stddev, EXACT.stddev),
    "narrow": fast(EXACT.mean, 1e-4 * EXACT.stddev),
    "wide": fast(EXACT.mean, 1e3 * EXACT.stddev),
    "constant": fast(EXACT.mean, torch.tensor([0.0, 1.0, 1.0])),
    "two draws": fast(EXACT.mean, EXACT.stddev, 2),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fit", BAD)
def test_a_bad_start_does_not_change_the_answer(engine: str, fit: str) -> None:
    if engine == "xla":
        pytest.importorskip("numpyro")
    found = nuts(linear.model, *DATA, init=BAD[fit], num_draws=400, num_chains=1, engine=engine, seed=2, progress=False)
    w = found.draws["w"]
    assert found.info.num_warmup == 300
    assert ((w.flatten(0, 1).mean(0) - EXACT.mean).abs() < 4.5 * mcse(w)).all()
    assert ((w.flatten(0, 1).std(0) - EXACT.stddev).abs() < 4.5 * mcse(w, "sd")).all()


def test_chains_start_at_different_draws_with_the_posteriors_covariance() -> None:
    draws = EXACT.sample(torch.Size([1, 3000]))
    draws[0, :2000] = draws[0, 0]  # as resampling repeats them
    prepared = prepare("nuts", linear.model, DATA)
    found = fast_start("nuts", prepared, by_svi({"w": draws}), 4, seed=0)
    starts = torch.stack([start["w"] for start in found.starts])
    assert len(starts.unique(dim=0)) == 4
    assert all(bool((draws[0] == start).all(1).any()) for start in starts)
    found = fast_start("nuts", prepared, by_svi({"w": EXACT.sample(torch.Size([1, 2000]))}), 4, seed=0)
    torch.testing.assert_close(
        found.covariance, EXACT.covariance_matrix, rtol=0.15, atol=0.1 * float(EXACT.stddev.min() ** 2)
    )
    assert found.inverse_mass(dense=False).shape == (3,)


def test_draws_without_a_density_are_passed_over() -> None:
    def positive_only() -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1))
        pyro.factor("half", torch.where(w[0] > 0, 0.0, -torch.inf))

    fit = fast(torch.tensor([0.0, 0.0, 0.0]), torch.ones(3))
    found = fast_start("nuts", prepare("nuts", positive_only, ()), fit, 8, seed=0)
    assert all(float(start["w"][0]) > 0 for start in found.starts)


@brief
def test_a_good_start_spares_warm_up() -> None:
    """An sd of .1 in four directions: Pyro's first matrix of ones would take steps of about that size."""
    covariance = 0.99 + 0.01 * torch.eye(5, dtype=torch.float64)
    exact = dist.MultivariateNormal(covariance.new_zeros(5), covariance)
    fit = by_svi({"w": exact.sample(torch.Size([1, 2000]))})
    run = partial(nuts, narrow, num_draws=50, num_warmup=15, num_chains=1, engine="pyro", progress=False)
    assert float(run(init=fit).info.step_size) > 0.5
    assert float(run().info.step_size) < 0.35


def test_a_point_or_another_models_posterior_is_no_start() -> None:
    point = by_svi({"w": torch.zeros(1, 1, 3)}, "map_point", is_point=True)
    with pytest.raises(ValueError, match=r"^nuts: init must be a posterior with draws to start at; svi gave a point"):
        nuts(linear.model, *DATA, init=point)
    with pytest.raises(ValueError, match=r"^nuts: the posterior has no draws of site 'w'"):
        nuts(linear.model, *DATA, init=by_svi({"v": torch.zeros(1, 10, 3)}))


# The metric


def windows(factor: torch.Tensor, length: int = 40, chains: int = 4) -> Window:
    """Independent draws of a normal with covariance ``factor factorᵀ``, and its gradients there."""
    torch.manual_seed(0)
    noise = torch.randn(chains, length, len(factor), dtype=torch.float64)
    return Window((noise @ factor.mT).numpy(), (noise @ torch.linalg.inv(factor)).numpy())


def test_dense_is_worth_it_where_scales_lie_across_the_axes() -> None:
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(30, 30, dtype=torch.float64))[0]
    scale = torch.logspace(-2, 2, 30, dtype=torch.float64)
    assert conditioning_gain(windows(torch.diag(scale))) < LEAST_GAIN
    assert conditioning_gain(windows(rotation * scale)) > 100
    assert conditioning_gain(windows(rotation * scale, length=2 * LEAST_HALF - 2)) == float("inf")
    slight = torch.eye(2, dtype=torch.float64)
    for correlation, dense in ((0.1, False), (0.5, True)):  # a condition number of √((1 + ρ) / (1 - ρ))
        slight[1] = torch.tensor([correlation, (1 - correlation**2) ** 0.5])
        assert (conditioning_gain(windows(slight, length=2000)) >= LEAST_GAIN) == dense
    stuck = windows(torch.diag(scale))
    stuck.positions[:, :, 3] = 0.0
    stuck.gradients[:, 25:, 4] = 0.0
    assert conditioning_gain(stuck) == float("inf")


def test_speed_is_judged_by_enough_draws_of_all_chains() -> None:
    pytest.importorskip("numpyro")
    from guidebook.inference.engines.xla.choice import ends

    assert ends(300, 40, num_chains=4) == (80, 120, 180)
    assert ends(300, 40, num_chains=1) == (120, 180, None)
    assert ends(60, 40, num_chains=4) is None


def test_the_metric_of_a_normal_is_its_covariance() -> None:
    torch.manual_seed(2)
    factor = torch.eye(4, dtype=torch.float64) + 0.3 * torch.randn(4, 4, dtype=torch.float64)
    positions, gradients = windows(factor, length=500).covariances()
    covariance = (factor @ factor.mT).numpy()
    np.testing.assert_allclose(metric(positions, gradients, np), covariance, atol=0.05)
    assert diagonal_metric(windows(torch.diag(torch.tensor([1e-3, 2.0]).double()))) == pytest.approx([1e-6, 4.0])


def test_effective_share_is_that_of_the_slowest_coordinate() -> None:
    """Of an autoregression with coefficient ρ it is (1 - ρ) / (1 + ρ)."""
    torch.manual_seed(0)
    x = torch.randn(4, 4000, 2, dtype=torch.float64)
    for t in range(1, x.shape[1]):
        x[:, t, 1] = 0.8 * x[:, t - 1, 1] + 0.6 * x[:, t, 1]
    assert effective_share(Window(x.numpy(), x.numpy())) == pytest.approx(0.2 / 1.8, rel=0.25)


SCALES = torch.logspace(-1, 1, 8).double()


def independent() -> None:
    pyro.sample("w", dist.Normal(torch.zeros(8, dtype=torch.float64), SCALES).to_event(1))


@brief
@pytest.mark.parametrize("engine", ENGINES)
def test_warm_up_chooses_the_metric_and_the_record_says_which(engine: str) -> None:
    if engine == "xla":
        pytest.importorskip("numpyro")
    run = partial(nuts, num_draws=150, num_warmup=150, num_chains=1, engine=engine, progress=False)
    loose, tied = run(independent), run(narrow)
    assert loose.info.metric == "diagonal"
    assert tied.info.metric == "dense"
    w = loose.draws["w"]
    assert ((w.flatten(0, 1).std(0) - SCALES).abs() < 4.5 * mcse(w, "sd")).all()
    w = tied.draws["w"]
    assert ((w.flatten(0, 1).std(0) - 1).abs() < 4.5 * mcse(w, "sd")).all()
    assert run(independent, dense_mass=True).info.metric == "dense"
    assert run(narrow, dense_mass=False).info.metric == "diagonal"
