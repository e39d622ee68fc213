"""Bayesian linear regression: exact mathematics against numpy, scipy and quadrature; samplers against NumPyro."""

import math
from functools import partial

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats
from sklearn.datasets import load_diabetes
from sklearn.linear_model import BayesianRidge, LinearRegression, Ridge

from guidebook import guides
from guidebook.inference import cavi, closed_form, compare, em, evidence, gibbs, nuts, svi
from guidebook.inference.diagnostics import mcse
from guidebook.inference.posterior import Posterior
from guidebook.models import linear
from guidebook.models.linear.conjugate import NormalInverseGamma, divergence, draw
from guidebook.models.linear.prior import check_noise, check_prior

SCALE = 0.8  # a prior_scale other than the default
Data = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def diabetes() -> Data:
    data = load_diabetes(scaled=False)
    x = torch.tensor(data.data)
    return (x - x.mean(0)) / x.std(0, correction=0), torch.tensor(data.target).double()


@pytest.fixture(scope="module")
def tiny() -> Data:
    x = torch.tensor([[-1.6], [-0.9], [-0.4], [0.1], [0.3], [1.1], [1.8], [2.5]], dtype=torch.float64)
    return x, torch.tensor([1.3, 2.1, 0.4, 2.9, 2.2, 3.8, 9.1, 5.2], dtype=torch.float64)


def by_numpy(x: np.ndarray, y: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Location, squared scale matrix and degrees of freedom of the weights' t, and log evidence: y is t as a whole."""
    n, d = x.shape
    columns = np.column_stack([np.ones(n), x])
    variance = scale**2 * np.r_[100.0, np.ones(d)]
    centre = np.r_[y.mean(), np.zeros(d)]
    u2 = y.var()
    covariance = np.eye(n) + columns @ np.diag(variance) @ columns.T
    log_evidence = stats.multivariate_t(columns @ centre, u2 * covariance, df=1).logpdf(y)
    gain = np.diag(variance) @ columns.T @ np.linalg.inv(covariance)
    residual = y - columns @ centre
    rate = (u2 + residual @ np.linalg.solve(covariance, residual)) / 2
    spread = np.diag(variance) - gain @ columns @ np.diag(variance)
    return centre + gain @ residual, rate / ((n + 1) / 2) * spread, n + 1.0, log_evidence


@pytest.mark.parametrize("scale", [1.0, SCALE])
def test_the_posterior_and_the_evidence_are_those_of_numpy(diabetes: Data, scale: float) -> None:
    """By the other way round: the target as a whole is multivariate t, and the weights given it by its gain."""
    x, y = diabetes
    location, squared, df, log_evidence = by_numpy(x.numpy(), y.numpy(), scale)
    found = closed_form(partial(linear.closed_form, prior_scale=scale), x, y, num_draws=40_000, seed=1)
    params = found.params
    np.testing.assert_allclose(params["mean"].numpy(), location, rtol=1e-9)
    ours = params["rate"] / params["shape"] * torch.linalg.inv(params["precision"])
    np.testing.assert_allclose(ours.numpy(), squared, rtol=1e-7, atol=1e-7)  # numpy's rounding
    assert 2 * float(params["shape"]) == df
    assert found.info.log_evidence == pytest.approx(log_evidence, abs=1e-8)
    assert not found.info.is_point
    w = found.draws["w"]
    sd = np.sqrt(np.diag(squared) * df / (df - 2))
    assert np.all(np.abs(w.mean((0, 1)).numpy() - location) < 4.5 * sd / len(w[0]) ** 0.5)
    assert np.all(np.abs(w.std((0, 1)).numpy() / sd - 1) < 4.5 / (2 * len(w[0])) ** 0.5)
    shape, rate = float(params["shape"]), float(params["rate"])
    assert stats.kstest(found.draws["noise_variance"][0].numpy(), stats.invgamma(shape, scale=rate).cdf).pvalue > 1e-4
    assert stats.kstest(w[0, :, 3].numpy(), stats.t(df, location[3], squared[3, 3] ** 0.5).cdf).pvalue > 1e-4


def test_its_mean_is_ridge_regression(diabetes: Data) -> None:
    x, y = diabetes
    ours = closed_form(partial(linear.closed_form, prior_scale=SCALE), x, y).params["mean"]
    ridge = Ridge(alpha=SCALE**-2, tol=1e-12).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(ours[1:].numpy(), ridge.coef_, rtol=1e-8)
    assert float(ours[0]) == pytest.approx(ridge.intercept_, rel=1e-12)


def test_it_is_what_scikit_learn_finds_at_its_own_prior(diabetes: Data) -> None:
    """BayesianRidge learns the weights' and the noise's scale; at that ratio of them, mean and covariance agree."""
    x, y = diabetes
    theirs = BayesianRidge(tol=1e-10, max_iter=5000).fit(x.numpy(), y.numpy())
    scale = (theirs.alpha_ / theirs.lambda_) ** 0.5
    params = closed_form(partial(linear.closed_form, prior_scale=scale), x, y).params
    np.testing.assert_allclose(params["mean"][1:].numpy(), theirs.coef_, rtol=1e-6)
    ours = torch.linalg.inv(params["precision"])[1:, 1:].numpy() / theirs.alpha_
    np.testing.assert_allclose(ours, theirs.sigma_, rtol=1e-5, atol=1e-8)


def quadrature(x: np.ndarray, y: np.ndarray, df: float | None) -> tuple[float, np.ndarray, np.ndarray]:
    """Log evidence, means and sds of (bias, slope, noise sd) on a grid, which is exact for smooth densities."""
    bias = np.linspace(-4, 10, 121)[:, None, None, None]
    slope = np.linspace(-5, 7, 121)[None, :, None, None]
    log_variance = np.linspace(-3, 7, 121)[None, None, :, None]
    variance = np.exp(log_variance)
    sd = np.sqrt(variance)
    mean = bias + slope * x
    rows = stats.norm.logpdf(y, mean, sd) if df is None else stats.t.logpdf(y, df, mean, sd)
    total = rows.sum(-1)
    variance, sd = variance[..., 0], sd[..., 0]
    total += stats.invgamma.logpdf(variance, 0.5, scale=y.var() / 2) + log_variance[..., 0]
    total += stats.norm.logpdf(bias[..., 0], y.mean(), 10 * SCALE * sd) + stats.norm.logpdf(
        slope[..., 0], 0, SCALE * sd
    )
    cell = (14 / 120) * (12 / 120) * (10 / 120)
    mass = np.exp(total) * cell
    values = [np.broadcast_to(v[..., 0] if v.ndim == 4 else v, mass.shape) for v in (bias, slope, sd)]
    first = np.array([(mass * v).sum() for v in values]) / mass.sum()
    second = np.array([(mass * v**2).sum() for v in values]) / mass.sum()
    return math.log(mass.sum()), first, np.sqrt(second - first**2)


def figures(posterior: Posterior) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means, sds and their Monte Carlo errors of the identified quantities."""
    found = linear.identify(posterior.draws)
    both = torch.cat([found["w"], found["noise_sd"].unsqueeze(-1)], -1)
    flat = both.flatten(0, 1)
    return flat.mean(0).numpy(), flat.std(0).numpy(), mcse(both).numpy(), mcse(both, "sd").numpy()


def assert_draws_have(posterior: Posterior, mean: np.ndarray, sd: np.ndarray) -> None:
    ours, spread, error, error_of_sd = figures(posterior)
    assert np.all(np.abs(ours - mean) < 4.5 * error)
    assert np.all(np.abs(spread - sd) < 4.5 * error_of_sd)


def test_one_coefficient_by_quadrature(tiny: Data) -> None:
    log_evidence, mean, sd = quadrature(tiny[0][:, 0].numpy(), tiny[1].numpy(), None)
    exact = closed_form(partial(linear.closed_form, prior_scale=SCALE), *tiny, num_draws=50_000)
    assert exact.info.log_evidence == pytest.approx(log_evidence, abs=1e-4)
    np.testing.assert_allclose(exact.params["mean"].numpy(), mean[:2], atol=1e-3)
    assert_draws_have(exact, mean, sd)
    assert_draws_have(gibbs(linear.gibbs_steps(prior_scale=SCALE), *tiny, num_draws=8000, progress=False), mean, sd)


def test_student_noise_by_quadrature(tiny: Data) -> None:
    """Gibbs is exact; coordinate ascent is below the evidence and close; `evidence` by bridge agrees."""
    log_evidence, mean, sd = quadrature(tiny[0][:, 0].numpy(), tiny[1].numpy(), 3.0)
    options = {"noise": "student", "df": 3.0, "prior_scale": SCALE}
    draws = gibbs(linear.gibbs_steps(**options), *tiny, num_draws=20_000, num_chains=4, progress=False)
    assert_draws_have(draws, mean, sd)
    assert (draws.draws["df"] == 3.0).all()
    bound = cavi(linear.cavi_steps(**options), *tiny, num_restarts=4)
    assert len(bound.info.optima) == 1
    assert log_evidence - 1.5 < bound.info.elbo < log_evidence
    bridge = evidence(partial(linear.model, **options), *tiny, method="bridge", posterior=draws)
    assert bridge.estimate == pytest.approx(log_evidence, abs=5 * bridge.error + 1e-3)


@pytest.mark.parametrize("options", [{}, {"noise": "student", "df": 2.5}], ids=["normal", "student"])
def test_density_is_the_sum_of_its_parts(diabetes: Data, options: dict) -> None:
    x, y = diabetes
    w = torch.randn(11, dtype=torch.float64) * 20
    sites = {"w": w, "noise_variance": torch.tensor(2500.0).double()}
    trace = poutine.trace(poutine.condition(linear.model, sites)).get_trace(x, y, prior_scale=SCALE, **options)
    mean = w[0].numpy() + x.numpy() @ w[1:].numpy()
    rows = stats.t.logpdf(y, 2.5, mean, 50) if options else stats.norm.logpdf(y, mean, 50)
    prior = stats.invgamma.logpdf(2500.0, 0.5, scale=float(y.numpy().var()) / 2)
    prior += stats.norm.logpdf(w[0], y.mean(), 10 * SCALE * 50) + stats.norm.logpdf(w[1:], 0, SCALE * 50).sum()
    assert float(trace.log_prob_sum()) == pytest.approx(rows.sum() + prior, rel=1e-12)
    if options:
        sites["df"] = torch.tensor(2.5).double()
    np.testing.assert_allclose(linear.log_likelihood(sites, x, y).numpy(), rows, rtol=1e-10)


def test_other_units_change_nothing_but_the_units(diabetes: Data) -> None:
    """A target times a and plus c: exact, and every start and prior with it."""
    x, y = diabetes
    for a, c in ((1e-6, 0.0), (1e4, -3e6), (0.02, 1e3)):
        one, other = (closed_form(linear.closed_form, x, target) for target in (y, a * y + c))
        shift = torch.cat([torch.tensor([c]), torch.zeros(10)]).double()
        torch.testing.assert_close(other.params["mean"], a * one.params["mean"] + shift, rtol=1e-6, atol=1e-9 * a)
        assert float(other.params["rate"] / one.params["rate"]) == pytest.approx(a**2, rel=1e-6)
        change = other.info.log_evidence - one.info.log_evidence
        assert change == pytest.approx(-len(y) * math.log(a), abs=1e-4)


def test_minibatches_can_share_the_units_of_all_rows(diabetes: Data) -> None:
    x, y = diabetes
    sites = {"w": torch.ones(11).double(), "noise_variance": torch.tensor(2000.0).double()}
    conditioned = poutine.condition(linear.model, sites)
    whole, part, own = (
        poutine.trace(conditioned).get_trace(x[:rows], y[:rows], units=units)
        for rows, units in ((442, None), (50, linear.units_of(y)), (50, None))
    )
    for trace in (whole, part, own):
        trace.compute_log_prob()
    priors = [float(trace.nodes["w"]["log_prob"]) for trace in (whole, part, own)]
    assert priors[0] == priors[1] != priors[2]


@pytest.mark.parametrize("options", [{}, {"noise": "student"}], ids=["normal", "student"])
def test_simulate_follows_the_model(options: dict) -> None:
    x, y, truth = linear.simulate(50_000, num_features=2, noise_sd=0.7, seed=1, **options)
    residual = ((y - linear.predict(truth, x)) / 0.7).numpy()
    assert stats.kstest(residual, (stats.t(4) if options else stats.norm).cdf).pvalue > 1e-4
    w = linear.simulate(1, num_features=20_000, prior_scale=SCALE, noise_sd=2.0, **options)[2]["w"]
    assert w.shape == (20_001,)
    assert float(w[1:].std()) == pytest.approx(2 * SCALE, rel=4.5 / (2 * len(w)) ** 0.5)
    assert not torch.equal(y[:30], linear.simulate(30, num_features=2, seed=2)[1])


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 1, 3)])
def test_functions_of_draws_take_any_dimensions_in_front(diabetes: Data, leading: tuple[int, ...]) -> None:
    x, y = diabetes
    sites = {"w": torch.randn(*leading, 11).double(), "noise_variance": 100 + torch.rand(leading).double()}
    for more in ({}, {"df": 3 + torch.rand(leading).double()}):
        mean, density = linear.predict(sites | more, x), linear.log_likelihood(sites | more, x, y)
        drawn = linear.posterior_predictive(sites | more, x)
        assert mean.shape == density.shape == drawn.shape == (*leading, len(x))
        flat = {name: value.reshape(-1, *value.shape[len(leading) :]) for name, value in (sites | more).items()}
        for i, row in enumerate(density.reshape(-1, len(x))):
            one = {name: value[i] for name, value in flat.items()}
            torch.testing.assert_close(row, linear.log_likelihood(one, x, y))


@pytest.mark.parametrize("df", [None, 3.0, 0.7])
def test_posterior_predictive_has_the_distribution_and_leaves_no_trace(tiny: Data, df: float | None) -> None:
    x, _ = tiny
    sites = {"w": torch.tensor([0.4, -1.2]).double().expand(20_000, 2), "noise_variance": torch.full((20_000,), 4.0)}
    sites = {n: v.double() for n, v in sites.items()} | ({} if df is None else {"df": torch.full((20_000,), df)})
    sites = {n: v.double() for n, v in sites.items()}
    state = torch.get_rng_state()
    drawn = linear.posterior_predictive(sites, x, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    for row in (0, 7):
        known = (stats.norm if df is None else stats.t(df)).cdf
        assert stats.kstest(((drawn[:, row] - (0.4 - 1.2 * x[row, 0])) / 2).numpy(), known).pvalue > 1e-4
    assert torch.equal(drawn, linear.posterior_predictive(sites, x, seed=5))
    assert not torch.equal(drawn, linear.posterior_predictive(sites, x, seed=6))


def test_em_under_normal_noise_is_least_squares(diabetes: Data) -> None:
    x, y = diabetes
    found = em(linear.em_steps(), x, y).params
    theirs = LinearRegression().fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(found["w"].numpy(), np.r_[theirs.intercept_, theirs.coef_], rtol=1e-8)
    assert float(found["noise_variance"]) == pytest.approx(
        ((y.numpy() - theirs.predict(x.numpy())) ** 2).mean(), rel=1e-10
    )
    ridge = em(linear.em_steps(map=True), x, y).params
    exact = closed_form(linear.closed_form, x, y).params
    torch.testing.assert_close(ridge["w"], exact["mean"])
    mode = exact["rate"] / (exact["shape"] + 1 + 11 / 2)  # of the joint density of weights and variance
    torch.testing.assert_close(ridge["noise_variance"], mode)


@pytest.mark.parametrize("is_map", [False, True])
def test_em_under_student_noise_ends_where_the_gradient_is_zero(diabetes: Data, is_map: bool) -> None:
    """Of the likelihood, and of the Pyro model's joint density; from every start."""
    x, y = diabetes
    options = {"noise": "student", "df": 3.0, "prior_scale": SCALE}
    posterior = em(linear.em_steps(**options, map=is_map), x, y, tol=1e-10, num_restarts=4)
    assert len(posterior.info.optima) == 1
    found = {n: v.clone().requires_grad_() for n, v in posterior.params.items() if n != "df"}
    if is_map:
        trace = poutine.trace(poutine.condition(linear.model, found)).get_trace(x, y, **options)
        value = trace.log_prob_sum()
        assert value.item() == pytest.approx(float(posterior.info.objective[-1]), rel=1e-9)
    else:
        value = linear.log_likelihood(found | {"df": torch.tensor(3.0).double()}, x, y).sum()
        assert value.item() == pytest.approx(posterior.info.log_likelihood, rel=1e-12)
    for gradient, scale in zip(torch.autograd.grad(value, list(found.values())), (2.0, 200.0), strict=True):
        assert (gradient.abs() * scale).max() < 1e-3  # nats per posterior sd


def test_rows_far_off_have_little_influence_under_student_noise(tiny: Data) -> None:
    x, y = tiny
    far = torch.where(torch.arange(8) == 6, 300.0, y)
    for noise, least, most in (("normal", 20.0, math.inf), ("student", 0.0, 1.5)):
        one, two = (em(linear.em_steps(noise, df=2.0), x, target).params["w"][1] for target in (y, far))
        assert least <= abs(float(two - one)) < most


def test_a_perfect_fit_is_degenerate(tiny: Data) -> None:
    x, _ = tiny
    with pytest.raises(ArithmeticError, match="fit the target exactly"):
        em(linear.em_steps(), x, 1 + 2 * x[:, 0])


def test_divergence_is_that_of_the_draws() -> None:
    q, p = (
        NormalInverseGamma(
            torch.tensor([0.3, a]).double(),
            torch.tensor([[2.0, 0.4], [0.4, a]]).double(),
            torch.tensor(3.0 + a).double(),
            torch.tensor(2.0).double(),
        )
        for a in (1.0, 1.7)
    )

    def log_density(of: NormalInverseGamma, w: torch.Tensor, variance: torch.Tensor) -> np.ndarray:
        covariance = torch.linalg.inv(of.precision).numpy()
        standard = ((w - of.mean) / variance.sqrt()[:, None]).numpy()
        normal = stats.multivariate_normal(np.zeros(2), covariance).logpdf(standard) - np.log(variance.numpy())
        return normal + stats.invgamma.logpdf(variance.numpy(), float(of.shape), scale=float(of.rate))

    sites = draw(q, (100_000,))
    terms = log_density(q, sites["w"], sites["noise_variance"]) - log_density(p, sites["w"], sites["noise_variance"])
    assert float(divergence(q, p)) == pytest.approx(terms.mean(), abs=4.5 * terms.std() / len(terms) ** 0.5)
    assert float(divergence(q, q)) == pytest.approx(0, abs=1e-12)


def test_coordinate_ascent_is_exact_under_normal_noise(diabetes: Data) -> None:
    exact = closed_form(linear.closed_form, *diabetes)
    found = cavi(linear.cavi_steps(), *diabetes, num_restarts=3)
    assert found.info.elbo == pytest.approx(exact.info.log_evidence, abs=1e-8)
    for name, value in exact.params.items():
        torch.testing.assert_close(found.params[name], value)


def test_the_bound_is_the_mean_log_weight_of_q(tiny: Data) -> None:
    """Of draws of weights, variance and precisions, at q that is not the best."""
    x, y = tiny
    options = {"noise": "student", "df": 3.0, "prior_scale": SCALE}
    steps = linear.cavi_steps(**options)
    params = steps.m_step(steps.e_step(steps.init(1, x, y), x, y), x, y)
    bound = steps.e_step(params, x, y)
    moved = params | {"mean": params["mean"] + 0.2, "shape": params["shape"] + 1.5}
    q = NormalInverseGamma(**moved)
    sites = draw(q, (200_000,))
    w, variance = sites["w"], sites["noise_variance"]
    placed = NormalInverseGamma(**params)
    columns = torch.cat([torch.ones(8, 1).double(), x], 1)
    spread = (columns @ torch.linalg.inv(placed.precision) * columns).sum(1)
    rate = (3 + placed.shape / placed.rate * (y - columns @ placed.mean).square() + spread) / 2
    omega = torch.distributions.Gamma(torch.full_like(rate, 2.0), rate).sample((200_000,))
    rows = stats.norm.logpdf(y, (w @ columns.mT).numpy(), (variance[:, None] / omega).sqrt().numpy()).sum(1)
    prior = stats.gamma.logpdf(omega.numpy(), 1.5, scale=1 / 1.5) - stats.gamma.logpdf(
        omega.numpy(), 2.0, scale=1 / rate.numpy()
    )
    terms = rows + prior.sum(1)
    expected = terms.mean() - float(divergence(q, linear.conjugate_prior(linear.units_of(y), 1, SCALE)))
    assert float(steps.objective(moved, bound)) == pytest.approx(expected, abs=5 * terms.std() / len(terms) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by_hand", "family"),
    [(guides.linear.mean_field, guides.mean_field), (guides.linear.cholesky, guides.full_rank)],
)
def test_guides_by_hand_are_twins_of_the_families(tiny: Data, by_hand, family) -> None:
    one, two = (
        svi(linear.model, guide, *tiny, num_steps=3000, lr=0.02, num_particles=4, num_draws=20_000, progress=False).info
        for guide in (by_hand, family)
    )
    assert abs(one.elbo - two.elbo) < 0.02 + 4.5 * math.hypot(one.elbo_se, two.elbo_se)


@pytest.mark.slow
def test_the_conjugate_guide_reaches_the_evidence(diabetes: Data) -> None:
    exact = closed_form(linear.closed_form, *diabetes).info.log_evidence
    found = svi(linear.model, guides.linear.conjugate, *diabetes, num_steps=6000, lr=0.02, progress=False)
    assert exact - 0.05 < found.info.elbo < exact + 4.5 * found.info.elbo_se


@pytest.mark.parametrize("options", [{}, {"noise": "student"}], ids=["normal", "student"])
def test_nuts_and_gibbs_agree(diabetes: Data, options: dict) -> None:
    one = nuts(partial(linear.model, **options), *diabetes, num_draws=1000, progress=False)
    two = gibbs(linear.gibbs_steps(**options), *diabetes, num_draws=4000, progress=False)
    comparison = compare(two, one, identify=linear.identify)
    assert comparison.verdicts["nuts"].judgement == "good"
    mean, sd, error, error_of_sd = figures(one)
    mean2, sd2, error2, error_of_sd2 = figures(two)
    assert np.all(np.abs(mean - mean2) < 4.5 * np.hypot(error, error2))
    assert np.all(np.abs(sd - sd2) < 4.5 * np.hypot(error_of_sd, error_of_sd2))


def in_numpyro(x, y, noise: str, prior: str) -> None:
    """The same model as a user of NumPyro would write it, with the weights centred on the horseshoe's scales."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as d

    n, features = x.shape
    variance = numpyro.sample("noise_variance", d.InverseGamma(0.5, 0.5 * y.var()))
    sd = jnp.sqrt(variance)
    bias = numpyro.sample("bias", d.Normal(y.mean(), 10 * sd))
    if prior == "normal":
        weights = numpyro.sample("weights", d.Normal(0, sd).expand([features]).to_event(1))
    else:
        tau = numpyro.sample("tau", d.HalfCauchy(1 / 3 / np.sqrt(n)))
        lam = numpyro.sample("lam", d.HalfCauchy(1.0).expand([features]).to_event(1))
        slab = numpyro.sample("slab", d.InverseGamma(2.0, 2.0))
        z = numpyro.sample("z", d.Normal(0, 1).expand([features]).to_event(1))
        weights = sd * z * tau * lam * jnp.sqrt(slab / (slab + tau**2 * lam**2))
    numpyro.deterministic("w", jnp.concatenate([bias[None], weights]))
    mean = bias + x @ weights
    numpyro.sample("y", d.Normal(mean, sd) if noise == "normal" else d.StudentT(4.0, mean, sd), obs=y)


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "prior"), [("student", "normal"), ("normal", "horseshoe"), ("student", "horseshoe")])
def test_numpyro_agrees(diabetes: Data, noise: str, prior: str) -> None:
    """Means and sds within four Monte Carlo errors of both."""
    jax = pytest.importorskip("jax")
    pytest.importorskip("numpyro")
    from numpyro.infer import MCMC, NUTS

    x, y = (np.asarray(value) for value in diabetes)
    with jax.enable_x64(True):
        kernel = NUTS(partial(in_numpyro, noise=noise, prior=prior), target_accept_prob=0.99, dense_mass=True)
        chains = MCMC(
            kernel, num_warmup=1500, num_samples=2500, num_chains=4, chain_method="vectorized", progress_bar=False
        )
        chains.run(jax.random.PRNGKey(0), x, y)
        found = {name: np.asarray(value) for name, value in chains.get_samples(group_by_chain=True).items()}
    theirs = Posterior({name: torch.tensor(found[name]) for name in ("w", "noise_variance")}, None)  # type: ignore
    model = partial(linear.model, noise=noise, prior=prior)
    ours = nuts(model, *diabetes, num_draws=2500, target_accept=0.99 if prior == "horseshoe" else 0.8, progress=False)
    assert int(ours.info.divergences.sum()) <= 5  # of 10,000
    for (a, error_a), (b, error_b) in zip(
        [figures(ours)[::2], figures(ours)[1::2]], [figures(theirs)[::2], figures(theirs)[1::2]], strict=True
    ):
        assert np.all(np.abs(a - b) < 4 * np.hypot(error_a, error_b))


def test_the_horseshoe_is_the_stated_prior() -> None:
    """Weights of prior draws, given their scales, beside the formula; and its options change it as they should."""
    x = torch.randn(100, 4000, dtype=torch.float64)
    for options in ({}, {"relevant_share": 0.5}, {"prior_scale": 0.1}):
        pyro.set_rng_seed(0)
        sites = {"global_scale": torch.tensor(0.05).double(), "slab_variance": torch.tensor(0.5).double()}
        trace = poutine.trace(poutine.condition(linear.model, sites)).get_trace(x, prior="horseshoe", **options)
        trace.compute_log_prob()
        value = {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}
        share, scale = options.get("relevant_share", 0.25), options.get("prior_scale", 1.0)
        known = stats.halfcauchy.logpdf(0.05, scale=share / (1 - share) / 10)
        assert float(trace.nodes["global_scale"]["log_prob"]) == pytest.approx(
            known, rel=1e-6
        )  # torch has log 2 in float32
        known = stats.invgamma.logpdf(0.5, 2, scale=2 * scale**2)
        assert float(trace.nodes["slab_variance"]["log_prob"]) == pytest.approx(
            known, rel=1e-6
        )  # torch has log 2 in float32
        free = (0.05 * value["local_scale"]) ** 2
        sd = (value["noise_variance"] * 0.5 * free / (0.5 + free)).sqrt()
        assert stats.kstest((value["w"][1:] / sd).numpy(), stats.norm.cdf).pvalue > 1e-4
        assert stats.kstest(value["local_scale"].numpy(), stats.halfcauchy.cdf).pvalue > 1e-4


def test_options_out_of_range(tiny: Data) -> None:
    x, y = tiny
    for options, words in (
        ({"prior_scale": 0.0}, "prior_scale must be positive"),
        ({"df": -1.0}, "df must be positive"),
        ({"relevant_share": 1.0}, "relevant_share must lie between 0 and 1, got 1.0"),
    ):
        with pytest.raises(ValueError, match=f"linear: {words}"):
            linear.model(x, y, **options)
    for steps in (linear.gibbs_steps, linear.cavi_steps, partial(linear.em_steps, map=True)):
        with pytest.raises(ValueError, match=r"is for the normal prior, and prior is horseshoe: take nuts"):
            steps(prior="horseshoe")
    with pytest.raises(ValueError, match="linear: unknown noise 'laplace': there is normal and student"):
        check_noise("laplace", 4.0)
    with pytest.raises(ValueError, match="linear: unknown prior 'ridge': there is normal and horseshoe"):
        check_prior("ridge")
    linear.em_steps(prior="horseshoe")  # maximises the likelihood
    for options, words in (
        ({"noise": "student"}, "for normal noise"),
        ({"prior": "horseshoe"}, "for the normal prior"),
    ):
        with pytest.raises(ValueError, match=f"closed_form is {words}"):
            linear.closed_form(x, y, **options)
    with pytest.raises(ValueError, match="the target does not vary: all 8 values are 2"):
        nuts(linear.model, x, torch.full_like(y, 2.0), num_draws=10, progress=False)
    with pytest.raises(ValueError, match="num_draws must be at least 1"):
        closed_form(linear.closed_form, x, y, num_draws=0)


def test_steps_keep_single_precision(tiny: Data) -> None:
    single = tuple(value.float() for value in tiny)
    for options in ({}, {"noise": "student"}):
        steps, sampler = linear.cavi_steps(**options), linear.gibbs_steps(**options)
        params = steps.m_step(steps.e_step(steps.init(1, *single), *single), *single)
        data = sampler.prepare(*single)
        state = sampler.init(3, *data)
        for conditional in sampler.conditionals:
            state |= conditional(state, *data)
        ml = linear.em_steps(**options)
        found = ml.m_step(ml.e_step(ml.init(1, *single), *single), *single)
        for value in (*params.values(), *state.values(), *steps.draw(params, 5).values(), *found.values()):
            assert value.dtype == torch.float32
            assert torch.isfinite(value).all()
