"""Pathfinder against normals in closed form, at any scale, on a funnel without a mode, and its parts by hand."""

import math
from functools import partial
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from zoo import linear
from zoo.schools import EFFECT, ERROR, non_centred

from guidebook.inference import Posterior, pathfinder
from guidebook.inference.optim.inverse_hessian import LowRankNormal, inverse_hessian, normal_at, updated_diagonal
from guidebook.inference.optim.paths import lbfgs_paths

F8 = torch.float64
DATA = linear.data()
EXACT = linear.posterior(*DATA)
run = partial(pathfinder, progress=False)


def normal(scale: Tensor, rotation: Tensor) -> None:
    factor = rotation * scale
    pyro.sample("w", dist.MultivariateNormal(torch.zeros(len(scale), dtype=F8) + scale, scale_tril=_lower(factor)))


def _lower(factor: Tensor) -> Tensor:
    return torch.linalg.cholesky(factor @ factor.mT)


def within_errors(posterior: Posterior, site: str, mean: Tensor, sd: Tensor) -> bool:
    """Resampled draws are worth about those whose weights they have; five errors."""
    values = posterior.draws[site][0]
    weights = posterior.info.log_weights.softmax(0)
    size = min(float(1 / weights.square().sum()), len(values))
    means = ((values.mean(0) - mean).abs() < 5 * sd / size**0.5).all()
    return bool(means) and bool(((values.std(0) / sd - 1).abs() < 5 / (2 * size) ** 0.5).all())


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_a_linear_regression_at_any_scale(unit: float) -> None:
    def model(x: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(3, dtype=F8), 1 / unit).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal((x * unit) @ w, 1.0), obs=y)

    x, y = DATA
    gram = x.mT @ x + torch.eye(3, dtype=F8)
    mean, covariance = torch.linalg.solve(gram, x.mT @ y), torch.linalg.inv(gram)
    posterior = run(model, x, y)
    assert within_errors(posterior, "w", mean / unit, covariance.diagonal().sqrt() / unit)
    assert posterior.info.converged
    assert posterior.info.message.startswith("8 of 8 paths reached a stationary point")
    evidence = dist.MultivariateNormal(torch.zeros(len(y), dtype=F8), x @ x.mT + torch.eye(len(y), dtype=F8))
    assert posterior.info.elbo == pytest.approx(float(evidence.log_prob(y)), abs=0.1)


def test_twenty_dimensions_with_sds_a_thousandfold_apart() -> None:
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(20, 20, dtype=F8))[0]
    scale = torch.logspace(-1.5, 1.5, 20, dtype=F8)
    posterior = run(normal, scale, rotation, num_draws=2000)
    covariance = (rotation * scale) @ (rotation * scale).mT
    assert within_errors(posterior, "w", scale, covariance.diagonal().sqrt())
    assert posterior.info.k_hat < 0.5


def test_as_many_draws_and_paths_as_asked_for_and_the_record() -> None:
    posterior = run(linear.model, *DATA, num_paths=3, num_draws=70)
    info = posterior.info
    assert posterior.draws["w"].shape == (1, 70, 3)
    assert torch.allclose(posterior.draws["total"], posterior.draws["w"].sum(-1))
    assert info.elbos.shape == info.num_steps.shape == info.best_steps.shape == (3,)
    assert bool((info.best_steps <= info.num_steps).all())
    assert len(info.log_weights) == 3 * math.ceil(4 * 70 / 3)
    assert info.gradients > int(info.num_steps.sum()) + len(info.log_weights)
    assert len(posterior.draws["w"][0].unique(dim=0)) > 60


def test_candidates_too_few_for_a_tail_are_weighted_as_they_are() -> None:
    posterior = run(linear.model, *DATA, num_draws=3)
    assert posterior.draws["w"].shape == (1, 3, 3)
    assert posterior.info.k_hat is None
    assert "k̂" not in posterior.info.message
    assert run(linear.model, *DATA, num_draws=25).info.k_hat is not None


def test_a_standard_normal_is_met_exactly() -> None:
    posterior = run(lambda: pyro.sample("x", dist.Normal(torch.zeros(2, dtype=F8), 1.0).to_event(1)), num_paths=1)
    torch.testing.assert_close(posterior.info.log_weights, torch.zeros(4000, dtype=F8))


def test_same_seed_same_numbers() -> None:
    first, again, other = (run(linear.model, *DATA, num_draws=50, seed=seed).draws["w"] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_path_cut_short_says_so() -> None:
    with pytest.warns(
        UserWarning, match=r"^pathfinder: 0 of 8 paths .*; on 8, the energy still fell after 2 steps"
    ) as said:
        posterior = run(linear.model, *DATA, max_steps=2, num_draws=10)
    assert [warning.filename for warning in said] == [__file__]
    assert not posterior.info.converged
    assert posterior.info.num_steps.tolist() == [2] * 8


def centred(error: Tensor, effect: Tensor) -> None:
    """Eight schools, the density of which has no mode: it is infinite where tau is zero."""
    mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=F8), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0, dtype=F8)))
    with pyro.plate("schools", len(effect)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, error), obs=effect)


@pytest.mark.filterwarnings("ignore:pathfinder")
def test_where_there_is_no_mode_the_best_normal_lies_early_on_the_path() -> None:
    """Zhang et al., section 3.5: the path runs into the funnel, and the ELBO keeps a place before it."""
    posterior = run(centred, ERROR.double(), EFFECT.double(), max_steps=200)
    assert bool((posterior.info.best_steps < 30).all())
    assert posterior.info.num_steps.tolist() == [200] * 8
    assert float(posterior.draws["tau"].median()) > 0.3


def test_float32_data_and_the_non_centred_schools() -> None:
    """Published means and sds (posteriordb): mu 4.4 and 3.3. No normal covers the tail of tau, which k̂ tells."""
    posterior = run(non_centred, ERROR, EFFECT)
    assert posterior.draws["mu"].dtype == torch.float32
    assert abs(float(posterior.draws["mu"].mean()) - 4.4) < 3.3
    assert 0.5 < float(posterior.draws["mu"].std()) / 3.3 < 1.3
    assert posterior.info.k_hat > 0.7
    assert "above 0.7: the weights are too uneven to rely on" in posterior.info.message


def two_modes() -> None:
    """A fifth of the mass at -20, four fifths at 20."""
    x = pyro.sample("x", dist.Normal(torch.zeros((), dtype=F8), 1e3).mask(False))
    parts = torch.stack(
        [dist.Normal(-20.0, 1.0).log_prob(x) + math.log(0.2), dist.Normal(20.0, 1.0).log_prob(x) + math.log(0.8)]
    )
    pyro.factor("modes", parts.logsumexp(0))


def test_modes_that_paths_end_in_have_their_share_of_the_draws() -> None:
    posterior = run(two_modes, num_paths=20, num_draws=2000)
    assert float((posterior.draws["x"] > 0).double().mean()) == pytest.approx(0.8, abs=0.05)


def test_options_out_of_range_and_models_without_a_way() -> None:
    for options, words in (
        ({"num_paths": 0}, "num_paths"),
        ({"num_draws": 0}, "num_draws"),
        ({"max_steps": 0}, "max_steps"),
    ):
        with pytest.raises(ValueError, match=f"^pathfinder: {words} must be at least 1"):
            run(linear.model, *DATA, **options)
    with pytest.raises(TypeError, match=r"^pathfinder: there is no option 'num_samples'"):
        run(linear.model, *DATA, num_samples=3)
    with pytest.raises(ValueError, match=r"^pathfinder: the model has no latent site"):
        run(lambda: pyro.factor("x", torch.zeros(())))


# Parts


def pairs(dim: int, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A precision, its steps and changes of the gradient, and a diagonal."""
    torch.manual_seed(dim)
    root = torch.randn(dim, dim, dtype=F8)
    precision = root @ root.mT + torch.eye(dim, dtype=F8)
    steps = torch.randn(count, dim, dtype=F8)
    return precision, steps, steps @ precision, 0.5 + torch.rand(dim, dtype=F8)


@pytest.mark.parametrize(("dim", "count"), [(5, 3), (4, 4), (3, 6)])
def test_the_compact_form_is_the_recursion_of_bfgs(dim: int, count: int) -> None:
    _, steps, changes, diagonal = pairs(dim, count)
    expected = torch.diag(diagonal)
    for s, y in zip(steps, changes, strict=True):
        rest = torch.eye(dim, dtype=F8) - torch.outer(y, s) / (s @ y)
        expected = rest.mT @ expected @ rest + torch.outer(s, s) / (s @ y)
    padded = [torch.cat([torch.zeros(2, dim, dtype=F8), part]) for part in (steps, changes)]
    found = inverse_hessian(diagonal, *padded)
    torch.testing.assert_close(torch.stack([found @ row for row in torch.eye(dim, dtype=F8)]), expected)

    at = torch.randn(dim, dtype=F8)
    normal = normal_at(at, at, found)
    exact = dist.MultivariateNormal(at - expected @ at, expected)
    points = torch.randn(7, dim, dtype=F8)
    assert bool(normal.exists)
    torch.testing.assert_close(normal.log_density(points), exact.log_prob(points))
    noise = torch.eye(dim, dtype=F8)
    factor = normal.draws(noise) - normal.mean
    torch.testing.assert_close(factor.mT @ factor, expected)


def test_the_diagonal_is_that_of_the_bfgs_update_of_the_precision() -> None:
    """Gilbert and Lemaréchal, section 4.2, with the diagonal scaled to fit the step's curvature."""
    _, (step,), (change,), diagonal = pairs(4, 1)
    scaled = torch.diag(1 / diagonal) * (change @ (diagonal * change)) / (step @ change)
    update = scaled - torch.outer(step / diagonal, step / diagonal) * (change @ (diagonal * change)) / (
        step @ change
    ) / (step @ (step / diagonal))
    update += torch.outer(change, change) / (step @ change)
    torch.testing.assert_close(updated_diagonal(diagonal, step, change), 1 / update.diagonal())


def test_a_covariance_that_is_not_positive_is_told() -> None:
    _, steps, changes, diagonal = pairs(3, 1)
    at = torch.zeros(3, dtype=F8)
    assert not bool(normal_at(at, at, inverse_hessian(diagonal, steps, -changes)).exists)
    assert isinstance(normal_at(at, at, inverse_hessian(diagonal, steps, changes)), LowRankNormal)


def test_paths_of_rosenbrocks_valley_end_in_its_minimum() -> None:
    def energies(points: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        leaf = points.detach().requires_grad_()
        with torch.enable_grad():
            energy = (1 - leaf[:, 0]) ** 2 + 100 * (leaf[:, 1] - leaf[:, 0] ** 2) ** 2
            (gradient,) = torch.autograd.grad(energy.sum(), leaf)
        return energy.detach(), gradient

    starts = torch.tensor([[-1.2, 1.0], [3.0, -4.0], [0.0, 0.0]], dtype=F8)
    paths = lbfgs_paths(energies, starts, history=5, num_steps=200)
    for path in paths:
        assert path.converged
        torch.testing.assert_close(path.places[-1].at, torch.ones(2, dtype=F8), rtol=0, atol=1e-3)
        energy = [place.energy for place in path.places]
        assert all(after <= before + 1e-12 for before, after in pairwise(energy))
