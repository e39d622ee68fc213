"""Estimates of the evidence against closed forms, quadrature and a published figure."""

import math
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuideList, AutoMultivariateNormal, AutoNormal
from scipy import stats
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from zoo import latent, linear

from guidebook.guides import full_rank, map_point, mean_field
from guidebook.guides import ppca as ppca_guides
from guidebook.inference import dadvi, gibbs, svi
from guidebook.inference.evidence import Evidence, evidence
from guidebook.inference.evidence.means import diagnose, independent
from guidebook.inference.evidence.weights import guide_density
from guidebook.inference.mcmc.annealing import schedule
from guidebook.inference.mcmc.latent_vector import latent_vector
from guidebook.models import logistic, ppca

Sites = dict[str, Tensor]
DATA = linear.data()
EXACT = linear.log_evidence(*DATA)
POSTERIOR = linear.posterior(*DATA)
ROWS = latent.data(20)
SHORT: dict[str, Any] = {"num_temperatures": 40, "num_leapfrogs": 4}


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


LEARNED = {"centre": number(3.0), "spread": number(2.0)}
SHARE = 0.8  # of a row's variance that is its latent variable's: spread² / (spread² + 1)
ENCODER = {"slope": number(SHARE), "shift": 3 * (1 - number(SHARE)), "scale": number(SHARE).sqrt()}


def posterior_draws(seed: int = 0, chains: int = 2, length: int = 200) -> Sites:
    torch.manual_seed(seed)
    return {"w": POSTERIOR.sample(torch.Size([chains, length]))}


def assert_near(found: Evidence, exact: float, errors: float = 4.5) -> None:
    """Within so many of the estimate's own standard errors: this file makes some fifty comparisons."""
    assert abs(found.estimate - exact) < errors * found.error + 1e-6, (str(found), exact)


def assert_honest(found: list[Evidence], exact: float) -> None:
    """Distances in standard errors vary as if they were standard normal, or nearly: up to a fifth of their spread."""
    z = torch.tensor([(one.estimate - exact) / one.error for one in found])
    low, high = (math.sqrt(float(stats.chi2(len(z) - 1).ppf(p)) / (len(z) - 1)) for p in (1e-5, 1 - 1e-5))
    assert 0.8 * low < z.std() < 1.2 * high, (z.std(), low, high)
    assert abs(z.mean()) < 4.5 * z.std() / math.sqrt(len(z)) + 0.3, z.mean()


# --------------------------------------------------------------------------------------------- importance weights


def cloud(x: Tensor) -> None:
    """z ~ Normal(0, I), x ~ Normal(z, I)."""
    z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def relative_variance(dim: int, at: float) -> float:
    """Of the weights Normal(x; z, 1), z from the prior: the square of a normal density is one of half the variance."""
    second = Normal(0.0, math.sqrt(1.5)).log_prob(torch.tensor(at)).exp() / (2 * math.sqrt(math.pi))
    first = Normal(0.0, math.sqrt(2.0)).log_prob(torch.tensor(at)).exp()
    return float(second / first**2) ** dim - 1


def test_the_priors_weights_vary_exponentially_with_the_dimension() -> None:
    count, seeds = 4000, 40
    for dim in (1, 4, 8):
        x = torch.full((dim,), 0.5).double()
        found = [evidence(cloud, x, method="naive", num_draws=count, seed=seed) for seed in range(seeds)]
        squares = torch.tensor([count * one.error**2 for one in found])
        known = relative_variance(dim, 0.5)
        assert abs(squares.mean() - known) < 5 * squares.std() / math.sqrt(seeds), (dim, squares.mean(), known)
        exact = float(Normal(0.0, math.sqrt(2.0)).log_prob(x.float()).sum())
        assert_near(found[0], exact)
        assert found[0].bound == "lower"


def test_an_exact_guide_has_weights_without_variance_row_by_row() -> None:
    found = evidence(latent.model, ROWS, guide=latent.encoder, params=LEARNED | ENCODER, num_draws=50)
    each = Normal(number(3.0), number(5.0).sqrt()).log_prob(ROWS)
    assert found.per_row is not None
    torch.testing.assert_close(found.per_row, each, rtol=0, atol=1e-9)
    assert found.estimate == pytest.approx(latent.log_likelihood(*LEARNED.values(), ROWS), abs=1e-8)
    assert found.error < 1e-8
    assert found.diagnostics["ess"] == pytest.approx(50)


def test_bounds_rise_with_the_number_of_weights_and_stay_below() -> None:
    wide = ENCODER | {"scale": 1.6 * ENCODER["scale"]}
    exact = latent.log_likelihood(*LEARNED.values(), ROWS)
    run = partial(evidence, latent.model, ROWS, guide=latent.encoder, params=LEARNED | wide, num_draws=20_000)
    bounds = [run(method="iwae", num_particles=k, seed=k) for k in (1, 4, 20)]
    gap = kl_divergence(Normal(number(0.0), wide["scale"]), Normal(number(0.0), ENCODER["scale"])) * len(ROWS)
    assert_near(bounds[0], exact - float(gap))
    for lower, higher in pairwise(bounds):
        assert higher.estimate - lower.estimate > 4 * math.hypot(lower.error, higher.error)
    assert exact - bounds[-1].estimate > 4 * bounds[-1].error
    assert {one.bound for one in bounds} == {"lower"}
    whole = run()
    assert_near(whole, exact)
    assert whole.estimate > bounds[-1].estimate
    assert whole.diagnostics["mean_log_weight"] == pytest.approx(exact - float(gap), abs=1.0)


@pytest.mark.parametrize("family", [mean_field, full_rank])
def test_weights_that_svi_has_left(family: Any) -> None:
    fitted = svi(linear.model, family, *DATA, num_steps=1500, num_draws=2000, progress=False)
    found = evidence(linear.model, *DATA, posterior=fitted)
    weights = fitted.info.log_weights
    assert weights is not None
    assert found.estimate == pytest.approx(float(weights.logsumexp(0)) - math.log(2000), abs=1e-9)
    assert found.per_row is None
    assert_near(found, EXACT)
    grouped = evidence(linear.model, *DATA, posterior=fitted, method="iwae", num_particles=20)
    rounding = 1e-6  # a full-rank guide of a normal posterior is exact
    assert float(weights.mean()) - rounding < grouped.estimate < found.estimate + rounding


def test_parameters_that_svi_has_learned() -> None:
    x, _ = ppca.simulate(60, latent_dim=2, num_features=5, seed=1)
    model, guide = (partial(one, latent_dim=2) for one in (ppca.latent_model, ppca_guides.linear_encoder))
    fitted = svi(model, guide, x, num_steps=1500, num_draws=200, progress=False)
    found = evidence(model, x, guide=guide, params=fitted.params, num_draws=2000)
    exact = ppca.log_likelihood({name: fitted.params[name] for name in ("W", "loc", "noise_variance")}, x)
    assert_near(found, float(exact.sum()))
    assert found.error < 0.1
    assert fitted.info.elbo is not None
    assert found.estimate > fitted.info.elbo - 4 * (fitted.info.elbo_se or 0)


@pytest.mark.parametrize("kind", ["module", "PyroModule"])
def test_modules_bring_their_parameters_along(kind: str) -> None:
    x, _ = ppca.simulate(15, latent_dim=2, num_features=3, seed=1)
    torch.manual_seed(0)
    net = (torch.nn.Linear if kind == "module" else pyro.nn.PyroModule[torch.nn.Linear])(2, 3).double()

    def decoder(x: Tensor) -> None:
        decode = pyro.module("decoder", net) if kind == "module" else net
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0).expand_by([2]).to_event(1))
            pyro.sample("x", dist.Normal(decode(z), 1.0).to_event(1), obs=x)

    found = evidence(decoder, x, method="naive", num_draws=4000)
    sites = {"W": net.weight.detach(), "loc": net.bias.detach(), "noise_variance": number(1.0)}
    assert_near(found, float(ppca.log_likelihood(sites, x).sum()))
    assert found.per_row is not None


def autoguide(kind: Any, scale: float) -> Any:
    """A normal at the posterior mean, with its covariance, or its standard deviations, times a factor's square."""
    guide = kind(linear.model)
    guide(*DATA)
    if kind is AutoNormal:
        guide.locs.w.data = POSTERIOR.mean.clone()
        guide.scales.w = scale * POSTERIOR.stddev
    else:
        guide.loc.data = POSTERIOR.mean.clone()
        root = torch.linalg.cholesky(POSTERIOR.covariance_matrix)
        guide.scale, guide.scale_tril = scale * root.diagonal(), root / root.diagonal()[:, None]
    return guide


@pytest.mark.parametrize("kind", [AutoNormal, AutoMultivariateNormal])
def test_autoguides_serve_with_the_density_they_have(kind: Any) -> None:
    pyro.clear_param_store()
    guide = autoguide(kind, 1.2)
    covariance = POSTERIOR.covariance_matrix if kind is AutoMultivariateNormal else POSTERIOR.variance.diag()
    normal = MultivariateNormal(POSTERIOR.mean, 1.44 * covariance)
    with torch.no_grad():
        log_q = guide_density(guide, latent_vector("evidence", linear.model, DATA), DATA)
        for w in POSTERIOR.sample(torch.Size([3])):
            assert float(log_q(w[None])) == pytest.approx(float(normal.log_prob(w)), abs=1e-5)
    found = evidence(linear.model, *DATA, guide=guide, num_draws=4000)
    gap = kl_divergence(normal, POSTERIOR)
    assert_near(found, EXACT)
    shape = torch.eye(3).double() - 1.44 * covariance @ POSTERIOR.precision_matrix  # the log weight is a quadratic form
    sd = float((0.5 * (shape @ shape).trace()).sqrt())
    assert found.diagnostics["mean_log_weight"] == pytest.approx(EXACT - float(gap), abs=4 * sd / 4000**0.5)
    led = evidence(linear.model, *DATA, method="ais", guide=guide, num_draws=60, num_temperatures=10)
    assert_near(led, EXACT)
    assert led.error < 0.5 * evidence(linear.model, *DATA, method="ais", num_draws=60, num_temperatures=10).error


def two_sites(x: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
    b = pyro.sample("b", dist.Normal(x.new_zeros(()), 1.0))
    pyro.sample("x", dist.Normal(a + b, 1.0), obs=x[0])


def test_a_guide_in_parts_some_of_them_written_by_hand() -> None:
    x = torch.tensor([1.3]).double()
    by_hand = AutoGuideList(two_sites)
    by_hand.append(AutoNormal(poutine.block(two_sites, expose=["a"]), init_scale=1.0))

    def rest(x: Tensor) -> None:
        pyro.sample("b", dist.Normal(x[0] / 3, 0.9))

    by_hand.append(rest)
    by_hand(x)
    exact = float(Normal(number(0.0), math.sqrt(3.0)).log_prob(x[0]))
    assert_near(evidence(two_sites, x, guide=by_hand, num_draws=2000), exact)


# ------------------------------------------------------------------------------------------------------- annealing


@pytest.mark.parametrize("path", ["sigmoid", "linear"])
def test_schedules_run_from_nought_to_one(path: str) -> None:
    betas = schedule(path, 7)
    assert float(betas[0]) == 0
    assert float(betas[-1]) == 1
    assert (betas.diff() > 0).all()
    torch.testing.assert_close(betas, 1 - betas.flip(0))


@pytest.mark.parametrize("path", ["sigmoid", "linear"])
def test_both_directions_bracket_the_evidence_of_a_conjugate_model(path: str) -> None:
    """Ever more tightly; an even path is a bad one, as most happens where β is small."""
    widths = []
    for temperatures in (6, 100):
        run = partial(evidence, linear.model, *DATA, num_draws=100, path=path, num_leapfrogs=5)
        up = run(method="ais", num_temperatures=temperatures)
        down = run(method="reverse_ais", posterior=posterior_draws(), num_temperatures=temperatures)
        assert (up.bound, down.bound) == ("lower", "upper")
        lower, upper = up.diagnostics["mean_log_weight"], down.diagnostics["mean_log_weight"]
        assert lower + 0.5 < EXACT < upper - 0.5
        assert lower < up.estimate
        assert down.estimate < upper
        widths.append(upper - lower)
        if path == "sigmoid" and temperatures == 100:
            assert_near(up, EXACT)
            assert_near(down, EXACT)
            assert max(up.error, down.error) < 0.8  # of a bracket some two nats wide
    assert widths[1] < 0.4 * widths[0]


def test_both_directions_bracket_the_evidence_of_every_row_under_ppca() -> None:
    x, truth = ppca.simulate(10, latent_dim=2, num_features=5, seed=1)
    params = {name: truth[name] for name in ("W", "loc", "noise_variance")}
    exact = ppca.log_likelihood(params, x)
    mean, covariance = ppca.posterior(params, x)
    torch.manual_seed(0)
    draws = {"z": MultivariateNormal(mean, covariance).sample(torch.Size([1, 100]))}
    model = partial(ppca.latent_model, latent_dim=2)
    run = partial(evidence, model, x, params=params, num_draws=100, **SHORT)
    up, down = run(method="ais"), run(method="reverse_ais", posterior=draws)
    for found in (up, down):
        assert_near(found, float(exact.sum()))
        assert found.per_row is not None
        assert found.per_row.shape == (10,)
        assert float(found.per_row.sum()) == pytest.approx(found.estimate)
        assert (found.per_row - exact).abs().max() < 1.5
        assert found.diagnostics["accept_rate"] > 0.6
    lower, upper = up.diagnostics["mean_log_weight"], down.diagnostics["mean_log_weight"]
    assert lower + 1 < float(exact.sum()) < upper - 1
    encoder = {
        "encoder.centre": params["loc"],
        "encoder.weight": covariance @ params["W"].mT / params["noise_variance"],
        "encoder.scale_tril": torch.linalg.cholesky(covariance),
    }
    guide = partial(ppca_guides.linear_encoder, latent_dim=2)
    for method in ("importance", "ais"):
        right = run(method=method, guide=guide, params=params | encoder, num_temperatures=4)
        assert right.error < 1e-6  # every path from the posterior to itself is without cost
        torch.testing.assert_close(right.per_row, exact, rtol=0, atol=1e-6)


def test_error_bars_of_annealing_are_honest() -> None:
    x = torch.tensor([0.5, -1.0, 1.5]).double()
    run = partial(evidence, cloud, x, method="ais", num_draws=60, num_temperatures=5, num_leapfrogs=2)
    assert_honest([run(seed=seed) for seed in range(40)], float(Normal(number(0.0), math.sqrt(2.0)).log_prob(x).sum()))


# --------------------------------------------------------------------------------------------------------- bridges


def test_error_bars_of_a_bridge_and_of_importance_weights_are_honest() -> None:
    found = [
        evidence(linear.model, *DATA, method="bridge", posterior=posterior_draws(seed, length=100), seed=seed)
        for seed in range(50)
    ]
    assert_honest(found, EXACT)
    assert max(one.error for one in found) < 0.05
    wide = ENCODER | {"scale": 1.5 * ENCODER["scale"]}
    run = partial(evidence, latent.model, ROWS, guide=latent.encoder, params=LEARNED | wide, num_draws=300)
    assert_honest([run(seed=seed) for seed in range(50)], latent.log_likelihood(*LEARNED.values(), ROWS))


def test_error_bars_of_a_bridge_allow_for_draws_that_resemble_their_neighbours() -> None:
    """Autoregressive normals, pushed through quantile functions to draws of a skewed posterior, Gamma(2, 4)."""
    x, found, alone = torch.zeros(3).double(), [], []
    for seed in range(50):
        for kept, results in ((0.95, found), (0.0, alone)):
            noise = np.random.default_rng(seed).normal(size=(2, 400))
            for step in range(1, 400):
                noise[:, step] = kept * noise[:, step - 1] + math.sqrt(1 - kept**2) * noise[:, step]
            draws = {"rate": torch.tensor(stats.gamma(2, scale=1 / 4).ppf(stats.norm.cdf(noise)))}
            results.append(evidence(poisson, x, method="bridge", posterior=draws, num_draws=20, seed=seed))
    exact = -2 * math.log(4)  # Γ(2) 1² / (Γ(2) 4²)
    assert_honest(found, exact)
    assert_honest(alone, exact)
    assert found[0].diagnostics["posterior_ess"] < 100 < alone[0].diagnostics["posterior_ess"]


def test_logistic_regression_has_the_known_evidence(breast_cancer: tuple[Tensor, Tensor]) -> None:
    draws = gibbs(logistic.gibbs_steps(), *breast_cancer, num_draws=1000, num_warmup=100, num_chains=2, progress=False)
    found = evidence(logistic.model, *breast_cancer, method="bridge", posterior=draws)
    assert found.estimate == pytest.approx(-55.224, abs=0.05)
    assert_near(found, -55.224)
    assert found.error < 0.06
    assert found.bound == "none"
    assert found.diagnostics["converged"]


def test_a_bridge_a_row() -> None:
    torch.manual_seed(0)
    z = SHARE * ROWS + 3 * (1 - SHARE) + math.sqrt(SHARE) * torch.randn(2, 200, 20, dtype=torch.float64)
    found = evidence(latent.model, ROWS, method="bridge", params=LEARNED, posterior={"z": z})
    assert found.per_row is not None
    torch.testing.assert_close(found.per_row, Normal(3.0, math.sqrt(5.0)).log_prob(ROWS), rtol=0, atol=0.1)
    assert_near(found, latent.log_likelihood(*LEARNED.values(), ROWS))


# ------------------------------------------------------------------------------------------- transforms and structure


def poisson(x: Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(x.new_tensor(2.0), 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Poisson(rate), obs=x)


def categorical(x: Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(x.new_ones(3)))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Categorical(weights), obs=x)


def test_on_constrained_sites_the_jacobian_counts() -> None:
    """Γ(a + Σx) b^a / (Γ(a) (b + n)^(a + Σx) Πx!) of Gamma and Poisson; Γ(3) ΠΓ(1 + n_k) / Γ(3 + n) of Dirichlet."""
    torch.manual_seed(0)
    counts, classes = torch.tensor([3.0, 1.0, 4.0]).double(), torch.tensor([0.0, 2.0, 0.0, 0.0]).double()
    exact = math.lgamma(10) - math.lgamma(2) - 10 * math.log(4) - math.log(6 * 24)
    rates = {"rate": torch.distributions.Gamma(number(10.0), 4.0).sample(torch.Size([2, 200]))}
    simplex = math.log(2) + math.log(6) - math.log(math.factorial(6))
    weights = {"weights": torch.distributions.Dirichlet(number(1.0) + torch.tensor([3.0, 0, 1])).sample((2, 200))}
    for model, x, known, draws in ((poisson, counts, exact, rates), (categorical, classes, simplex, weights)):
        for method in ("naive", "ais", "reverse_ais", "bridge"):
            given = {"posterior": draws} if method in ("reverse_ais", "bridge") else {}
            many = {"num_draws": 100, "num_temperatures": 20, "num_leapfrogs": 4} if "ais" in method else {}
            found = evidence(model, x, method=method, **given, **many)
            assert_near(found, known)
            assert found.error < 0.2


def coupled(x: Tensor) -> None:
    """Each row depends on its neighbour's latent variable, too, though all sites lie in one plate."""
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z + z.roll(1, -1), 1.0), obs=x)


def summed(x: Tensor) -> None:
    """What is seen besides the rows depends on all of them."""
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    pyro.sample("total", dist.Normal(z.sum(-1), 1.0), obs=x.new_tensor(1.5))


def test_rows_that_hang_together_are_not_taken_apart() -> None:
    x = torch.tensor([0.5, -1.0, 2.0, 0.3]).double()
    eye = torch.eye(4).double()
    for model, maps, seen in (
        (coupled, eye + eye.roll(1, 0), x),
        (summed, torch.cat([eye, torch.ones(1, 4).double()]), torch.cat([x, torch.tensor([1.5]).double()])),
    ):
        covariance = maps @ maps.mT + torch.eye(len(seen)).double()
        exact = MultivariateNormal(torch.zeros(len(seen)).double(), covariance).log_prob(seen)
        spread = torch.linalg.inv(eye + maps.mT @ maps)
        torch.manual_seed(0)
        z = MultivariateNormal(spread @ maps.mT @ seen, spread).sample(torch.Size([2, 300]))
        found = evidence(model, x, method="bridge", posterior={"z": z})
        assert found.per_row is None
        assert_near(found, float(exact))


def branching(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
    pyro.sample("x", dist.Normal(w if w.item() > 0 else 2 * w, 1.0), obs=x[0])


def test_models_that_branch_and_single_precision() -> None:
    grid = torch.linspace(-8, 8, 4001).double()
    slope = torch.where(grid > 0, grid, 2 * grid)
    exact = float(
        torch.trapezoid((Normal(0.0, 1.0).log_prob(grid) + Normal(slope, 1.0).log_prob(number(1.0))).exp(), grid).log()
    )
    x = torch.ones(1).double()
    assert_near(evidence(branching, x, method="naive", num_draws=1000), exact)
    assert_near(evidence(branching, x, method="ais", num_draws=20, num_temperatures=3, num_leapfrogs=2), exact)

    single = tuple(value.float() for value in DATA)
    for method in ("ais", "bridge"):
        given = {"posterior": posterior_draws()} if method == "bridge" else {"num_draws": 100, **SHORT}
        assert_near(evidence(linear.model, *single, method=method, **given), EXACT)


# ------------------------------------------------------------------------------------------- what is said, and refused


def gamma_guide(x: Tensor) -> None:
    pyro.sample("rate", dist.Gamma(x.new_tensor(10.0), 4.0))


def test_a_guides_density_of_a_constrained_site_includes_the_jacobian() -> None:
    """log q(u) = log q(rate) + u with u = log rate, of a guide by hand and of an autoguide, a normal in u."""
    x, u = torch.tensor([3.0, 1.0, 4.0]).double(), number(0.7)
    latents = latent_vector("evidence", poisson, (x,))
    by_hand = guide_density(gamma_guide, latents, (x,))(u.reshape(1, 1))
    torch.testing.assert_close(by_hand, (torch.distributions.Gamma(number(10.0), 4.0).log_prob(u.exp()) + u)[None])
    normal = AutoNormal(poisson, init_scale=0.4)
    normal(x)
    normal.locs.rate.data = number(0.5)
    with torch.no_grad():
        automatic = guide_density(normal, latents, (x,))(u.reshape(1, 1))
    torch.testing.assert_close(automatic, Normal(number(0.5), 0.4).log_prob(u)[None], rtol=1e-5, atol=0)
    exact = math.lgamma(10) - math.lgamma(2) - 10 * math.log(4) - math.log(6 * 24)
    found = evidence(poisson, x, method="ais", guide=gamma_guide, num_draws=10, num_temperatures=5)  # the posterior
    assert found.estimate == pytest.approx(exact, abs=1e-8)
    assert found.error < 1e-8


def test_the_bias_is_that_of_a_logarithm_of_a_mean() -> None:
    """Of twenty lognormal weights, a hundred thousand times: E log mean w - log E w is -var(w) / 2n E(w)², nearly."""
    torch.manual_seed(0)
    log_weights = 0.5 * torch.randn(20, 100_000, dtype=torch.float64)
    means = independent(log_weights)
    bias = diagnose(log_weights, means)["bias"]
    off = means.estimate - 0.5**2 / 2
    assert bias is not None
    assert bias / 100_000 == pytest.approx(-math.expm1(0.25) / 40, rel=0.1)
    assert float(off.mean()) == pytest.approx(bias / 100_000, abs=5 * float(off.std()) / 100_000**0.5 + 3e-4)
    run = partial(evidence, linear.model, *DATA, num_draws=50, num_temperatures=10)
    up, down = run(method="ais"), run(method="reverse_ais", posterior=posterior_draws())
    for one, sign in ((up, -1), (down, 1)):
        assert 0 < sign * one.diagnostics["bias"] <= 0.5 * one.error**2 + 1e-12


def test_each_threshold_warns_just_beyond_it() -> None:
    def warnings(error: float = 1.0, **diagnostics: Any) -> str:
        diagnostics["site_beyond"] = "tau"
        return " ".join(Evidence(-3.0, error, "lower", diagnostics, "ais", 0.0, 0).warnings)

    for just_right, beyond, words in (
        ({"k_hat": 0.5}, {"k_hat": 0.501}, "k̂ is 0.50, above 0.5: the weights have infinite variance"),
        ({"mass_beyond": 0.005, "error": 0.0}, {"mass_beyond": 0.0051, "error": 0.0}, "0.51 % of the posterior lies"),
        ({"mass_beyond": 0.1, "error": 0.31}, {"mass_beyond": 0.1, "error": 0.29}, "beyond the draws of 'tau'"),
        ({"r_hat": 1.1}, {"r_hat": 1.11}, "R̂ of the draws is 1.11, above 1.1"),
        ({"posterior_ess": 20.0}, {"posterior_ess": 19.0}, "worth 19 independent ones"),
        ({"ess": 10.0}, {"ess": 9.9}, "only 9.9 effective weights"),
        ({"bias": -0.5}, {"bias": -0.51}, "about 0.51 nats too low"),
        ({"bias": 0.2, "error": 0.4}, {"bias": 0.21, "error": 0.4}, "about 0.21 nats too low"),
        ({"least_accept_rate": 0.4}, {"least_accept_rate": 0.39}, "acceptance rate was 0.39"),
        ({"converged": True}, {"converged": False}, "did not converge"),
        ({"relative_mse": 0.1}, {"relative_mse": 0.101}, "fits the posterior poorly"),
    ):
        assert warnings(**just_right) == ""
        assert words in warnings(**beyond)
    assert "k̂ is 0.70, above 0.5" in warnings(k_hat=0.7)
    assert "k̂ is 0.70, above 0.7" in warnings(k_hat=0.701)
    upper = Evidence(-3.0, 1.0, "upper", {"bias": 0.6}, "reverse_ais", 0.0, 0)
    assert "about 0.6 nats too high" in str(upper)
    log_weights = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
    for count, known in ((99, False), (100, True)):
        part = log_weights[:count]
        assert (diagnose(part, independent(part))["k_hat"] is not None) is known


@pytest.mark.slow
def test_every_option_of_the_path_counts() -> None:
    run = partial(evidence, linear.model, *DATA, method="ais", num_draws=100, num_temperatures=20)
    default = run()
    assert run(num_temperatures=80).diagnostics["num_temperatures"] == 80
    one = run(num_leapfrogs=1)  # 0.1 as far as by ten: particles lag behind their density
    assert one.diagnostics["mean_log_weight"] < default.diagnostics["mean_log_weight"] - 1
    assert run(num_draws=60).estimate != default.estimate != run(path="linear").estimate
    groups = [
        evidence(latent.model, ROWS, guide=latent.encoder, params=LEARNED | ENCODER, method="iwae", num_particles=k)
        for k in (50, 10)
    ]
    assert [one.diagnostics["num_particles"] for one in groups] == [50, 10]


def test_same_seed_same_numbers_and_nothing_is_left_behind() -> None:
    pyro.get_param_store().clear()
    before = torch.get_rng_state()
    run = partial(evidence, latent.model, ROWS, params=LEARNED, method="naive", num_draws=500)
    first, again, other = run(seed=3), run(seed=3), run(seed=4)
    assert first.estimate == again.estimate != other.estimate
    assert first.seed == 3
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(pyro.get_param_store())


def test_the_sentence_says_what_to_worry_about() -> None:
    far = evidence(linear.model, *DATA, method="naive", num_draws=1000)
    assert str(far).startswith("log p(x) = -5")
    assert "nats by naive, a lower bound in expectation" in str(far)
    assert "k̂ is" in str(far)
    assert "effective weights: draw more" in str(far)
    close = evidence(linear.model, *DATA, method="bridge", posterior=posterior_draws())
    assert close.warnings == []
    assert "bound" not in str(close)
    assert str(close).endswith("by bridge; no warnings.")
    wide = ENCODER | {"scale": 2 * ENCODER["scale"]}
    many_rows = evidence(latent.model, latent.data(400), guide=latent.encoder, params=LEARNED | wide, num_draws=100)
    exact = latent.log_likelihood(*LEARNED.values(), latent.data(400))
    assert "nats too low" in str(many_rows)
    assert many_rows.estimate - many_rows.diagnostics["bias"] == pytest.approx(exact, abs=4 * many_rows.error)


def nothing(x: Tensor) -> None:
    pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x[0])


def auxiliary(x: Tensor, y: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0), infer={"is_auxiliary": True})
    pyro.sample("w", dist.Normal(a.expand(3), 1.0).to_event(1))


def a_point(x: Tensor, y: Tensor) -> None:
    pyro.sample("w", dist.Delta(x.new_zeros(3)).to_event(1))


def subsampled(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
    with pyro.plate("rows", len(x), subsample_size=2) as index:
        pyro.sample("x", dist.Normal(w, 1.0), obs=x[index])


def empty(x: Tensor, y: Tensor) -> None:
    pass


def test_refusals_are_one_sentence() -> None:
    draws = posterior_draws()
    approximate = svi(linear.model, full_rank, *DATA, num_steps=30, num_draws=100, progress=False)
    point = svi(linear.model, map_point, *DATA, num_steps=30, progress=False)
    fitted, deterministic = autoguide(AutoNormal, 1.0), dadvi(linear.model, *DATA, progress=False)
    bad: list[tuple[dict, str]] = [
        ({"method": "harmonic"}, "^evidence: unknown method 'harmonic': there is importance, "),
        ({"method": "naive", "num_draws": 1}, "^naive: num_draws must be at least 2, got 1$"),
        ({"method": "ais", "num_temperatures": 0}, "^ais: num_temperatures must be at least 1"),
        ({"method": "ais", "num_leapfrogs": 0}, "^ais: num_leapfrogs must be at least 1"),
        ({"method": "ais", "path": "cubic"}, "^ais: unknown path 'cubic': there is sigmoid, linear$"),
        ({"method": "iwae", "guide": fitted, "num_draws": 60}, "^iwae: num_draws must be at least twice"),
        ({"method": "naive", "seed": -1}, "seed must lie"),
        ({}, "^importance: give a fitted guide, or a posterior by svi, whose weights are used$"),
        ({"posterior": draws}, "^importance: the posterior has no weights of a guide"),
        ({"posterior": point}, "^importance: the posterior has no weights of a guide"),
        ({"posterior": approximate, "num_draws": 101}, "^importance: num_draws is 101, and the posterior has 100"),
        ({"guide": full_rank}, "^importance: the guide is not fitted"),
        ({"guide": AutoNormal(linear.model)}, "^importance: the guide is not fitted"),
        ({"guide": auxiliary}, "^evidence: the guide's site 'a' is not in the model"),
        ({"guide": a_point}, "^evidence: the guide is a point, which has no weights$"),
        ({"guide": empty}, "^evidence: the guide lacks the model's site 'w'$"),
        ({"method": "bridge", "guide": fitted, "posterior": draws}, "^bridge: it takes no guide$"),
        ({"method": "bridge"}, "^bridge: give draws from the posterior, as nuts or gibbs return them$"),
        ({"method": "reverse_ais"}, "^reverse_ais: give draws from the posterior"),
        ({"method": "bridge", "posterior": approximate}, "^bridge: the draws must be the posterior's own, and svi's"),
        ({"method": "reverse_ais", "posterior": deterministic}, "^reverse_ais: .* and dadvi's are of an approx"),
        ({"method": "bridge", "posterior": {"v": draws["w"]}}, "^bridge: the posterior has no draws of .* 'w'$"),
        ({"method": "bridge", "posterior": {"w": draws["w"][:, :4]}}, "^bridge: 4 draws, .* in 3 dimensions"),
        ({"method": "bridge", "posterior": {"w": draws["w"] * math.inf}}, "^bridge: a draw of .* edge"),
        ({"method": "bridge", "posterior": {"w": draws["w"][..., :1].expand(-1, -1, 3)}}, "^bridge: .* lie in a plane"),
        ({"method": "reverse_ais", "posterior": draws, "num_draws": 401}, "num_draws is 401, .* has 400 draws$"),
    ]
    for options, words in bad:
        with pytest.raises(ValueError, match=words):
            evidence(linear.model, *DATA, **options)
    exact = MultivariateNormal(torch.zeros_like(ROWS), torch.eye(len(ROWS)).double() + 1).log_prob(ROWS)
    found = evidence(subsampled, ROWS, method="naive")
    assert abs(found.estimate - float(exact)) < 4 * found.error + 0.01
    with pytest.raises(ValueError, match=r"^evidence: parameter 'centre' has no value: give it in params$"):
        evidence(latent.model, ROWS, method="naive")
    with pytest.raises(ValueError, match=r"^evidence: parameter 'slope' has no value"):
        evidence(latent.model, ROWS, guide=latent.encoder, params=LEARNED)
    with pytest.raises(FloatingPointError, match=r"^naive: a log density is not a number, or no draw"):
        evidence(cloud, torch.full((2,), 1e200, dtype=torch.float64), method="naive", num_draws=10)
