"""Probabilistic PCA, and the mathematics it shares with factor analysis, against closed forms and other libraries."""

from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from torch.distributions import MultivariateNormal, kl_divergence

from guidebook.guides import factor_analysis as factor_analysis_guides
from guidebook.guides import full_rank, mean_field
from guidebook.guides import ppca as guides
from guidebook.inference import ClosedFormInfo, closed_form, em, svi
from guidebook.inference.engines.graph import traced
from guidebook.inference.mcmc.chains import make_target
from guidebook.inference.traces.prepare import prepare
from guidebook.models import factor_analysis, ppca
from guidebook.models.linear_gaussian import start

Sites = dict[str, torch.Tensor]
BOTH = pytest.mark.parametrize("module", [ppca, factor_analysis], ids=["ppca", "factor_analysis"])

# Log likelihood at the maximum, from the eigenvalues of the covariance (1/n) by another program.
IRIS = {1: -470.669458, 2: -404.962780, 3: -379.914630}
WINE = {1: -3026.795084, 2: -2875.636260, 3: -2794.918972}


@pytest.fixture(scope="module")
def wine() -> torch.Tensor:
    x = torch.tensor(load_wine().data)
    return (x - x.mean(0)) / x.std(0, correction=0)


def random_sites(module: ModuleType, *lead: int, dim: int = 5, factors: int = 2, seed: int = 0) -> Sites:
    generator = torch.Generator().manual_seed(seed)
    shape = (*lead, dim) if module is factor_analysis else lead
    return {
        "W": torch.randn(*lead, dim, factors, generator=generator, dtype=torch.float64),
        "loc": torch.randn(*lead, dim, generator=generator, dtype=torch.float64),
        "noise_variance": 0.2 + torch.rand(shape, generator=generator, dtype=torch.float64),
    }


def noise_matrix(sites: Sites) -> torch.Tensor:
    """Ψ of sites without leading dimensions."""
    return torch.eye(len(sites["loc"]), dtype=torch.float64) * sites["noise_variance"]


def rows(num: int = 30, dim: int = 5) -> torch.Tensor:
    return 3 + torch.randn(num, dim, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def at(sites: Sites, *index: int) -> Sites:
    return {name: value[index] for name, value in sites.items()}


def log_joint(module: ModuleType, x: torch.Tensor, sites: Sites, **options: float) -> torch.Tensor:
    """Of the Pyro model, every site's density as Pyro has it."""
    model = partial(module.model, latent_dim=sites["W"].shape[-1], **options)
    return poutine.trace(poutine.condition(model, sites)).get_trace(x).log_prob_sum()


# ---------------------------------------------------------------------------------------------- known answers


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
@pytest.mark.parametrize("data", ["iris", "wine"])
def test_closed_form_and_em_reach_the_known_maximum(request: pytest.FixtureRequest, data: str, latent_dim: int) -> None:
    x, known = request.getfixturevalue(data), (IRIS if data == "iris" else WINE)[latent_dim]
    sites = ppca.maximum_likelihood(x, latent_dim)
    assert float(sites["log_likelihood"]) == pytest.approx(known, abs=1e-6)
    assert float(ppca.log_likelihood(sites, x).sum()) == pytest.approx(float(sites["log_likelihood"]), abs=1e-9)
    found = em(ppca.em_steps(latent_dim), x, tol=1e-9, num_restarts=20)
    assert found.info.log_likelihood == pytest.approx(known, abs=1e-6)
    assert [optimum["restarts"] for optimum in found.info.optima] == [20]  # there are saddles, and no other optimum
    ours, theirs = ppca.identify(dict(found.params)), ppca.identify(sites)
    for name in ("loc", "covariance", "noise_variance"):
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("accelerate", [False, True])
def test_em_of_few_rows_in_many_columns_reaches_the_closed_form(accelerate: bool) -> None:
    x, _ = ppca.simulate(12, latent_dim=2, num_features=40, seed=3)
    sites = ppca.maximum_likelihood(x, 2)
    covariance = np.cov(x.numpy().T, bias=True)
    fitted = ppca.identify(sites)["covariance"].numpy()
    eigenvalues, theirs = np.linalg.eigvalsh(covariance)[::-1], np.linalg.eigvalsh(fitted)[::-1]
    np.testing.assert_allclose(theirs, [*eigenvalues[:2], *[eigenvalues[2:].mean()] * 38], rtol=1e-10)
    found = em(ppca.em_steps(2), x, tol=1e-9, num_steps=5000, num_restarts=2, accelerate=accelerate)
    assert found.info.log_likelihood == pytest.approx(float(sites["log_likelihood"]), abs=1e-6)


@BOTH
def test_five_thousand_columns_need_no_square_matrix(module: ModuleType, largest: Any) -> None:
    """Of 200 rows in 5000 columns nothing made is larger than data and a row; the optimum is from the rows' side."""
    x, _ = module.simulate(200, latent_dim=5, num_features=5000, seed=0)
    with largest:
        found = em(module.em_steps(5), x, num_restarts=1, num_steps=25)
        module.log_likelihood(dict(found.params), x)
        module.posterior(dict(found.params), x)
    assert x.numel() <= largest.numbers <= 201 * 5000
    if module is ppca:
        with largest:
            sites = ppca.maximum_likelihood(x, 5)
        assert largest.numbers <= 201 * 5000
        centred = (x - x.mean(0)).numpy()
        eigenvalues = np.linalg.eigvalsh(centred @ centred.T / 200)[::-1]
        noise = eigenvalues[5:].sum() / 4995
        assert float(sites["noise_variance"]) == pytest.approx(noise, rel=1e-10)
        np.testing.assert_allclose((sites["W"] ** 2).sum(0) + noise, eigenvalues[:5], rtol=1e-10)
        reached = ppca.log_likelihood(sites, x).sum()
        assert float(reached) == pytest.approx(float(sites["log_likelihood"]), rel=1e-12)
        assert found.info.log_likelihood < reached


def test_many_rows_are_gone_through_in_chunks(largest: Any) -> None:
    """40,000 rows of 4 columns: the copy with the mean taken off, which closed form and EM had made, is not there."""
    x, _ = ppca.simulate(40_000, latent_dim=2, num_features=4, seed=0)
    with largest:
        sites = ppca.maximum_likelihood(x, 2)
        found = em(ppca.em_steps(2), x, num_restarts=1)
    assert largest.numbers < x.numel() / 10
    eigenvalues = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True))[::-1]
    np.testing.assert_allclose((sites["W"] ** 2).sum(0) + sites["noise_variance"], eigenvalues[:2], rtol=1e-10)
    assert found.info.log_likelihood == pytest.approx(float(sites["log_likelihood"]), abs=1e-5)


def test_scikit_learn_agrees_once_its_divisor_is_allowed_for(wine: torch.Tensor) -> None:
    """PCA takes the covariance with 1/(n - 1), so that its eigenvalues are n / (n - 1) times ours."""
    theirs, ours = PCA(2).fit(wine.numpy()), ppca.maximum_likelihood(wine, 2)
    ratio = len(wine) / (len(wine) - 1)
    assert float(theirs.noise_variance_) == pytest.approx(float(ours["noise_variance"]) * ratio, rel=1e-10)
    scaled = {"W": ours["W"] * ratio**0.5, "loc": ours["loc"], "noise_variance": ours["noise_variance"] * ratio}
    np.testing.assert_allclose(
        ppca.log_likelihood(scaled, wine).numpy(), theirs.score_samples(wine.numpy()), rtol=1e-10
    )
    assert theirs.score(wine.numpy()) * len(wine) < float(ours["log_likelihood"])
    shrink = np.sqrt(theirs.explained_variance_ - theirs.noise_variance_) / theirs.explained_variance_
    factors = np.abs(theirs.transform(wine.numpy()) * shrink)  # an axis has either sign
    np.testing.assert_allclose(ppca.transform(scaled, wine).abs().numpy(), factors, atol=1e-10)


# ------------------------------------------------------------------------ densities and conditionals, both models


@BOTH
def test_density_equals_scipys_for_any_leading_dimensions(module: ModuleType) -> None:
    """As many draws as columns, too: one variance a draw is not one a column."""
    x, sites = rows(), random_sites(module, 2, 5)
    ours = module.log_likelihood(sites, x)
    assert ours.shape == (2, 5, 30)
    for chain in range(2):
        for draw in range(5):
            one = at(sites, chain, draw)
            covariance = one["W"] @ one["W"].mT + noise_matrix(one)
            theirs = stats.multivariate_normal(one["loc"].numpy(), covariance.numpy()).logpdf(x.numpy())
            np.testing.assert_allclose(ours[chain, draw].numpy(), theirs, rtol=1e-10)
            torch.testing.assert_close(module.log_likelihood(one, x), ours[chain, draw])
            torch.testing.assert_close(module.identify(sites)["covariance"][chain, draw], covariance)


@BOTH
def test_a_far_away_mean_costs_no_digits(module: ModuleType) -> None:
    """Moving data and loc by a million changes nothing but the last digits of the data themselves."""
    x, sites = rows(), random_sites(module)
    far = sites | {"loc": sites["loc"] + 1e6}
    torch.testing.assert_close(module.log_likelihood(far, x + 1e6), module.log_likelihood(sites, x), rtol=0, atol=1e-7)
    torch.testing.assert_close(module.transform(far, x + 1e6), module.transform(sites, x), rtol=0, atol=1e-7)


@BOTH
def test_factors_given_data_are_a_gaussian_conditioned(module: ModuleType) -> None:
    """(z, x) is normal with covariance [[I, Wᵀ], [W, W Wᵀ + Ψ]]: condition on x with d × d inverses."""
    x, sites = rows(), random_sites(module, 2)
    ours = module.posterior(sites, x)
    assert ours.mean.shape == (2, 30, 2)
    assert ours.covariance.shape == (2, 2, 2)
    for draw in range(2):
        one = at(sites, draw)
        gain = one["W"].mT @ torch.linalg.inv(one["W"] @ one["W"].mT + noise_matrix(one))
        torch.testing.assert_close(ours.mean[draw], (x - one["loc"]) @ gain.mT, rtol=1e-10, atol=1e-12)
        covariance = torch.eye(2, dtype=torch.float64) - gain @ one["W"]
        torch.testing.assert_close(ours.covariance[draw], covariance, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(module.transform(one, x), ours.mean[draw])


def test_the_covariance_of_a_lecture_is_wrong_and_tipping_and_bishops_is_right() -> None:
    """Covariance of z given x: σ² M⁻¹ with M = Wᵀ W + σ² I. Printed is σ² M with M = W Wᵀ + σ² I, which is d × d."""
    sites = random_sites(ppca, dim=3, factors=3)  # as many factors as columns, that the printed one has the right shape
    W, noise = sites["W"], sites["noise_variance"]
    eye = torch.eye(3, dtype=torch.float64)
    gain = W.mT @ torch.linalg.inv(W @ W.mT + noise * eye)
    truth = eye - gain @ W
    printed = noise * (W @ W.mT + noise * eye)
    right = noise * torch.linalg.inv(W.mT @ W + noise * eye)
    torch.testing.assert_close(right, truth, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ppca.posterior(sites, rows(dim=3)).covariance, truth, rtol=1e-10, atol=1e-12)
    assert (printed - truth).abs().max() > 0.5
    assert torch.linalg.eigvalsh(eye - printed)[0] < 0  # it even makes z less certain than its prior does


@BOTH
def test_log_likelihood_is_elbo_plus_divergence_for_any_normal(module: ModuleType) -> None:
    """log p(x[n]) = E_q[log p(x[n], z) - log q(z)] + KL(q ‖ p(z | x[n])), q any normal, a different one each row."""
    x, sites = rows(), random_sites(module)
    torch.manual_seed(0)
    factor = torch.randn(30, 2, 2, dtype=torch.float64)
    q = MultivariateNormal(torch.randn(30, 2, dtype=torch.float64), factor @ factor.mT + 0.1 * torch.eye(2))
    W, loc, psi = sites["W"], sites["loc"], noise_matrix(sites)
    spread = q.covariance_matrix
    given_z = MultivariateNormal(loc + q.loc @ W.mT, psi).log_prob(x)
    given_z = given_z - 0.5 * torch.einsum("nij,ij->n", spread, W.mT @ torch.linalg.inv(psi) @ W)
    eye = torch.eye(2, dtype=torch.float64)
    prior = MultivariateNormal(torch.zeros(2, dtype=torch.float64), eye)
    of_z = prior.log_prob(q.loc) - 0.5 * torch.einsum("nii->n", spread)
    exact = module.posterior(sites, x)
    gap = kl_divergence(q, MultivariateNormal(exact.mean, exact.covariance))
    assert gap.min() > 0.01
    torch.testing.assert_close(given_z + of_z + q.entropy() + gap, module.log_likelihood(sites, x), rtol=0, atol=1e-10)


@BOTH
def test_fishers_identity(module: ModuleType) -> None:
    """∇ log p(x) is the posterior mean of ∇ log p(x, z), the moments of z held fixed."""
    x = rows()
    sites = {name: value.requires_grad_() for name, value in random_sites(module).items()}
    marginal = torch.autograd.grad(module.log_likelihood(sites, x).sum(), list(sites.values()))
    mean, covariance = (value.detach() for value in module.posterior(sites, x))
    W, noise = sites["W"], sites["noise_variance"].expand(5)
    residuals = x - sites["loc"] - mean @ W.mT
    squares = residuals.square().sum(0) + len(x) * torch.einsum("ij,jk,ik->i", W, covariance, W)
    joint = -0.5 * (len(x) * noise.log() + squares / noise).sum()  # all that depends on the parameters
    expected = torch.autograd.grad(joint, list(sites.values()))
    for ours, theirs in zip(marginal, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@BOTH
def test_rotations_and_the_order_of_rows_change_nothing(module: ModuleType, wine: torch.Tensor) -> None:
    sites = random_sites(module, dim=13, factors=3)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    turned = sites | {"W": sites["W"] @ rotation}
    torch.testing.assert_close(module.log_likelihood(turned, wine), module.log_likelihood(sites, wine))
    torch.testing.assert_close(module.transform(turned, wine), module.transform(sites, wine) @ rotation)
    torch.testing.assert_close(log_joint(module, wine, turned), log_joint(module, wine, sites))
    for name, value in module.identify(sites).items():
        torch.testing.assert_close(module.identify(turned)[name], value)
    order = torch.randperm(len(wine))
    torch.testing.assert_close(log_joint(module, wine[order], sites), log_joint(module, wine, sites))
    torch.testing.assert_close(module.log_likelihood(sites, wine[order]), module.log_likelihood(sites, wine)[order])


# ------------------------------------------------------------------------------------------------- the Pyro functions


@BOTH
def test_density_of_the_pyro_model_by_scipy(module: ModuleType) -> None:
    """Prior as the docstring has it, and the likelihood of x with the factors summed out."""
    x, sites, scale = rows(), random_sites(module), 0.7
    density = stats.norm(0, scale).logpdf(sites["W"].numpy()).sum()
    density += stats.norm(0, 10 * scale).logpdf(sites["loc"].numpy()).sum()
    density += stats.invgamma(1, scale=scale**2 / 10).logpdf(sites["noise_variance"].numpy()).sum()
    covariance = sites["W"] @ sites["W"].mT + noise_matrix(sites)
    density += stats.multivariate_normal(sites["loc"].numpy(), covariance.numpy()).logpdf(x.numpy()).sum()
    assert float(log_joint(module, x, sites, prior_scale=scale)) == pytest.approx(density, rel=1e-10)


@BOTH
def test_density_of_the_latent_model_over_that_of_its_factors_is_the_likelihood(module: ModuleType) -> None:
    """p(x) = p(x, z) / p(z | x) whatever z is."""
    x, sites = rows(), random_sites(module)
    z = torch.randn(30, 2, dtype=torch.float64)
    model = poutine.substitute(poutine.condition(partial(module.latent_model, latent_dim=2), {"z": z}), sites)
    joint = poutine.trace(model).get_trace(x)
    assert {name for name, site in joint.nodes.items() if site["type"] == "param"} == set(sites)
    exact = module.posterior(sites, x)
    given = MultivariateNormal(exact.mean, exact.covariance).log_prob(z)
    torch.testing.assert_close(joint.log_prob_sum() - given.sum(), module.log_likelihood(sites, x).sum())


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_dimension_on_the_left_gives_each_draw_its_own_density(module: ModuleType, dtype: torch.dtype) -> None:
    x, sites = rows().to(dtype), {name: value.to(dtype) for name, value in random_sites(module, 3).items()}
    model = partial(module.model, latent_dim=2)
    with pyro.plate("draws", 3, dim=-2):
        batch = {name: value.unsqueeze(1) for name, value in sites.items()}
        trace = poutine.trace(poutine.condition(model, batch)).get_trace(x)
    trace.compute_log_prob()
    together = sum(trace.nodes[name]["log_prob"].reshape(3, -1).sum(1) for name in (*sites, "x"))
    alone = torch.stack([log_joint(module, x, at(sites, draw)) for draw in range(3)])
    assert together.dtype == dtype
    torch.testing.assert_close(together, alone)
    with pyro.validation_enabled(False):  # its checks branch on values
        mapped = torch.vmap(lambda one: log_joint(module, x, one))(sites)
    torch.testing.assert_close(mapped, alone)


@BOTH
def test_the_potential_can_be_traced_from_a_start_that_is_good(module: ModuleType, wine: torch.Tensor) -> None:
    model = partial(module.model, latent_dim=2)
    pyro.set_rng_seed(0)
    start, potential = make_target("nuts", prepare("nuts", model, (wine,)))
    assert traced(potential, start) is not None
    sites = potential.constrained(start)
    best = em(module.em_steps(2), wine, tol=1e-10, num_restarts=1).info.log_likelihood
    at_start = float(module.log_likelihood(sites, wine).sum())
    assert at_start <= best + 1e-6
    assert best - at_start < (1e-6 if module is ppca else 60)  # PPCA's answer, and FA's within reach


@BOTH
@pytest.mark.parametrize("by_hand", [False, True])
def test_principal_axes_are_found_once_per_fit(
    module: ModuleType, by_hand: bool, wine: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    found = start._axes
    monkeypatch.setattr(start, "_axes", lambda *args: calls.append(args) or found(*args))
    guide = {ppca: guides, factor_analysis: factor_analysis_guides}[module].mean_field if by_hand else mean_field
    fitted = svi(module.model, guide, wine, num_steps=2, lr=1e-9, num_draws=2, progress=False)
    assert len(calls) == 1
    if by_hand:
        torch.testing.assert_close(fitted.params["W.mean"], found(*calls[0])["W"], rtol=0, atol=1e-6)


@BOTH
def test_noise_starts_at_a_hundredth_of_the_variance_or_more(module: ModuleType) -> None:
    """Rows in a plane leave no noise; with noise of 2 % of the variance the start is what the axes leave."""
    shared = module is ppca
    x, _ = module.simulate(4000, latent_dim=2, seed=1)
    scale = x.std(0, correction=0)
    flat = (x / scale) @ torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64)).Q
    flat = flat @ torch.randn(2, 6, dtype=torch.float64)
    variance = flat.var(0, correction=0)
    variance = variance.mean() if shared else variance
    at_rest = start.starting_sites(flat, 2, shared_noise=shared)["noise_variance"]
    torch.testing.assert_close(at_rest, 0.01 * variance)
    noisy = flat + (0.02 * variance).sqrt() * torch.randn(flat.shape, dtype=torch.float64)
    assert (start.starting_sites(noisy, 2, shared_noise=shared)["noise_variance"] > 0.0105 * variance).all()


@BOTH
def test_drawn_data_have_the_models_size(module: ModuleType) -> None:
    for model in (module.model, module.latent_model):
        with pyro.get_param_store().scope():
            drawn = model(None, latent_dim=2, num_rows=7, num_features=4)
        assert drawn.shape == (7, 4)
        assert torch.isfinite(drawn).all()


@BOTH
def test_simulated_and_predicted_rows_have_the_models_moments(module: ModuleType) -> None:
    """Means and covariances of 40,000 rows within five standard errors of loc and W Wᵀ + Ψ."""
    num = 40_000
    x, truth = module.simulate(num, seed=4)
    sites = {name: torch.stack([truth[name], random_sites(module, dim=6)[name]]) for name in random_sites(module)}
    drawn = module.posterior_predictive(sites, num, seed=1)
    assert drawn.shape == (2, num, 6)
    for data, one in ((x, at(sites, 0)), (drawn[0], at(sites, 0)), (drawn[1], at(sites, 1))):
        covariance = one["W"] @ one["W"].mT + noise_matrix(one)
        variance = covariance.diagonal()
        assert ((data.mean(0) - one["loc"]).abs() < 5 * (variance / num).sqrt()).all()
        error = ((covariance.square() + variance * variance[:, None]) / num).sqrt()
        assert ((torch.cov(data.mT) - covariance).abs() < 5 * error).all()
    assert ((x - truth["loc"] - truth["z"] @ truth["W"].mT).var(0) / truth["noise_variance"] - 1).abs().max() < 0.05
    state = torch.random.get_rng_state()
    assert torch.equal(drawn, module.posterior_predictive(sites, num, seed=1))
    assert not torch.equal(drawn, module.posterior_predictive(sites, num, seed=2))
    assert torch.equal(x, module.simulate(num, seed=4)[0])
    assert torch.equal(state, torch.random.get_rng_state())


# --------------------------------------------------------------------------------------------------------------- EM


@BOTH
@pytest.mark.parametrize("map", [False, True])
@pytest.mark.parametrize("prior_scale", [0.3, 1.0])
def test_objective_of_em_is_the_pyro_models_and_never_falls(
    module: ModuleType, wine: torch.Tensor, map: bool, prior_scale: float
) -> None:
    """Ninety plain iterations from a random start, on data whose mean is not zero."""
    x = wine + 0.5 * torch.arange(13)
    steps = module.em_steps(3, map, prior_scale)
    torch.manual_seed(1)
    params, last = steps.init(1, x), -np.inf
    for _ in range(90):
        expectations = steps.e_step(params, x)
        value = float(steps.objective(params, expectations))
        assert value >= last - 1e-9 * abs(value)
        expected = module.log_likelihood(params, x).sum()
        if map:
            expected = log_joint(module, x, params, prior_scale=prior_scale)
        assert value == pytest.approx(float(expected), rel=1e-11)
        params, last = steps.m_step(expectations, x), value


@BOTH
@pytest.mark.parametrize("map", [False, True])
def test_fixed_point_of_em_is_stationary_for_the_pyro_model(module: ModuleType, wine: torch.Tensor, map: bool) -> None:
    x = wine + 0.5 * torch.arange(13)
    found = em(module.em_steps(2, map, 0.6), x, tol=1e-13, num_steps=20_000, num_restarts=1)
    sites = {name: value.clone().requires_grad_() for name, value in found.params.items()}
    objective = log_joint(module, x, sites, prior_scale=0.6) if map else module.log_likelihood(sites, x).sum()
    for gradient in torch.autograd.grad(objective, list(sites.values())):
        assert gradient.abs().max() < 1e-3  # thousands at the start
    prior_pull = torch.autograd.grad(
        log_joint(module, x, sites, prior_scale=0.6) - module.log_likelihood(sites, x).sum(), list(sites.values())
    )
    assert min(pull.abs().max() for pull in prior_pull) > 0.01  # the prior does move every site


@BOTH
def test_em_sees_a_change_through_numpys_memory(module: ModuleType, wine: torch.Tensor) -> None:
    """Data times c: both models' maximum falls by n d log c nats, as densities do."""
    values = wine.numpy().copy()
    x, steps = torch.from_numpy(values), module.em_steps(2)
    before = em(steps, x, tol=1e-9, num_restarts=1).info.log_likelihood
    values *= 5
    after = em(steps, x, tol=1e-9, num_restarts=1).info.log_likelihood
    assert before - after == pytest.approx(wine.numel() * np.log(5), abs=1e-4)


@BOTH
def test_steps_take_prepared_data_and_raw(module: ModuleType, wine: torch.Tensor) -> None:
    steps = module.em_steps(2, True, 0.7)
    prepared = steps.prepare(wine)
    assert len(prepared.rows) == 14
    params = {}
    for data in ((wine,), prepared):
        torch.manual_seed(0)
        begin = steps.init(1, *data)
        params[len(data)] = steps.m_step(steps.e_step(begin, *data), *data)
        assert steps.degenerate(begin, None, *data) is None
    for name, value in params[1].items():
        torch.testing.assert_close(params[len(prepared)][name], value)


def test_noise_below_rounding_error_is_degenerate(wine: torch.Tensor) -> None:
    """The threshold is ε times the total variance, 13: just above it counts as an optimum, just below does not."""
    sites = ppca.maximum_likelihood(wine, 2)
    least = torch.finfo(torch.float64).eps * 13
    for factor, flat in ((1.01, False), (0.99, True)):
        params = sites | {"noise_variance": torch.tensor(factor * least, dtype=torch.float64)}
        assert (ppca.em_steps(2).degenerate(params, None, wine) is not None) == flat
        assert ppca.em_steps(2, map=True).degenerate(params, None, wine) is None


def test_the_closed_form_takes_rows_just_off_a_plane() -> None:
    """Eigenvalues 4, 1 and δ², exactly: noise of δ² must exceed ε times 4."""
    signs = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    for delta, flat in ((4e-8, False), (2e-8, True)):
        x = signs * torch.tensor([2, 1, delta])
        if flat:
            with pytest.raises(ValueError, match="the rows lie in a plane"):
                ppca.maximum_likelihood(x, 2)
        else:
            assert float(ppca.maximum_likelihood(x, 2)["noise_variance"]) == pytest.approx(delta**2, rel=1e-6)


# ------------------------------------------------------------------------------------------------------------- guides


def test_linear_encoder_reaches_the_maximum_likelihood_and_the_exact_factors(wine: torch.Tensor) -> None:
    x = wine + 3.0
    model, guide = partial(ppca.latent_model, latent_dim=2), partial(guides.linear_encoder, latent_dim=2)
    fitted = svi(model, guide, x, num_steps=1500, lr=0.02, num_draws=400, progress=False)
    assert fitted.info.converged
    params = dict(fitted.params)
    best = float(ppca.maximum_likelihood(x, 2)["log_likelihood"])
    reached = float(ppca.log_likelihood(params, x).sum())
    assert 0 <= (best - reached) / len(wine) < 1e-3
    assert abs(best - fitted.info.elbo) / len(wine) < 1e-3 + 4 * fitted.info.elbo_se / len(wine)
    exact = ppca.posterior(params, x)
    mean = (x - params["encoder.centre"]) @ params["encoder.weight"].mT
    scale = params["encoder.scale_tril"]
    torch.testing.assert_close(mean, exact.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(scale @ scale.mT, exact.covariance, rtol=0, atol=0.01)
    assert fitted.draws["z"].shape == (1, 400, 178, 2)
    gap = (fitted.draws["z"][0].mean(0) - mean).abs().mean()
    assert gap < 4 * float(scale.diagonal().max()) / 400**0.5


def test_linear_encoder_in_minibatches(wine: torch.Tensor) -> None:
    model, guide = partial(ppca.latent_model, latent_dim=2), partial(guides.linear_encoder, latent_dim=2)
    fitted = svi(model, guide, wine, num_steps=800, lr=0.03, batch_size=64, num_draws=50, progress=False)
    best = float(ppca.maximum_likelihood(wine, 2)["log_likelihood"])
    assert (best - float(ppca.log_likelihood(dict(fitted.params), wine).sum())) / len(wine) < 5e-3


def test_factors_turn_the_loadings_until_they_are_independent(wine: torch.Tensor) -> None:
    """Mean-field over factors costs nothing: it fits loadings with a diagonal posterior, of the same likelihood."""
    model, guide = partial(ppca.latent_model, latent_dim=2), partial(guides.factors, latent_dim=2)
    fitted = svi(model, guide, wine, num_steps=3000, lr=0.05, num_draws=50, progress=False)
    params = dict(fitted.params)
    best = float(ppca.maximum_likelihood(wine, 2)["log_likelihood"])
    assert 0 <= (best - float(ppca.log_likelihood(params, wine).sum())) / len(wine) < 5e-3
    exact = ppca.posterior(params, wine)
    sd = exact.covariance.diagonal().sqrt()
    assert (exact.covariance / (sd * sd[:, None]))[0, 1].abs() < 0.15  # its sd over seeds is about .04
    variances = torch.linalg.eigvalsh(exact.covariance)
    assert variances.diff() / variances.sum() > 0.25  # the correlation if the loadings were turned by 45°
    torch.testing.assert_close(params["factors.scale"].mean(0), sd, rtol=0.05, atol=0)
    with pyro.get_param_store().scope():
        guide(wine)
        with pytest.raises(ValueError, match="parameters for 178 rows and was given 50"):
            guide(wine[:50])


def test_mean_field_by_hand_is_the_family_of_the_same_name() -> None:
    """Normals and a log-normal: what the autoguide places on the model too, so that both reach one bound."""
    x, _ = ppca.simulate(60, latent_dim=1, num_features=3, seed=2)
    model = partial(ppca.model, latent_dim=1)
    ours, theirs = (
        svi(model, guide, x, num_steps=600, lr=0.05, num_draws=2000, progress=False)
        for guide in (partial(guides.mean_field, latent_dim=1), mean_field)
    )
    error = (ours.info.elbo_se**2 + theirs.info.elbo_se**2) ** 0.5
    assert abs(ours.info.elbo - theirs.info.elbo) < 4 * error + 0.05
    for name in ("W", "loc", "noise_variance"):
        torch.testing.assert_close(ours.draws[name].std(1), theirs.draws[name].std(1), rtol=0.1, atol=0)


# ------------------------------------------------------------------------------------------------------------- errors


@BOTH
def test_bad_options_get_a_sentence(module: ModuleType, wine: torch.Tensor) -> None:
    name = module.__name__.rpartition(".")[2]
    for call, words in (
        (lambda: module.model(wine, latent_dim=13), "latent_dim must lie between 1 and one less than .* 13; got 13"),
        (lambda: module.latent_model(wine, latent_dim=0), "got 0"),
        (lambda: module.model(wine, prior_scale=0.0), "prior_scale must be positive"),
        (lambda: module.model(None, num_rows=3), "to draw data"),
        (lambda: module.simulate(5, latent_dim=9), "number of columns, 6; got 9"),
        (lambda: em(module.em_steps(13), wine), "got 13"),
        (lambda: em(module.em_steps(2, True, -1.0), wine), "prior_scale must be positive"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: .*{words}"):
            call()


def test_a_constant_column_is_refused_where_each_has_its_own_noise(wine: torch.Tensor) -> None:
    constant = torch.cat([wine, torch.ones(178, 1)], 1)
    encoder = partial(guides.linear_encoder, latent_dim=2)
    by_hand = partial(factor_analysis_guides.mean_field, latent_dim=2)
    for call in (
        lambda: em(factor_analysis.em_steps(2), constant),
        lambda: svi(factor_analysis.latent_model, encoder, constant, num_steps=2, progress=False),
        lambda: svi(factor_analysis.model, mean_field, constant, num_steps=2, progress=False),
        lambda: svi(factor_analysis.model, by_hand, constant, num_steps=2, progress=False),
    ):
        with pytest.raises(ValueError, match=r"^factor_analysis: column 13 is constant"):
            call()


def test_constant_columns_are_no_trouble_where_the_noise_is_shared(wine: torch.Tensor) -> None:
    constant = torch.cat([wine, torch.ones(178, 1)], 1)
    exact = closed_form(partial(ppca.maximum_likelihood, latent_dim=2), constant)
    assert isinstance(exact.info, ClosedFormInfo)
    assert "log_likelihood" not in exact.draws
    covariance = ppca.identify(exact.params)["covariance"]
    reached = MultivariateNormal(exact.params["loc"], covariance).log_prob(constant).sum()
    assert exact.info.log_likelihood == pytest.approx(float(reached), abs=1e-8)
    by_em = em(ppca.em_steps(2), constant, tol=1e-9)
    assert float(by_em.info.objective[-1]) == pytest.approx(float(reached), abs=1e-6)
    encoder = partial(guides.linear_encoder, latent_dim=2)
    for function, guide in ((ppca.latent_model, encoder), (ppca.model, mean_field), (ppca.model, full_rank)):
        fitted = svi(function, guide, constant, num_steps=20, num_draws=10, progress=False)
        assert all(value.isfinite().all() for value in fitted.draws.values())


def test_rows_in_a_plane_have_no_maximum_and_that_is_said() -> None:
    z, W = torch.randn(40, 2, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="ppca: the rows lie in a plane"):
        ppca.maximum_likelihood(z @ W, 2)
    with pytest.raises(ArithmeticError, match="the rows lie in a plane"):
        em(ppca.em_steps(2), z @ W, num_restarts=1)
    assert torch.isfinite(ppca.maximum_likelihood(z @ W, 1)["log_likelihood"])
    for words, latent_dim, x in (
        ("the rows lie in a plane", 2, (z @ W) * torch.tensor([1, 0, 1, 1, 1])),
        ("got 5", 5, z @ W),
    ):
        with pytest.raises(ValueError, match=words):
            ppca.maximum_likelihood(x, latent_dim)
