"""Factor analysis where it differs from probabilistic PCA: its optimum, Heywood cases and the guides' other noise."""

from functools import partial

import numpy as np
import pyro
import pytest
import torch
from scipy import optimize
from sklearn.datasets import load_wine
from sklearn.decomposition import FactorAnalysis

from guidebook.guides import factor_analysis as guides
from guidebook.inference import em, svi
from guidebook.models import factor_analysis

# Log likelihood at the maximum, by another program.
WINE = {1: -2894.270284, 2: -2747.191052, 3: -2684.284457}


def standardised(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(0)) / x.std(0, correction=0)


@pytest.fixture(scope="module")
def wine() -> torch.Tensor:
    return standardised(torch.tensor(load_wine().data))


@pytest.fixture(scope="module")
def optimum(wine: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(em(factor_analysis.em_steps(2), wine, tol=1e-10, num_restarts=1).params)


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_em_reaches_the_known_maximum_from_every_start(wine: torch.Tensor, latent_dim: int) -> None:
    found = em(factor_analysis.em_steps(latent_dim), wine, tol=1e-8, num_restarts=5)
    assert found.info.converged
    assert found.info.log_likelihood == pytest.approx(WINE[latent_dim], abs=1e-4)
    assert [optimum["restarts"] for optimum in found.info.optima] == [5]
    params = dict(found.params)
    assert float(factor_analysis.log_likelihood(params, wine).sum()) == pytest.approx(WINE[latent_dim], abs=1e-4)


def test_extrapolation_reaches_the_same_optimum_in_fewer_iterations(wine: torch.Tensor) -> None:
    steps = factor_analysis.em_steps(2)
    assert steps.accelerate
    plain, fast = (em(steps, wine, tol=1e-10, num_restarts=1, accelerate=value) for value in (False, None))
    assert fast.info.log_likelihood == pytest.approx(plain.info.log_likelihood, abs=1e-6)
    assert len(fast.info.objective) < 0.7 * len(plain.info.objective)


def test_scikit_learn_agrees(wine: torch.Tensor, optimum: dict[str, torch.Tensor]) -> None:
    """Its density and factors at its own parameters, and its optimum once its tolerance is a small one."""
    theirs = FactorAnalysis(2, tol=1e-9, max_iter=20_000, svd_method="lapack").fit(wine.numpy())
    sites = {
        "W": torch.tensor(theirs.components_.T.copy()),
        "loc": torch.tensor(theirs.mean_),
        "noise_variance": torch.tensor(theirs.noise_variance_),
    }
    log_likelihood = factor_analysis.log_likelihood(sites, wine)
    np.testing.assert_allclose(log_likelihood.numpy(), theirs.score_samples(wine.numpy()), rtol=1e-9)
    np.testing.assert_allclose(
        factor_analysis.transform(sites, wine).numpy(), theirs.transform(wine.numpy()), atol=1e-9
    )
    found = factor_analysis.log_likelihood(optimum, wine).sum()
    assert float(found) == pytest.approx(float(log_likelihood.sum()), abs=1e-4)
    covariance = factor_analysis.identify(optimum)["covariance"]
    np.testing.assert_allclose(covariance.numpy(), theirs.get_covariance(), atol=1e-3)


def test_the_optimum_follows_the_units_of_the_columns(wine: torch.Tensor, optimum: dict[str, torch.Tensor]) -> None:
    """Columns times c: W and loc times c, uniquenesses times c² (which probabilistic PCA does not have)."""
    units = torch.logspace(-2, 2, 13, dtype=torch.float64)
    found = dict(em(factor_analysis.em_steps(2), wine * units + 5, tol=1e-10, num_restarts=1).params)
    torch.testing.assert_close(found["noise_variance"], optimum["noise_variance"] * units**2, rtol=1e-4, atol=0)
    torch.testing.assert_close(found["loc"], torch.full((13,), 5.0, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    ours, theirs = (factor_analysis.identify(sites)["covariance"] for sites in (found, optimum))
    torch.testing.assert_close(ours / units / units[:, None], theirs, rtol=0, atol=1e-4)


def test_covariance_of_the_optimum_reproduces_the_variances(
    wine: torch.Tensor, optimum: dict[str, torch.Tensor]
) -> None:
    """Jöreskog (1967): at an optimum the diagonal of W Wᵀ + Ψ is that of the data's covariance."""
    covariance = factor_analysis.identify(optimum)["covariance"]
    torch.testing.assert_close(covariance.diagonal(), torch.ones(13, dtype=torch.float64), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("latent_dim", "column"), [(1, 2), (2, 2)])
def test_heywood_case_of_iris_names_the_column(iris: torch.Tensor, latent_dim: int, column: int) -> None:
    """The likelihood keeps rising as the uniqueness of petal length is fixed nearer to zero."""
    with pytest.raises(ArithmeticError, match=f"none of 3 restarts .* column {column} runs to zero, a Heywood case"):
        em(factor_analysis.em_steps(latent_dim), iris, num_restarts=3)
    reached = [profile(standardised(iris), latent_dim, column, share) for share in (1e-2, 1e-3, 1e-4, 1e-5)]
    assert (np.diff(reached) > 0).all()


def profile(x: torch.Tensor, latent_dim: int, column: int, uniqueness: float) -> float:
    """Highest log likelihood with one uniqueness fixed, by a quasi-Newton method on d × d covariances."""
    start = factor_analysis.em_steps(latent_dim).init(0, x)
    size, covariance = x.shape[1], torch.cov(x.mT, correction=0)
    constant = size * np.log(2 * np.pi)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        values = torch.tensor(flat, requires_grad=True)
        W, noise = values[:-size].reshape(size, latent_dim), values[-size:].exp()
        fitted = W @ W.mT + torch.diag(noise)
        value = 0.5 * len(x) * (torch.logdet(fitted) + torch.linalg.solve(fitted, covariance).trace() + constant)
        (gradient,) = torch.autograd.grad(value, values)
        return value.item(), gradient.numpy()

    guess = torch.cat([start["W"].flatten(), start["noise_variance"].log()]).numpy()
    bounds = [(None, None)] * (size * latent_dim) + [(np.log(1e-7), None)] * size
    bounds[size * latent_dim + column] = (np.log(uniqueness),) * 2
    found = optimize.minimize(loss, guess, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 5000})
    return -found.fun


def test_a_small_uniqueness_is_no_heywood_case_where_the_likelihood_falls_towards_zero(
    breast_cancer: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Radius, perimeter and area leave uniquenesses of 3e-4 with two factors, and an optimum all the same."""
    x = breast_cancer[0]
    found = em(factor_analysis.em_steps(2), x, num_restarts=2)
    share = found.params["noise_variance"]
    assert share.min() < 5e-4
    column = int(share.argmin())
    values = [profile(x, 2, column, float(share[column]) * factor) for factor in (0.3, 1.0, 3.0)]
    assert values[0] < values[1] - 1
    assert values[2] < values[1] - 1


def test_heywood_case_of_breast_cancer_names_the_column(breast_cancer: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ArithmeticError, match=r"column \d+ runs to zero, a Heywood case"):
        em(factor_analysis.em_steps(4), breast_cancer[0], num_restarts=1)


def test_floor_says_which_uniquenesses_are_suspected(iris: torch.Tensor) -> None:
    x = standardised(iris)
    heywood = factor_analysis.em_steps(2).init(0, x)
    heywood["noise_variance"][2] = 1e-5  # petal length: the likelihood still rises towards zero
    for floor, suspected in ((0.9e-5, False), (1.1e-5, True), (0.005, True)):
        found = factor_analysis.em_steps(2, floor=floor).degenerate(heywood, None, x)
        assert (found is not None) == suspected
    assert factor_analysis.em_steps(2, map=True).degenerate(heywood, None, x) is None


def test_a_uniqueness_counts_where_a_tenth_of_it_costs_a_thousandth_of_a_nat(
    breast_cancer: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Raise a small uniqueness, all else fixed, until a tenth of it would cost next to nothing: a Heywood case."""
    x = breast_cancer[0]
    steps = factor_analysis.em_steps(2)
    params = dict(em(steps, x, num_restarts=1).params)
    column = int(params["noise_variance"].argmin())

    def at(log_noise: float) -> dict[str, torch.Tensor]:
        noise = params["noise_variance"].clone()
        noise[column] = np.exp(log_noise)
        return params | {"noise_variance": noise}

    def cost(log_noise: float) -> float:
        likelihoods = [factor_analysis.log_likelihood(at(v), x).sum() for v in (log_noise, log_noise - np.log(10))]
        return float(likelihoods[0] - likelihoods[1])

    for nats, heywood in ((1.1e-3, False), (0.9e-3, True)):
        best = float(params["noise_variance"][column].log())
        level = optimize.brentq(lambda v, nats=nats: cost(v) - nats, best, np.log(0.0049), xtol=1e-12)
        assert cost(level) == pytest.approx(nats, rel=0.05)
        assert (steps.degenerate(at(level), None, x) is not None) == heywood


def test_the_prior_keeps_uniquenesses_away_from_zero(iris: torch.Tensor) -> None:
    found = em(factor_analysis.em_steps(2, map=True), standardised(iris))
    assert found.info.converged
    assert all(optimum["degenerate"] is None for optimum in found.info.optima)
    assert found.params["noise_variance"].min() > 2 * 0.1 / (150 + 4)  # what the prior alone leaves of it


def test_linear_encoder_reaches_the_maximum_likelihood(wine: torch.Tensor) -> None:
    x = wine + 3.0
    model = partial(factor_analysis.latent_model, latent_dim=2)
    guide = partial(guides.linear_encoder, latent_dim=2)
    fitted = svi(model, guide, x, num_steps=1500, lr=0.03, num_draws=100, progress=False)
    params = dict(fitted.params)
    assert params["noise_variance"].shape == (13,)
    reached = float(factor_analysis.log_likelihood(params, x).sum())
    assert 0 <= (WINE[2] - reached) / len(wine) < 1e-3
    mean = (x - params["encoder.centre"]) @ params["encoder.weight"].mT
    torch.testing.assert_close(mean, factor_analysis.transform(params, x), rtol=0, atol=0.1)


@pytest.mark.parametrize("name", ["linear_encoder", "factors", "mean_field"])
def test_guides_have_the_sites_of_their_model_and_take_a_plate_on_the_left(wine: torch.Tensor, name: str) -> None:
    guide = partial(getattr(guides, name), latent_dim=3)
    model = factor_analysis.model if name == "mean_field" else factor_analysis.latent_model
    shapes = {"W": (13, 3), "loc": (13,), "noise_variance": (13,)} if name == "mean_field" else {"z": (178, 3)}
    with pyro.get_param_store().scope():
        alone = pyro.poutine.trace(guide).get_trace(wine)
        assert {n: tuple(alone.nodes[n]["value"].shape) for n in shapes} == shapes
        density = pyro.poutine.trace(pyro.poutine.replay(partial(model, latent_dim=3), alone)).get_trace(wine)
        assert torch.isfinite(density.log_prob_sum())
        with pyro.plate("draws", 5, dim=-1 if name == "mean_field" else -2):
            together = pyro.poutine.trace(guide).get_trace(wine)
        together.compute_log_prob()
        for n, shape in shapes.items():
            assert together.nodes[n]["value"].shape == (5, *shape)
