"""Bayesian logistic regression: every method on breast_cancer, and exact mathematics against quadrature."""

import math
from typing import NamedTuple

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy.special import expit, log_expit
from sklearn.linear_model import LogisticRegression
from torch.distributions import MultivariateNormal, kl_divergence

from guidebook import guides
from guidebook.inference import Posterior, compare, svi
from guidebook.inference.cavi import cavi
from guidebook.inference.diagnostics import mcse
from guidebook.inference.gibbs import gibbs
from guidebook.models import logistic
from guidebook.models.logistic.cavi import jj_lambda

STEPS = 40_000
SCALE = 1.7  # prior_scale of the tiny problem


class Exact(NamedTuple):
    """Figures of the tiny problem from a grid over its two weights."""

    log_evidence: float
    mean: np.ndarray
    sd: np.ndarray


@pytest.fixture(scope="module")
def tiny() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.tensor([[-1.6], [-0.9], [-0.4], [0.1], [0.3], [1.1], [1.8], [2.5]], dtype=torch.float64)
    return x, torch.tensor([0, 0, 1, 0, 1, 1, 0, 1], dtype=torch.float64)


@pytest.fixture(scope="module")
def exact(tiny) -> Exact:
    """The trapezium rule, which converges exponentially for a smooth density that has died out at the edges."""
    x, y = (value.numpy() for value in tiny)
    axis = np.linspace(-9 * SCALE, 9 * SCALE, 1201)
    bias, slope = np.meshgrid(axis, axis, indexing="ij")
    log_joint = -(bias**2 + slope**2) / (2 * SCALE**2) - np.log(2 * np.pi * SCALE**2)
    for row, label in zip(x[:, 0], y, strict=True):
        log_joint += log_expit((2 * label - 1) * (bias + slope * row))
    mass = np.exp(log_joint) * (axis[1] - axis[0]) ** 2
    evidence = mass.sum()
    mean = np.array([(mass * bias).sum(), (mass * slope).sum()]) / evidence
    square = np.array([(mass * bias**2).sum(), (mass * slope**2).sum()]) / evidence
    return Exact(math.log(evidence), mean, np.sqrt(square - mean**2))


@pytest.fixture(scope="module")
def fits(breast_cancer, logistic_nuts: Posterior) -> dict[str, Posterior]:
    made = {
        name: svi(logistic.model, guide, *breast_cancer, num_steps=STEPS, num_draws=10_000, progress=False)
        for name, guide in (("mean_field", guides.mean_field), ("full_rank", guides.full_rank))
    }
    return {"nuts": logistic_nuts} | made


@pytest.fixture(scope="module")
def comparison(fits: dict[str, Posterior]):
    return compare(*fits.values(), identify=logistic.identify, names=list(fits))


def test_nuts_has_converged(logistic_nuts: Posterior) -> None:
    assert logistic_nuts.info.r_hat["w"].max() < 1.01
    assert int(logistic_nuts.info.divergences.sum()) == 0
    bias = logistic_nuts.draws["w"][..., :1]
    assert float(bias.mean()) == pytest.approx(0.2062, abs=4.5 * float(mcse(bias)))  # from quadrature and long runs
    assert float(bias.std()) == pytest.approx(0.4094, abs=4.5 * float(mcse(bias, "sd")))


@pytest.mark.slow
def test_full_rank_is_good(comparison) -> None:
    frame = comparison.quantities["full_rank"]
    # Monte Carlo error is .02 in a shift or a ratio, of 31 each, and .09 in k̂, which is about .5
    assert frame["mean_shift_in_sd"].abs().max() < 0.13
    assert frame["sd_ratio"].between(0.86, 1.14).all()
    assert comparison.posteriors["full_rank"].info.k_hat < 0.9
    assert comparison.verdicts["full_rank"].judgement in ("good", "usable")


def test_mean_field_is_too_narrow_by_what_theory_says(comparison, logistic_nuts: Posterior) -> None:
    frame = comparison.quantities["mean_field"]
    covariance = torch.cov(logistic_nuts.draws["w"].flatten(0, 1).mT)
    predicted = (torch.linalg.inv(covariance).diagonal() * covariance.diagonal()).rsqrt()
    assert np.abs(frame["sd_ratio"].to_numpy() / predicted.numpy() - 1).max() < 0.12  # theory for a normal posterior
    assert frame["mean_shift_in_sd"].abs().max() <= 0.35
    assert comparison.posteriors["mean_field"].info.k_hat > 0.7
    assert comparison.verdicts["mean_field"].judgement == "bad"
    assert "too narrow" in comparison.verdicts["mean_field"].sentence


def test_bounds_are_in_order_below_the_evidence(fits: dict[str, Posterior]) -> None:
    """Mean-field < full-rank < log evidence, -55.224 by quadrature and annealing."""
    narrow, full = fits["mean_field"].info, fits["full_rank"].info
    assert narrow.elbo + 4 * (narrow.elbo_se + full.elbo_se) < full.elbo
    assert full.elbo < -55.224 + 4 * full.elbo_se
    # the importance-sampled evidence of the full-rank guide, whose weights are well behaved, is the evidence
    weights = full.log_weights
    evidence = float(weights.logsumexp(0) - math.log(len(weights)))
    assert evidence == pytest.approx(-55.224, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by_hand", "family"),
    [(guides.logistic.mean_field, guides.mean_field), (guides.logistic.cholesky, guides.full_rank)],
)
def test_guides_by_hand_are_twins_of_the_families(breast_cancer, by_hand, family) -> None:
    """The same family of distributions: the same bound at the optimum, within what 3000 steps from one start leave."""
    one, two = (
        svi(logistic.model, guide, *breast_cancer, num_steps=3000, lr=0.02, num_draws=4000, progress=False).info
        for guide in (by_hand, family(logistic.model))
    )
    assert abs(one.elbo - two.elbo) < 0.2 + 4.5 * math.hypot(one.elbo_se, two.elbo_se)  # the families are 12 nats apart


def test_map_point_is_ridge_regression(breast_cancer) -> None:
    """The mode under w ~ N(0, 1) is scikit-learn's estimate at C = 1, its bias made a penalised column of ones."""
    x, y = breast_cancer
    ours = svi(logistic.model, guides.map_point, x, y, num_steps=5000, lr=0.05, progress=False).draws["w"][0, 0]
    columns = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), x], 1)
    theirs = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(columns.numpy(), y.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs.coef_[0], atol=2e-3)


@pytest.mark.parametrize("scale", [1.0, SCALE])
def test_density_is_the_sum_of_its_parts(breast_cancer, scale: float) -> None:
    x, y = breast_cancer
    torch.manual_seed(0)
    w = torch.randn(31, dtype=x.dtype)
    trace = poutine.trace(poutine.condition(logistic.model, {"w": w})).get_trace(x, y, prior_scale=scale)
    p = 1 / (1 + np.exp(-(w[0] + x @ w[1:]).numpy()))
    likelihood = np.log(np.where(y.numpy() == 1, p, 1 - p)).sum()
    prior = -0.5 * float(w.square().sum()) / scale**2 - 31 / 2 * math.log(2 * math.pi * scale**2)
    assert float(trace.log_prob_sum()) == pytest.approx(likelihood + prior, rel=1e-12)


def test_simulate_follows_the_model() -> None:
    x, y, truth = logistic.simulate(50_000, num_features=2, seed=1)
    p = torch.sigmoid(logistic.scores(truth["w"], x))
    z = (y.sum() - p.sum()) / (p * (1 - p)).sum().sqrt()
    assert abs(float(z)) < 4.5
    wider = logistic.simulate(30, num_features=2, prior_scale=SCALE, seed=1)
    assert wider[0].shape == (30, 2)
    w = logistic.simulate(1, num_features=20_000, prior_scale=SCALE)[2]["w"]
    assert w.shape == (20_001,)
    assert float(w.std()) == pytest.approx(SCALE, rel=4.5 / (2 * len(w)) ** 0.5)
    assert not torch.equal(wider[0], logistic.simulate(30, num_features=2, prior_scale=SCALE, seed=2)[0])


def test_guides_by_hand_start_at_their_scale(tiny) -> None:
    for guide, name, known in (
        (guides.logistic.mean_field, "w.scale", torch.full((2,), 0.3)),
        (guides.logistic.cholesky, "w.scale_tril", 0.3 * torch.eye(2)),
    ):
        with pyro.get_param_store().scope():
            guide(*tiny, init_scale=0.3)
            torch.testing.assert_close(pyro.param(name).detach(), known.double())


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 1, 3)])
def test_functions_of_draws_take_any_dimensions_in_front(breast_cancer, leading: tuple[int, ...]) -> None:
    """Each draw's rows as scipy and the Pyro model have them, draw by draw."""
    x, y = breast_cancer
    torch.manual_seed(0)
    sites = {"w": torch.randn(*leading, 31, dtype=x.dtype)}
    probability, density = logistic.predict(sites, x), logistic.log_likelihood(sites, x, y)
    labels = logistic.posterior_predictive(sites, x)
    assert probability.shape == density.shape == labels.shape == (*leading, len(x))
    assert ((labels == 0) | (labels == 1)).all()
    for w, p, d in zip(
        sites["w"].reshape(-1, 31), probability.reshape(-1, len(x)), density.reshape(-1, len(x)), strict=True
    ):
        score = w[0].numpy() + x.numpy() @ w[1:].numpy()
        np.testing.assert_allclose(p.numpy(), expit(score), rtol=1e-10)
        np.testing.assert_allclose(d.numpy(), log_expit((2 * y.numpy() - 1) * score), rtol=1e-10)
        trace = poutine.trace(poutine.condition(logistic.model, {"w": w})).get_trace(x, y)
        trace.compute_log_prob()
        np.testing.assert_allclose(d.numpy(), trace.nodes["y"]["log_prob"].numpy(), rtol=1e-8, atol=1e-12)


def test_log_likelihood_keeps_its_digits_at_large_scores() -> None:
    x, y = torch.tensor([[1000.0], [1000.0]], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    sites = {"w": torch.tensor([0.0, 1.0], dtype=torch.float64)}
    assert logistic.log_likelihood(sites, x, y).tolist() == [0.0, -1000.0]


def test_posterior_predictive_labels_have_the_predicted_frequencies_and_leave_no_trace(tiny) -> None:
    x, _ = tiny
    w = torch.tensor([0.4, -1.2], dtype=torch.float64)
    sites = {"w": w.expand(2, 10_000, 2)}
    state = torch.get_rng_state()
    labels = logistic.posterior_predictive(sites, x, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    p = logistic.predict({"w": w}, x)
    error = (p * (1 - p) / 20_000).sqrt()
    assert ((labels.mean((0, 1)) - p).abs() < 5 * error).all()  # of 8 rows
    assert torch.equal(labels, logistic.posterior_predictive(sites, x, seed=5))
    assert not torch.equal(labels, logistic.posterior_predictive(sites, x, seed=6))


def row_bounds(w: torch.Tensor, xi: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Jaakkola and Jordan's bound on each row's log likelihood as Bishop prints it (10.151), shape (…, n)."""
    score = (2 * y - 1) * (w[..., :1] + w[..., 1:] @ x.mT)
    weight = (torch.sigmoid(xi) - 0.5) / (2 * xi)
    return torch.nn.functional.logsigmoid(xi) + (score - xi) / 2 - weight * (score**2 - xi**2)


def a_normal_q(size: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root = torch.eye(size, dtype=torch.float64)
    root += 0.3 * torch.randn(size, size, generator=generator, dtype=torch.float64)
    mean = torch.randn(size, generator=generator, dtype=torch.float64)
    return {"mean": mean, "covariance": root @ root.mT / 2}


def divergence_from_prior(params: dict[str, torch.Tensor], scale: float) -> float:
    zeros = torch.zeros_like(params["mean"])
    prior = MultivariateNormal(zeros, scale**2 * torch.eye(len(zeros), dtype=zeros.dtype))
    return float(kl_divergence(MultivariateNormal(params["mean"], params["covariance"]), prior))


@pytest.mark.parametrize("seed", [0, 1])
def test_bound_is_the_expected_row_bounds_less_the_divergence(tiny, seed: int) -> None:
    """By Monte Carlo over q, placed for another q; and each row's bound lies below its likelihood."""
    x, y = tiny
    steps, params = logistic.cavi_steps(SCALE), a_normal_q(2, seed)
    bound = steps.e_step(a_normal_q(2, seed + 10), x, y)
    torch.manual_seed(seed)
    w = steps.draw(params, 200_000)["w"]
    rows = row_bounds(w, bound.xi, x, y)
    assert (rows <= logistic.log_likelihood({"w": w}, x, y) + 1e-12).all()
    terms = rows.sum(-1) - divergence_from_prior(params, SCALE)
    error = float(terms.std()) / len(terms) ** 0.5
    assert float(steps.objective(params, bound)) == pytest.approx(float(terms.mean()), abs=4 * error)


def test_bound_is_exact_at_the_score_it_is_placed_for(tiny) -> None:
    x, y = tiny
    w = torch.tensor([0.3, -0.8], dtype=torch.float64)
    bound = logistic.cavi_steps().e_step({"mean": w, "covariance": torch.zeros(2, 2, dtype=w.dtype)}, x, y)
    torch.testing.assert_close(row_bounds(w, bound.xi, x, y), logistic.log_likelihood({"w": w}, x, y))
    value = bound.constant + bound.linear @ w - w @ bound.quadratic @ w
    torch.testing.assert_close(value, logistic.log_likelihood({"w": w}, x, y).sum())


def test_restarts_disperse_by_the_priors_scale(tiny) -> None:
    """The first at the prior itself; the others' means, and the chains' starts, have its standard deviation."""
    steps, prior = logistic.cavi_steps(SCALE), SCALE**2 * torch.eye(2, dtype=torch.float64)
    assert torch.equal(steps.init(0, *tiny)["mean"], torch.zeros(2, dtype=torch.float64))
    torch.manual_seed(0)
    starts = [steps.init(restart, *tiny) for restart in range(1, 2001)]
    assert all(torch.equal(start["covariance"], prior) for start in starts)
    chains = logistic.gibbs_steps(SCALE).init(2000, *tiny)["w"]
    for values in (torch.stack([start["mean"] for start in starts]), chains):
        square = values.square().mean(0) / SCALE**2
        assert ((square - 1).abs() < 4.5 * (2 / 2000) ** 0.5).all()


@pytest.mark.parametrize("restart", [0, 1, 2])
def test_neither_coordinate_lowers_the_bound_and_each_step_is_its_best(breast_cancer, restart: int) -> None:
    torch.manual_seed(restart)
    steps = logistic.cavi_steps()
    params = steps.init(restart, *breast_cancer)
    bound = steps.e_step(params, *breast_cancer)
    value = steps.objective(params, bound)
    for _ in range(60):
        params = steps.m_step(bound, *breast_cancer)
        between = steps.objective(params, bound)
        old, bound = bound, steps.e_step(params, *breast_cancer)
        after = steps.objective(params, bound)
        assert value - 1e-9 <= between <= after + 1e-9
        value = after
    moved = params | {"mean": params["mean"] + 0.01 * torch.randn(31, dtype=value.dtype)}
    assert steps.objective(steps.m_step(old, *breast_cancer), old) > steps.objective(moved, old)
    wider = params | {"covariance": 1.01 * params["covariance"]}
    narrower = params | {"covariance": 0.99 * params["covariance"]}
    best = steps.objective(params, old)
    assert best > steps.objective(wider, old)
    assert best > steps.objective(narrower, old)
    w = MultivariateNormal(params["mean"], params["covariance"]).sample((4000,))
    for factor in (0.9, 1.1):  # the same draws on both sides
        gain = row_bounds(w, bound.xi, *breast_cancer) - row_bounds(w, factor * bound.xi, *breast_cancer)
        assert gain.sum(-1).mean() > 0


def test_bound_lies_below_the_evidence_and_below_its_own_elbo(tiny, exact: Exact) -> None:
    """Bound < ELBO of the same q, by quadrature over each row's score < evidence, by quadrature over the weights."""
    posterior = cavi(logistic.cavi_steps(SCALE), *tiny, num_restarts=4)
    assert posterior.info.converged
    assert len(posterior.info.optima) == 1
    mean, covariance = posterior.params["mean"], posterior.params["covariance"]
    x, y = tiny
    columns = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), x], 1)
    centre = ((2 * y - 1) * (columns @ mean)).numpy()
    spread = ((columns @ covariance) * columns).sum(1).sqrt().numpy()
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    expected = log_expit(centre[:, None] + spread[:, None] * nodes) @ weights / np.sqrt(2 * np.pi)
    elbo = expected.sum() - divergence_from_prior(posterior.params, SCALE)
    assert posterior.info.elbo < elbo < exact.log_evidence
    assert exact.log_evidence - posterior.info.elbo < 0.5


def test_bound_on_breast_cancer_has_its_known_value(breast_cancer) -> None:
    """-69.85 < mean-field ELBO -67.46 < evidence -55.22: the bound is the loosest, whatever its covariance."""
    posterior = cavi(logistic.cavi_steps(), *breast_cancer, num_restarts=3, num_draws=20_000)
    assert posterior.info.elbo == pytest.approx(-69.85, abs=0.005)
    mean, covariance = posterior.params["mean"], posterior.params["covariance"]
    w = posterior.draws["w"][0]
    error = (covariance.diagonal() / len(w)).sqrt()
    assert ((w.mean(0) - mean).abs() < 5 * error).all()  # of 31 weights
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (w - mean).mT, upper=False)
    gap = torch.cov(white) - torch.eye(31, dtype=w.dtype)
    assert gap.abs().max() < 5.5 * (2 / len(w)) ** 0.5


def test_weight_of_the_bound_at_small_and_large_xi() -> None:
    """λ(ξ) = (sigmoid(ξ) - ½) / 2ξ: its series at 0, and numpy's long doubles across where the code changes form."""
    xi = np.array([1e-8, 1e-5, 9.99e-4, 1.001e-3, 0.1, 3.0, 40.0, 1e4])
    long = xi.astype(np.longdouble)
    truth = np.tanh(long / 2) / (4 * long)
    ours = jj_lambda(torch.tensor(xi))
    np.testing.assert_allclose(ours.numpy(), truth.astype(float), rtol=1e-13)
    assert float(jj_lambda(torch.zeros(()))) == 0.125


def test_weights_given_the_augmentation_are_the_normal_of_linear_regression(tiny) -> None:
    """Fifty thousand chains at one ω: mean and covariance as numpy's solver has them."""
    x, y = tiny
    omega = torch.linspace(0.05, 0.4, len(x), dtype=x.dtype)
    _, draw_weights = logistic.gibbs_steps(SCALE).conditionals
    torch.manual_seed(0)
    w = draw_weights({"omega": omega.expand(50_000, -1)}, x, y)["w"]
    columns = np.column_stack([np.ones(len(x)), x.numpy()])
    covariance = np.linalg.inv(columns.T @ np.diag(omega.numpy()) @ columns + np.eye(2) / SCALE**2)
    mean = covariance @ columns.T @ (y.numpy() - 0.5)
    assert np.all(np.abs(w.mean(0).numpy() - mean) < 5 * np.sqrt(np.diag(covariance) / len(w)))
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / len(w))
    assert np.all(np.abs(np.cov(w.numpy().T) - covariance) < 5 * error)


def test_augmentation_given_the_weights_has_their_scores_as_tilts(tiny) -> None:
    x, y = tiny
    w = torch.tensor([0.5, -2.0], dtype=torch.float64)
    draw_omega, _ = logistic.gibbs_steps().conditionals
    torch.manual_seed(0)
    omega = draw_omega({"w": w.expand(50_000, -1)}, x, y)["omega"]
    score = (w[0] + x @ w[1:]).numpy()
    error = omega.std(0).numpy() / len(omega) ** 0.5
    assert np.all(np.abs(omega.mean(0).numpy() - np.tanh(score / 2) / (2 * score)) < 5 * error)


def test_gibbs_is_exact_on_the_tiny_problem(tiny, exact: Exact) -> None:
    posterior = gibbs(logistic.gibbs_steps(SCALE), *tiny, num_draws=1500, num_warmup=100, num_chains=20, progress=False)
    w = posterior.draws["w"]
    assert w.shape == (20, 1500, 2)
    assert posterior.info.r_hat["w"].max() < 1.01
    flat = w.flatten(0, 1)
    assert np.all(np.abs(flat.mean(0).numpy() - exact.mean) < 4.5 * mcse(w).numpy())
    assert np.all(np.abs(flat.std(0).numpy() - exact.sd) < 4.5 * mcse(w, "sd").numpy())


@pytest.mark.slow
def test_gibbs_and_nuts_agree_on_breast_cancer(breast_cancer, logistic_nuts: Posterior) -> None:
    posterior = gibbs(
        logistic.gibbs_steps(), *breast_cancer, num_draws=500, num_warmup=200, num_chains=48, progress=False
    )
    ours, theirs = posterior.draws["w"], logistic_nuts.draws["w"]
    for of, statistic in (("mean", torch.mean), ("sd", torch.std)):
        gap = (statistic(ours.flatten(0, 1), 0) - statistic(theirs.flatten(0, 1), 0)).abs()
        error = (mcse(ours, of).square() + mcse(theirs, of).square()).sqrt()
        assert (gap < 5 * error).all(), of  # 62 comparisons in all
        assert error.max() < 0.1  # the comparison can see something: a posterior standard deviation is .4 to .9


def test_steps_keep_single_precision(tiny) -> None:
    single = tuple(value.float() for value in tiny)
    steps = logistic.cavi_steps()
    params = steps.m_step(steps.e_step(steps.init(1, *single), *single), *single)
    torch.manual_seed(0)
    sampler = logistic.gibbs_steps()
    state = sampler.init(3, *single)
    for conditional in sampler.conditionals:
        state |= conditional(state, *single)
    for value in (*params.values(), *state.values(), *steps.draw(params, 5).values()):
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()


def test_prior_scale_out_of_range() -> None:
    with pytest.raises(ValueError, match="prior_scale must be positive"):
        logistic.model(torch.zeros(3, 1), prior_scale=0.0)
    for steps in (logistic.cavi_steps, logistic.gibbs_steps):
        with pytest.raises(ValueError, match="prior_scale must be positive"):
            steps(-1.0)


def test_labels_out_of_range(tiny) -> None:
    x, y = tiny
    wrong = torch.where(torch.arange(len(y)) == 3, 2.0, y)
    for call in (
        lambda: logistic.log_likelihood({"w": torch.zeros(2, dtype=x.dtype)}, x, wrong),
        lambda: logistic.cavi_steps().prepare(x, wrong),
        lambda: logistic.gibbs_steps().prepare(x, wrong),
    ):
        with pytest.raises(ValueError, match="labels must be 0 or 1, got 2 in row 3"):
            call()
