"""Expectation maximisation against scikit-learn, and what the loop promises whatever the steps."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from guidebook.inference import em
from guidebook.models import gmm

THEIRS = {"full": "full", "tied": "tied", "diagonal": "diag", "isotropic": "spherical"}


def precisions(covariance: torch.Tensor, kind: str) -> np.ndarray:
    if kind in ("full", "tied"):
        inverse = torch.linalg.inv(covariance).numpy()
        return inverse if kind == "full" else inverse[0]
    return (1 / covariance).numpy()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", THEIRS)
@pytest.mark.parametrize("restart", [0, 1])
def test_every_iterate_equals_scikit_learn(iris: torch.Tensor, kind: str, restart: int) -> None:
    torch.manual_seed(restart)
    steps = gmm.em_steps(3, kind)
    params = steps.init(restart, iris)
    theirs = GaussianMixture(
        3,
        covariance_type=THEIRS[kind],
        reg_covar=0,
        max_iter=1,
        tol=0,
        warm_start=True,
        weights_init=params["weights"].numpy(),
        means_init=params["loc"].numpy(),
        precisions_init=precisions(params["covariance"], kind),
    )
    for _ in range(40):
        expectations = steps.e_step(params, iris)
        params = steps.m_step(expectations, iris)
        theirs.fit(iris.numpy())
        ours = {name: value.numpy() for name, value in params.items()}
        np.testing.assert_allclose(ours["weights"], theirs.weights_, atol=1e-8)
        np.testing.assert_allclose(ours["loc"], theirs.means_, atol=1e-8)
        np.testing.assert_allclose(ours["covariance"].squeeze(), theirs.covariances_.squeeze(), atol=1e-8)
        np.testing.assert_allclose(float(expectations.objective) / len(iris), theirs.lower_bound_, atol=1e-8)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", THEIRS)
def test_restarts_find_an_optimum_at_least_as_good_as_scikit_learn(iris: torch.Tensor, kind: str) -> None:
    restarts = 20
    ours = em(gmm.em_steps(3, kind), iris, num_restarts=restarts)
    assert ours.info.converged
    best = -np.inf
    degenerate = gmm.em_steps(3, kind).degenerate
    for seed in range(restarts):
        theirs = GaussianMixture(
            3, covariance_type=THEIRS[kind], reg_covar=0, tol=1e-12, max_iter=5000, random_state=seed
        )
        try:
            theirs.fit(iris.numpy())
        except ValueError:  # a covariance collapsed
            continue
        covariance = torch.tensor(theirs.covariances_)
        params = {
            "weights": torch.tensor(theirs.weights_),
            "loc": torch.tensor(theirs.means_),
            "covariance": covariance[None] if kind == "tied" else covariance,
        }
        if degenerate(params, gmm.em_steps(3, kind).e_step(params, iris), iris) is None:
            best = max(best, theirs.score(iris.numpy()) * len(iris))
    assert ours.info.log_likelihood >= best - 1e-6


def test_published_optimum_of_iris(iris: torch.Tensor) -> None:
    """Three full covariances on iris: -180.185, the optimum that mclust and scikit-learn report."""
    assert em(gmm.em_steps(3), iris).info.log_likelihood == pytest.approx(-180.185, abs=1e-3)


def test_objective_never_falls_and_ends_at_a_stationary_point(iris: torch.Tensor) -> None:
    posterior = em(gmm.em_steps(3), iris)
    curve = posterior.info.objective
    assert (curve.diff() >= -1e-9 * curve[:-1].abs()).all()
    loc = posterior.params["loc"].clone().requires_grad_()
    value = gmm.log_joint({**posterior.params, "loc": loc}, iris).logsumexp(-1).sum()
    (gradient,) = torch.autograd.grad(value, loc)
    assert gradient.abs().max() < 1e-2  # hundreds at the start; limited by tol
    assert posterior.draws["loc"].shape == (1, 1, 3, 4)


def test_degenerate_restarts_are_set_aside_and_said_so() -> None:
    """Thirty rows for four full covariances in three dimensions: some components shrink onto three rows."""
    torch.manual_seed(0)
    x = torch.randn(30, 3, dtype=torch.float64)
    posterior = em(gmm.em_steps(4), x, num_restarts=30)
    flawed = [optimum for optimum in posterior.info.optima if optimum["degenerate"]]
    assert flawed
    assert "set aside as degenerate" in posterior.info.message
    assert max(optimum["objective"] for optimum in flawed) > posterior.info.log_likelihood  # higher, and still refused
    assert sum(optimum["restarts"] for optimum in posterior.info.optima) == 30


def test_nothing_but_degenerate_restarts_is_an_error() -> None:
    x = torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]], dtype=torch.float64)
    with pytest.raises(ArithmeticError, match="none of 1 restarts reached an optimum"):
        em(gmm.em_steps(2), x, num_restarts=1)


def test_a_wrong_m_step_is_caught(iris: torch.Tensor) -> None:
    steps = gmm.em_steps(3)
    wrong = steps._replace(m_step=lambda e, x: steps.m_step(e, x) | {"loc": steps.m_step(e, x)["loc"] + 0.3})
    with pytest.raises(ArithmeticError, match="the objective fell"):
        em(wrong, iris)


def test_same_seed_same_numbers_and_float32_is_computed_in_float64(iris: torch.Tensor) -> None:
    first, again = (em(gmm.em_steps(3), iris, seed=3, num_restarts=3) for _ in range(2))
    assert torch.equal(first.params["loc"], again.params["loc"])
    shifted = iris + 1e4
    single = em(gmm.em_steps(3), shifted.float(), seed=3, num_restarts=10)
    assert single.params["loc"].dtype == torch.float64
    assert torch.isfinite(single.params["covariance"]).all()


def test_options_out_of_range(iris: torch.Tensor) -> None:
    for options, words in (
        ({"num_steps": 0}, "num_steps"),
        ({"num_restarts": 0}, "num_restarts"),
        ({"tol": 0.0}, "tol"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(ValueError, match=words):
            em(gmm.em_steps(3), iris, **options)


def test_too_few_steps_are_said(iris: torch.Tensor) -> None:
    info = em(gmm.em_steps(3), iris, num_steps=2).info
    assert not info.converged
    assert "take more" in info.message
