"""The variational autoencoder against closed forms: the linear decoder's, quadrature, and networks of torch's own."""

import math
from collections.abc import Callable
from functools import partial
from inspect import unwrap

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from scipy import stats
from sklearn.datasets import load_digits, load_wine
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence
from torch.fx.experimental.proxy_tensor import make_fx

from guidebook.guides import vae as guides
from guidebook.guides.vae.semi_amortised import _signs
from guidebook.inference import Posterior, svi
from guidebook.inference.optim.losses import kl_warm_up
from guidebook.models import ppca, vae

Params = dict[str, torch.Tensor]
NETWORKS = ("mlp", "conv", "linear")
LIKELIHOODS = (("bernoulli", False), ("gaussian", False), ("gaussian", True))


def rows(num: int = 12, columns: int = 16, likelihood: str = "bernoulli", dtype: torch.dtype = torch.float64):
    x = torch.randn(num, columns, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return ((x > 0) if likelihood == "bernoulli" else x).to(dtype)


def created(*functions: Callable, x: torch.Tensor, jitter: float = 0.3) -> Params:
    """Parameters that functions ask for, moved away from their starting values."""
    generator = torch.Generator().manual_seed(5)
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        for function in functions:
            function(x)
        found = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    for name, value in found.items():
        if name.endswith((".weight", ".bias")):
            value += jitter * torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
    return found


def placed(function: Callable, params: Params) -> Callable:
    """The function with parameters given, of which it need not use all."""

    def run(x: torch.Tensor) -> None:
        with pyro.get_param_store().scope(), pyro.validation_enabled(False):
            poutine.substitute(function, params)(x)

    return run


def density(function: Callable, params: Params, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Log density of the Pyro function at given parameters and factors."""
    return poutine.trace(poutine.condition(placed(function, params), {"z": z})).get_trace(x).log_prob_sum()


def sites_of(params: Params) -> Params:
    """A linear decoder's parameters under PPCA's names."""
    return {
        "W": params["decoder.mean.weight"],
        "loc": params["decoder.mean.bias"],
        "noise_variance": params["decoder.noise"],
    }


def linear(x: torch.Tensor, factors: int = 2) -> Params:
    """A random linear decoder with one variance, and the encoder that is its exact posterior."""
    options = {"latent_dim": factors, "network": "linear"}
    model = partial(vae.model, likelihood="gaussian", shared_variance=True, **options)
    params = created(model, partial(guides.full_covariance_encoder, **options), x=x)
    exact = ppca.posterior(sites_of(params), x)
    M = params["decoder.mean.weight"].mT @ params["decoder.mean.weight"]
    M = M + params["decoder.noise"] * torch.eye(factors, dtype=x.dtype)
    weight = torch.linalg.solve(M, params["decoder.mean.weight"].mT)
    L = torch.linalg.cholesky(exact.covariance)
    i, j = torch.tril_indices(factors, factors)
    raw = torch.where(i == j, L.clamp(min=1e-9).expm1().log()[i, j], L[i, j])
    params["encoder.mean_scale_tril.weight"] = torch.cat(
        [weight * params["encoder.spread"], x.new_zeros(len(raw), x.shape[1])]
    )
    shift = weight @ (params["encoder.centre"] - params["decoder.mean.bias"])
    params["encoder.mean_scale_tril.bias"] = torch.cat([shift, raw])
    return params


@pytest.fixture(scope="module")
def wine() -> torch.Tensor:
    x = torch.tensor(load_wine().data)
    return (x - x.mean(0)) / x.std(0, correction=0)


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return torch.tensor(load_digits().data, dtype=torch.float32) / 16


# ------------------------------------------------------------------------------------------------------------- model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("likelihood", "shared"), LIKELIHOODS)
def test_log_joint_is_the_formula(likelihood: str, shared: bool, dtype: torch.dtype) -> None:
    """By NumPy and SciPy; hidden layers of 5 and 7 units in the encoder's order, and a prior on the weights."""
    x = rows(likelihood=likelihood, dtype=dtype)
    options = {"likelihood": likelihood, "shared_variance": shared, "hidden": (5, 7), "latent_dim": 3}
    model = partial(vae.model, prior_scale=0.7, variance_floor=0.01, **options)
    params = created(model, x=x)
    z = torch.randn(12, 3, dtype=dtype)
    p = {name.removeprefix("decoder."): value.double().numpy() for name, value in params.items()}
    h = np.tanh(z.double().numpy() @ p["0.weight"].T + p["0.bias"])
    h = np.tanh(h @ p["1.weight"].T + p["1.bias"])
    assert h.shape == (12, 5)
    head = "logits" if likelihood == "bernoulli" else "mean"
    out = h @ p[f"{head}.weight"].T + p[f"{head}.bias"]
    if likelihood == "bernoulli":
        expected = stats.bernoulli(1 / (1 + np.exp(-out))).logpmf(x.double().numpy()).sum()
    else:
        raw = 0 if shared else h @ p["variance.weight"].T + p["variance.bias"]
        variance = p["noise"] if shared else 0.01 + np.log1p(np.exp(raw))
        expected = stats.norm(out, np.sqrt(variance)).logpdf(x.double().numpy()).sum()
    expected += stats.norm.logpdf(z.double().numpy()).sum()
    expected += sum(stats.norm(0, 0.7).logpdf(value).sum() for name, value in p.items() if name.endswith("weight"))
    got = density(model, params, z, x)
    assert got.dtype == dtype
    assert float(got) == pytest.approx(expected, rel=1e-10 if dtype == torch.float64 else 1e-5)


def test_convolutions_are_torchs() -> None:
    """Decoder and encoder of 8 × 8 images, layers of torch.nn given the same weights."""
    nn = torch.nn
    x = rows(5, 64)
    options = {"network": "conv", "hidden": (3, 6), "latent_dim": 2}
    params = created(partial(vae.model, **options), partial(guides.encoder, **options), x=x)
    up, last = nn.ConvTranspose2d(6, 3, 4, 2, 1, bias=False), nn.ConvTranspose2d(3, 1, 4, 2, 1, bias=False)
    down, again = nn.Conv2d(1, 3, 4, 2, 1, bias=False), nn.Conv2d(3, 6, 4, 2, 1, bias=False)
    for layer, name in ((up, "decoder.1"), (last, "decoder.logits"), (down, "encoder.0"), (again, "encoder.1")):
        layer.weight = nn.Parameter(params[f"{name}.weight"])
    z = torch.randn(5, 2, dtype=torch.float64)
    with torch.no_grad():
        h = torch.tanh(z @ params["decoder.0.weight"].mT + params["decoder.0.bias"]).reshape(5, 6, 2, 2)
        h = torch.tanh(up(h) + params["decoder.1.bias"].reshape(3, 4, 4))
        logits = last(h).flatten(1) + params["decoder.logits.bias"]
        h = ((x - params["encoder.centre"]) / params["encoder.spread"]).reshape(5, 1, 8, 8)
        h = torch.tanh(down(h) + params["encoder.0.bias"].reshape(3, 4, 4))
        h = torch.tanh(again(h) + params["encoder.1.bias"].reshape(6, 2, 2)).flatten(1)
        out = h @ params["encoder.mean_scale.weight"].mT + params["encoder.mean_scale.bias"]
    torch.testing.assert_close(vae.decode(params, z).mean, logits.sigmoid())
    torch.testing.assert_close(vae.encode(params, x), vae.Moments(out[:, :2], nn.functional.softplus(out[:, 2:])))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("likelihood", "shared"), LIKELIHOODS)
def test_a_dimension_on_the_left_gives_each_draw_its_own_density(network: str, likelihood: str, shared: bool) -> None:
    x = rows(likelihood=likelihood)
    options = {"likelihood": likelihood, "network": network, "shared_variance": shared, "prior_scale": 2.0}
    model = partial(vae.latent_model, **options)
    params = created(model, x=x)
    z = torch.randn(3, 12, 2, dtype=torch.float64)
    with pyro.plate("draws", 3, dim=-2):
        trace = poutine.trace(poutine.condition(placed(model, params), {"z": z})).get_trace(x)
    trace.compute_log_prob()
    together = sum(trace.nodes[name]["log_prob"].sum(1) for name in "zx")
    together = together + trace.nodes["decoder.prior"]["log_prob"].reshape(-1)[0]  # the plate has one for each draw
    alone = torch.stack([density(model, params, one, x) for one in z])
    torch.testing.assert_close(together, alone)
    with pyro.validation_enabled(False):
        torch.testing.assert_close(torch.vmap(lambda one: density(model, params, one, x))(z), alone)
        traced = make_fx(lambda one: density(model, params, one, x))(z[0])
    torch.testing.assert_close(traced(z[1]), alone[1])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("likelihood", "shared"), LIKELIHOODS)
def test_the_model_draws_data_of_its_size(network: str, likelihood: str, shared: bool) -> None:
    options = {"likelihood": likelihood, "network": network, "shared_variance": shared}
    with pyro.get_param_store().scope():
        drawn = vae.model(None, num_rows=7, num_features=64, **options)
    assert drawn.shape == (7, 64)
    assert ((drawn == 0) | (drawn == 1)).all() == (likelihood == "bernoulli")


def test_a_decoder_starts_at_the_columns_means_and_variances(wine: torch.Tensor) -> None:
    x = 3 + wine * torch.arange(1, 14)
    with pyro.get_param_store().scope():
        vae.model(x, likelihood="gaussian", hidden=20)
        found = {name: value.detach() for name, value in pyro.get_param_store().items()}
    at_zero = vae.decode(found, torch.zeros(1, 2, dtype=torch.float64))
    torch.testing.assert_close(at_zero.mean[0], x.mean(0))
    torch.testing.assert_close(
        at_zero.scale[0].square(), x.var(0, correction=0).clamp(min=0.01 * 63), rtol=0.02, atol=0
    )
    assert found["decoder.0.weight"].std() == pytest.approx(math.sqrt(2 / 22), rel=0.25)  # Glorot and Bengio
    with pyro.get_param_store().scope():
        vae.model(x, likelihood="gaussian", shared_variance=True)
        noise = pyro.param("decoder.noise").detach()
    torch.testing.assert_close(noise, x.var(0, correction=0).clamp(min=0.01 * 63).mean(), rtol=1e-3, atol=0)


def test_without_data_a_decoder_starts_at_unit_variance() -> None:
    for options in ({}, {"shared_variance": True}):
        with pyro.get_param_store().scope():
            vae.model(None, num_rows=2, num_features=4, likelihood="gaussian", **options)
            found = {name: value.detach() for name, value in pyro.get_param_store().items()}
        moments = vae.decode(found, torch.zeros(1, 2))
        torch.testing.assert_close(moments.mean, torch.zeros(1, 4))
        torch.testing.assert_close(moments.scale, torch.ones(1, 4))


@pytest.mark.parametrize("guide", [guides.encoder, guides.full_covariance_encoder])
def test_an_encoder_starts_at_unit_scale_and_standardises_its_rows(guide: Callable) -> None:
    x = 3 + 2 * rows(likelihood="gaussian")
    params = created(partial(guide, latent_dim=3), x=x, jitter=0.0)
    torch.testing.assert_close(params["encoder.centre"], x.mean(0))
    torch.testing.assert_close(params["encoder.spread"], (x - x.mean(0)).square().mean().sqrt())
    at_rest = params | {name: 0 * value for name, value in params.items() if "mean_scale" in name and "weight" in name}
    moments = vae.encode(at_rest, x)
    torch.testing.assert_close(moments.mean, torch.zeros_like(moments.mean))
    torch.testing.assert_close(moments.scale, torch.ones_like(moments.scale))
    constant = created(guide, x=torch.ones(4, 3), jitter=0.0)
    assert constant["encoder.spread"] == 1


# ------------------------------------------------------------------------------------------------ the linear decoder


def test_a_linear_decoder_is_ppca_and_its_exact_encoder_has_no_variance(wine: torch.Tensor) -> None:
    """The importance weights are all p(x): the bound and the estimate are the marginal likelihood, seed by seed."""
    params = linear(wine, 3)
    exact = ppca.log_likelihood(sites_of(params), wine)
    guide = partial(guides.full_covariance_encoder, latent_dim=3, network="linear")
    for options in ({}, {"guide": guide}):
        for seed in (0, 1):
            torch.testing.assert_close(vae.log_likelihood(params, wine, num_draws=4, seed=seed, **options), exact)
            torch.testing.assert_close(vae.elbo(params, wine, num_draws=2, seed=seed, **options), exact)
    posterior = ppca.posterior(sites_of(params), wine)
    encoded = vae.encode(params, wine)
    torch.testing.assert_close(encoded.mean, posterior.mean)
    torch.testing.assert_close(encoded.scale[0], posterior.covariance.diagonal().sqrt())
    model = partial(vae.model, latent_dim=3, likelihood="gaussian", network="linear", shared_variance=True)
    z = torch.randn(178, 3, dtype=torch.float64)
    given = MultivariateNormal(posterior.mean, posterior.covariance).log_prob(z).sum()
    torch.testing.assert_close(density(model, params, z, wine) - given, exact.sum())


def test_full_covariance_reaches_the_maximum_likelihood_and_the_exact_factors(wine: torch.Tensor) -> None:
    x = wine + 3
    model = partial(vae.model, likelihood="gaussian", network="linear", shared_variance=True)
    guide = partial(guides.full_covariance_encoder, network="linear")
    fitted = svi(model, guide, x, num_steps=900, lr=0.03, num_draws=100, progress=False)
    params = dict(fitted.params)
    best = float(ppca.maximum_likelihood(x, 2)["log_likelihood"])
    assert 0 <= (best - float(ppca.log_likelihood(sites_of(params), x).sum())) / 178 < 1e-3
    exact, encoded = ppca.posterior(sites_of(params), x), vae.encode(params, x)
    torch.testing.assert_close(encoded.mean, exact.mean, rtol=0, atol=0.06)
    off = (encoded.scale / exact.covariance.diagonal().sqrt() - 1).abs()
    assert off.mean() < 0.02
    assert off.max() < 0.15
    assert fitted.draws["z"].shape == (1, 100, 178, 2)
    assert set(fitted.draws) == {"z"}
    assert float(vae.elbo(params, x).mean()) == pytest.approx(best / 178, abs=2e-3)


def test_amortisation_costs_nothing_where_the_posterior_is_linear(wine: torch.Tensor) -> None:
    """Best independent factors: the exact means, variances 1/Λ[j, j]; a row loses ½ (Σ log Λ[j, j] - log |Λ|) by them.

    The encoder of straight lines has those in reach. At any other of its parameters the bound is lower.
    """
    params = linear(wine)
    posterior = ppca.posterior(sites_of(params), wine)
    precision = torch.linalg.inv(posterior.covariance)
    scale = precision.diagonal().rsqrt()
    loss = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    best = (ppca.log_likelihood(sites_of(params), wine) - loss).detach()
    params |= {"factors.loc": posterior.mean, "factors.scale": scale.expand(178, 2)}
    weight, bias = (params.pop(f"encoder.mean_scale_tril.{kind}")[:2] for kind in ("weight", "bias"))
    params["encoder.mean_scale.weight"] = torch.cat([weight, torch.zeros_like(weight)])
    params["encoder.mean_scale.bias"] = torch.cat([bias, scale.expm1().log()])
    by_row = vae.elbo(params, wine, num_draws=4000, guide=guides.factors).detach()
    amortised = vae.elbo(params, wine, num_draws=4000, seed=1).detach()
    spread = float(loss.detach()) ** 0.5  # of log w, roughly: its variance is twice the divergence and more
    error = 5 * 2 * spread / (4000 * 178) ** 0.5
    assert loss > 10 * error
    assert abs(float((by_row - best).mean())) < error
    assert abs(float((amortised - best).mean())) < error
    params["encoder.mean_scale.weight"] = 0.8 * params["encoder.mean_scale.weight"]
    assert float((best - vae.elbo(params, wine, num_draws=400)).mean()) > error


# ------------------------------------------------------------------------------------------------------------- bounds


def test_bounds_lie_below_the_evidence_by_quadrature_and_rise_to_it() -> None:
    """One factor, integrated over a fine grid."""
    x, params = vae.simulate(60, latent_dim=1, num_features=8, seed=2)
    params |= created(partial(guides.encoder, latent_dim=1), x=x, jitter=0.0)
    params["encoder.mean_scale.weight"] *= 0.3  # near the prior, so that no weight is large
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64).unsqueeze(-1)
    logits = vae.decode(params, grid).mean.logit()
    joint = Bernoulli(logits=logits.unsqueeze(1)).log_prob(x).sum(-1) + Normal(0, 1).log_prob(grid)
    exact = joint.logsumexp(0) + math.log(16 / 4000)
    estimates = {k: [vae.log_likelihood(params, x, num_draws=k, seed=s).mean() for s in range(30)] for k in (1, 5, 50)}
    means = {k: float(torch.stack(values).mean()) for k, values in estimates.items()}
    errors = {k: float(torch.stack(values).std()) / 30**0.5 for k, values in estimates.items()}
    bound = float(vae.elbo(params, x, num_draws=2000).mean())
    assert abs(means[1] - bound) < 5 * errors[1]
    assert means[1] < means[5] - 3 * errors[1]
    assert means[5] < means[50] - 3 * errors[5]
    assert means[50] < float(exact.mean()) + 4 * errors[50]
    torch.testing.assert_close(vae.log_likelihood(params, x, num_draws=30_000), exact, rtol=0, atol=0.15)
    assert abs(float((vae.log_likelihood(params, x, num_draws=30_000) - exact).mean())) < 0.03


def test_parts_change_no_estimate_and_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each weight is p(x), so is their mean, however many parts of whatever sizes they are made in."""
    params = linear(rows(likelihood="gaussian"))
    x = rows(likelihood="gaussian")
    exact = ppca.log_likelihood(sites_of(params), x)
    monkeypatch.setattr("guidebook.models.vae.bounds.MOST_NUMBERS", 12 * 16 * 7)
    state = torch.random.get_rng_state()
    torch.testing.assert_close(vae.log_likelihood(params, x, num_draws=100), exact)
    torch.testing.assert_close(vae.elbo(params, x, num_draws=100), exact)
    assert torch.equal(state, torch.random.get_rng_state())
    params = created(vae.model, guides.encoder, x=rows())
    one, same, other = (vae.log_likelihood(params, rows(), num_draws=9, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_divergence_per_unit_is_torchs() -> None:
    x = rows(likelihood="gaussian")
    for guide in (guides.encoder, guides.full_covariance_encoder):
        params = created(vae.model, guide, x=rows()) | created(guide, x=x)
        z = vae.encode(params, x)
        expected = kl_divergence(Normal(z.mean, z.scale), Normal(0.0, 1.0)).mean(0)
        torch.testing.assert_close(vae.kl_per_unit(params, x), expected)
    prior = params | {"encoder.mean_scale_tril.weight": 0 * params["encoder.mean_scale_tril.weight"]}
    one = math.log(math.e - 1)
    prior["encoder.mean_scale_tril.bias"] = torch.tensor([0, 0, one, 0, one], dtype=torch.float64)
    torch.testing.assert_close(vae.kl_per_unit(prior, x), torch.zeros(2, dtype=torch.float64))


# ------------------------------------------------------------------------------------------------------------- guides


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("guide", [guides.encoder, guides.full_covariance_encoder, guides.flow_encoder])
def test_guides_and_the_models_own_reading_of_them_agree(guide: Callable, network: str) -> None:
    """`encode` reads the parameters of a guide by their names; a flow that has not been moved is its encoder."""
    x = rows()
    guide = partial(guide, network=network, latent_dim=3)
    params = created(partial(vae.model, latent_dim=3), guide, x=x)
    is_flow = guide.func is guides.flow_encoder
    if is_flow:
        params = {n: v * 0 if ".out." in n else v for n, v in params.items()}
        with pytest.raises(ValueError, match="no encoder of normals: give what was fitted as guide="):
            vae.encode(params, x)
    plain = {name: value for name, value in params.items() if ".flow." not in name}
    z = torch.randn(12, 3, dtype=torch.float64)
    mean, scale = vae.encode(plain, x)
    with pyro.plate("draws", 2, dim=-2):
        trace = poutine.trace(placed(guide, params)).get_trace(x)
    assert trace.nodes["z"]["value"].shape == (2, 12, 3)
    if guide.func is guides.full_covariance_encoder:
        q = trace.nodes["z"]["fn"]
        torch.testing.assert_close(q.mean[0], mean)
        torch.testing.assert_close(q.variance[0].sqrt(), scale)
    else:
        torch.testing.assert_close(density(guide, params, z, x), Normal(mean, scale).log_prob(z).sum())


def test_a_flow_is_a_density() -> None:
    """Its integral over a grid is 1, with couplings far from the identity, and no two rows have the same one."""
    x = rows(3)
    guide = partial(guides.flow_encoder, flow_hidden=8)
    params = created(vae.model, guide, x=x, jitter=0.2)
    at = torch.linspace(-12, 12, 400, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 1, 2).expand(-1, 3, 2)
    with pyro.plate("grid", len(grid), dim=-2):
        trace = poutine.trace(poutine.condition(placed(guide, params), {"z": grid})).get_trace(x)
    trace.compute_log_prob()
    mass = trace.nodes["z"]["log_prob"].exp() * (24 / 399) ** 2
    torch.testing.assert_close(mass.sum(0), torch.ones(3, dtype=torch.float64), rtol=0, atol=0.01)
    assert (mass[:, 0] - mass[:, 1]).abs().sum() > 0.1
    base = {name: value for name, value in params.items() if ".flow." not in name}
    normal = Normal(*vae.encode(base, x)).log_prob(grid).sum(-1).exp() * (24 / 399) ** 2
    assert (mass - normal).abs().sum(0).min() > 0.1


def test_options_of_the_flow_set_its_couplings() -> None:
    """Three couplings of 5 units: half of 3 factors is 1, and each has a shift and a scale for the other 2."""
    x = rows(3)
    guide = partial(guides.flow_encoder, latent_dim=3, hidden=7, num_transforms=3, flow_hidden=5)
    params = created(guide, x=x)
    shapes = {name.removeprefix("encoder.flow."): tuple(v.shape) for name, v in params.items() if ".flow." in name}
    one = {"context.weight": (5, 7), "context.bias": (5,), "weight": (5, 1), "out.weight": (4, 5), "out.bias": (4,)}
    assert shapes == {f"{i}.{name}": shape for i in range(3) for name, shape in one.items()}
    start = {name: value for name, value in created(guide, x=x, jitter=0.0).items() if ".out." in name}
    assert all((value == 0).all() for value in start.values())
    z = torch.randn(3, 3, dtype=torch.float64)
    for name in ("0.out.bias", "2.weight"):
        moved = params | {f"encoder.flow.{name}": params[f"encoder.flow.{name}"] + 0.5}
        assert not torch.isclose(density(guide, moved, z, x), density(guide, params, z, x))


@pytest.mark.parametrize("latent_dim", [1, 2, 5, 15])
def test_signs_average_a_quadratic_exactly(latent_dim: int) -> None:
    """Mean zero and no two columns correlated; with 16 factors or more they repeat."""
    signs = _signs(latent_dim).double()
    assert signs.shape[1] == latent_dim
    assert signs.abs().min() == 1
    assert signs.mean(0).abs().max() == 0
    torch.testing.assert_close(signs.mT @ signs / len(signs), torch.eye(latent_dim, dtype=torch.float64))
    assert len(_signs(15)) == len(_signs(40)) == 16
    assert torch.equal(_signs(40)[:, 15:30], _signs(15))


@pytest.mark.filterwarnings("ignore:svi. took all")
def test_a_flow_fits_better_than_its_base() -> None:
    """A row tells how far from the origin its factors are, and not in which direction: the posterior is a ring."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 200, generator=generator, dtype=torch.float64)
    x = (z.square().sum(0, keepdim=True) + 0.3 * torch.randn(1, 200, generator=generator, dtype=torch.float64)).mT

    def model(x: torch.Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            mean = z.square().sum(-1, keepdim=True)
            pyro.sample("x", dist.Normal(mean, 0.3).to_event(1), obs=x)

    fits = [
        svi(model, guide, x, num_steps=400, lr=0.02, num_draws=100, progress=False)
        for guide in (guides.encoder, partial(guides.flow_encoder, num_transforms=2))
    ]
    plain, flow = (fit.info.elbo / 200 for fit in fits)
    assert flow > plain + 0.1


def test_refined_factors_reach_the_best_independent_ones(wine: torch.Tensor) -> None:
    """From an encoder that knows nothing: the bound rises step by step, to that of the test above."""
    params = linear(wine)
    precision = torch.linalg.inv(ppca.posterior(sites_of(params), wine).covariance)
    loss = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    best = (ppca.log_likelihood(sites_of(params), wine) - loss).mean()
    model = partial(vae.model, likelihood="gaussian", network="linear", shared_variance=True)
    params |= created(partial(guides.encoder, hidden=4), x=wine)
    reached = [vae.elbo(params, wine, num_draws=500, guide=partial(guides.encoder, hidden=4)).mean()]
    for num_steps in (1, 3, 10, 60):
        guide = guides.semi_amortised(model, hidden=4, num_steps=num_steps)
        reached.append(vae.elbo(params, wine, num_draws=500, guide=guide).mean())
    assert (torch.stack(reached).diff() > -0.01).all()
    assert reached[0] < best - 1
    assert float(reached[-1] - best) == pytest.approx(0, abs=0.02)


def test_refinement_does_not_lower_the_bound_of_a_fit(digits: torch.Tensor) -> None:
    x = vae.binarise(digits[:200], "threshold")
    encoder = partial(guides.encoder, hidden=4)
    fitted = svi(vae.model, encoder, x, num_steps=150, lr=0.01, num_draws=100, progress=False)
    guide = guides.semi_amortised(vae.model, hidden=4, num_steps=8)
    params = fitted.params
    before, after = (vae.elbo(params, x, num_draws=300, guide=g).mean() for g in (encoder, guide))
    assert after > before + 0.05
    assert after < vae.log_likelihood(params, x, num_draws=2000, guide=guide).mean()


def test_gradients_through_the_steps_are_those_of_finite_differences() -> None:
    """Of the loss at fixed noise, in the encoder's biases; where they are cut, they are something else."""
    x = rows(6)
    loss = Trace_ELBO()
    name = "encoder.mean_scale.bias"

    def value(params: Params, differentiable: bool) -> torch.Tensor:
        guide = guides.semi_amortised(vae.model, hidden=3, num_steps=2, lr=0.3, differentiable=differentiable)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            run = (placed(function, params) for function in (vae.model, guide))
            return loss.differentiable_loss(*run, x)

    params = created(vae.model, partial(guides.encoder, hidden=3), x=x, jitter=0.1)
    leaf = params[name].clone().requires_grad_()
    through, cut = (torch.autograd.grad(value(params | {name: leaf}, d), leaf)[0] for d in (True, False))
    for entry in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[entry] = 1e-5
        up, down = (float(value(params | {name: params[name] + sign * step}, True).detach()) for sign in (1, -1))
        assert float(through[entry]) == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(value(params, True), value(params, False))
    assert (through - cut).abs().max() > 0.01


def test_semi_amortised_is_a_family_that_svi_fits_in_batches(digits: torch.Tensor) -> None:
    x = vae.binarise(digits[:100], "threshold")
    family = partial(guides.semi_amortised, num_steps=2)
    fitted = svi(vae.model, family, x, num_steps=40, lr=0.02, batch_size=50, num_draws=20, progress=False)
    assert fitted.info.guide == "semi_amortised"
    assert fitted.info.elbo / 100 > independent(x, x)
    assert {name.split(".")[0] for name in fitted.params} == {"decoder", "encoder"}


def test_factors_know_their_rows(wine: torch.Tensor) -> None:
    with pyro.get_param_store().scope():
        guides.factors(wine)
        with pytest.raises(ValueError, match="parameters for 178 rows and was given 50"):
            guides.factors(wine[:50])


# --------------------------------------------------------------------------------------------------------------- fits


def independent(x: torch.Tensor, of: torch.Tensor) -> float:
    """Mean log likelihood of pixels that know nothing of each other, at the frequencies of the data fitted."""
    p = (x.mean(0) * len(x) + 0.5) / (len(x) + 1)
    return float(Bernoulli(p).log_prob(of).sum(1).mean())


@pytest.fixture(scope="module")
def fit(digits: torch.Tensor) -> tuple[Posterior, torch.Tensor]:
    x = vae.binarise(digits, "threshold")
    return svi(
        vae.model, guides.encoder, x[:1437], num_steps=600, lr=0.02, batch_size=128, num_draws=20, progress=False
    ), x


@pytest.mark.filterwarnings("ignore:svi. took all")
def test_two_factors_tell_more_of_digits_than_the_pixels_frequencies(fit: tuple[Posterior, torch.Tensor]) -> None:
    """On the rows fitted and on new ones, where the bound has nothing to gain by heart."""
    fitted, x = fit
    baseline = independent(x[:1437], x[1437:])
    entropy = stats.bernoulli.entropy(x[:1437].mean(0).clamp(1e-9, 1 - 1e-7).double().numpy()).sum()
    assert independent(x[:1437], x[:1437]) == pytest.approx(-entropy, abs=0.1)
    bound = float(vae.elbo(fitted.params, x[1437:]).mean())
    assert bound > baseline + 2
    assert bound < float(vae.log_likelihood(fitted.params, x[1437:], num_draws=200).mean())
    assert fitted.info.elbo / 1437 > independent(x[:1437], x[:1437]) + 2
    assert float(vae.elbo(fitted.params, x[:1437]).mean()) == pytest.approx(fitted.info.elbo / 1437, abs=0.05)
    assert (vae.kl_per_unit(fitted.params, x) > 0.5).all()


def test_reconstructions_are_nearer_than_the_mean_image(fit: tuple[Posterior, torch.Tensor], tmp_path) -> None:
    fitted, x = fit
    new = x[1437:]
    rebuilt = vae.reconstruct(fitted.params, new)
    assert (rebuilt - new).square().mean() < 0.8 * (x[:1437].mean(0) - new).square().mean()
    fitted.save(tmp_path / "fit")
    loaded = Posterior.load(tmp_path / "fit").params
    assert torch.equal(vae.reconstruct(loaded, new), rebuilt)
    again = vae.generate(loaded, 50, seed=3)
    assert torch.equal(again, vae.generate(fitted.params, 50, seed=3))
    assert ((again == 0) | (again == 1)).all()


def test_fits_see_nothing_of_each_other() -> None:
    x = rows(40)
    one, other = (svi(vae.model, guides.encoder, x, num_steps=5, num_draws=2, progress=False) for _ in range(2))
    assert all(torch.equal(one.params[name], other.params[name]) for name in one.params)
    assert torch.equal(one.params["encoder.centre"], x.mean(0))  # a constant, though among the parameters
    starts = created(guides.encoder, vae.model, x=x, jitter=0.0)
    moved = {name for name, value in starts.items() if not torch.equal(value, one.params[name])}
    assert set(starts) - moved == {"encoder.centre", "encoder.spread"}
    assert len(pyro.get_param_store()) == 0


def test_a_prior_on_the_weights_is_a_penalty_on_their_fit() -> None:
    x = rows(60, likelihood="gaussian")
    model = partial(vae.model, likelihood="gaussian")
    free, held = (
        svi(partial(model, prior_scale=s), guides.encoder, x, num_steps=150, lr=0.02, num_draws=5, progress=False)
        for s in (None, 0.02)
    )
    norm = [
        float(sum(v.square().sum() for n, v in f.params.items() if n.startswith("decoder") and "weight" in n)) ** 0.5
        for f in (free, held)
    ]
    assert norm[1] < 0.3 * norm[0]
    assert torch.equal(free.params["decoder.variance_floor"], torch.tensor(1e-4, dtype=torch.float64))


# ----------------------------------------------------------------------------------------------------------- warm-up


def test_warm_up_weighs_the_divergence_alone() -> None:
    """At β = 0 the reconstruction term, at β = 1 Trace_ELBO, and a straight line between; a global site is let be."""
    x = rows(likelihood="gaussian")

    def model(x: torch.Tensor) -> None:
        shift = pyro.sample("shift", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("rows", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(16), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + shift, 0.5).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        pyro.sample("shift", dist.Normal(pyro.param("m", x.new_tensor(0.3)), 0.1))
        with pyro.plate("rows", len(x), dim=-1):
            pyro.sample("z", dist.Normal(pyro.param("a", x.new_tensor(0.5)) * x, 0.7).to_event(1))

    def at(loss: Callable) -> torch.Tensor:
        with pyro.get_param_store().scope():
            pyro.set_rng_seed(1)
            value = loss(model, guide, x)
            gradients = torch.autograd.grad(value, [p for _, p in pyro.get_param_store().named_parameters()])
        return torch.stack([value, *gradients]).detach()

    pyro.set_rng_seed(1)
    with pyro.get_param_store().scope(), torch.no_grad():
        q = poutine.trace(guide).get_trace(x)
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace(x)
    p.compute_log_prob()
    q.compute_log_prob()
    terms = [p.nodes[n]["log_prob_sum"] - q.nodes[n]["log_prob_sum"] for n in ("shift", "z")]
    reconstruction = p.nodes["x"]["log_prob_sum"]
    loss = kl_warm_up(4)
    values = [at(loss) for _ in range(6)]
    for step, value in enumerate(values):
        expected = reconstruction + terms[0] + min(1, step / 4) * terms[1]
        torch.testing.assert_close(value[0], -expected)
    torch.testing.assert_close(values[4], at(Trace_ELBO().differentiable_loss))
    torch.testing.assert_close(values[5], values[4])
    torch.testing.assert_close(values[2], (values[0] + values[4]) / 2)
    torch.testing.assert_close(at(kl_warm_up(4, start=0.5)), values[2])


def test_warm_up_in_a_fit_of_batches() -> None:
    x = rows(60)
    fitted = svi(
        vae.model, guides.encoder, x, num_steps=60, batch_size=20, loss=kl_warm_up(15), num_draws=5, progress=False
    )
    assert fitted.info.loss == "kl_warm_up"
    assert math.isfinite(fitted.info.elbo)


# ------------------------------------------------------------------------------------------------------------- pixels


def test_binary_images_have_the_intensities_for_means(digits: torch.Tensor) -> None:
    drawn = torch.stack([vae.binarise(digits[:50], seed=seed) for seed in range(400)])
    error = (digits[:50] * (1 - digits[:50]) / 400).sqrt()
    assert ((drawn.mean(0) - digits[:50]).abs() <= 5 * error).all()
    assert torch.equal(drawn[7], vae.binarise(digits[:50], seed=7))
    assert torch.equal(vae.binarise(digits, "threshold"), (digits > 0.5).float())
    grey = torch.tensor([0.2, 0.29, 0.3, 0.31, 0.5, 0.6])
    assert vae.binarise(grey, "threshold", threshold=0.3).tolist() == [0, 0, 0, 1, 1, 1]
    assert not torch.equal(drawn[7], vae.binarise(digits[:50], seed=8))
    torch.manual_seed(0)
    fresh = [vae.binarise(digits, "dynamic") for _ in range(2)]
    assert not torch.equal(*fresh)


def test_dequantised_levels_fill_the_unit_interval() -> None:
    levels = torch.arange(16.0).repeat(2000, 1)
    x = vae.dequantise(levels, 16)
    assert torch.equal((16 * x).floor(), levels)
    assert stats.kstest(x.flatten().double().numpy(), "uniform").pvalue > 0.01
    assert torch.equal(x, vae.dequantise(levels, 16))
    assert not torch.equal(x, vae.dequantise(levels, 16, seed=1))
    torch.testing.assert_close(vae.dequantise(levels, 32), x / 2)
    with pytest.raises(ValueError, match="whole numbers from 0 to 14"):
        vae.dequantise(levels, 15)


# --------------------------------------------------------------------------------------------------------------- maps


def test_generated_rows_of_a_linear_decoder_have_its_moments(wine: torch.Tensor) -> None:
    params, num = linear(wine), 40_000
    W, noise = params["decoder.mean.weight"], params["decoder.noise"]
    factors_only = W @ W.mT
    for drawn, covariance in (
        (vae.generate(params, num), factors_only + noise * torch.eye(13, dtype=torch.float64)),
        (vae.generate(params, num, noise=False, seed=1), factors_only),
    ):
        variance = covariance.diagonal()
        assert ((drawn.mean(0) - params["decoder.mean.bias"]).abs() < 5 * (variance / num).sqrt()).all()
        error = ((covariance.square() + variance * variance[:, None]) / num).sqrt()
        assert ((torch.cov(drawn.mT) - covariance).abs() < 5 * error).all()


def test_generated_moments_are_the_decoders(wine: torch.Tensor) -> None:
    """Of a linear decoder exactly: means b, variances the diagonal of W Wᵀ + σ² I, within five standard errors."""
    params = linear(wine)
    W, noise = params["decoder.mean.weight"], params["decoder.noise"]
    variance = W.square().sum(1)
    for options, num in (({}, 4096), ({"num_draws": 40_000, "seed": 1}, 40_000)):
        found = vae.generated_moments(params, **options)
        assert ((found["x_mean"] - params["decoder.mean.bias"]).abs() < 5 * (variance / num).sqrt()).all()
        assert ((found["x_sd"].square() - noise - variance).abs() < 5 * variance * (2 / num) ** 0.5).all()
    again, other = (vae.generated_moments(params, seed=seed)["x_mean"] for seed in (0, 1))
    assert torch.equal(again, vae.generated_moments(params)["x_mean"])
    assert not torch.equal(again, other)


def test_simulated_sizes_are_those_asked_for() -> None:
    x, truth = vae.simulate(7, latent_dim=3, num_features=9, hidden=5)
    assert x.shape == (7, 9)
    assert {name: tuple(value.shape) for name, value in truth.items()} == {
        "decoder.0.weight": (5, 3),
        "decoder.0.bias": (5,),
        "decoder.logits.weight": (9, 5),
        "decoder.logits.bias": (9,),
        "z": (7, 3),
    }
    assert not torch.equal(x, vae.simulate(7, latent_dim=3, num_features=9, hidden=5, seed=1)[0])


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_simulated_rows_have_the_decoders_moments(likelihood: str) -> None:
    x, truth = vae.simulate(20_000, likelihood=likelihood, seed=1, noise_variance=0.2)
    moments = vae.decode(truth, truth["z"])
    standard = (x - moments.mean) / moments.scale
    assert (standard.mean(0).abs() < 5 / 20_000**0.5).all()
    assert (standard.square().mean(0) - 1).abs().max() < 0.1
    assert moments.mean.std(0).min() > 0.02
    assert torch.equal(x, vae.simulate(20_000, likelihood=likelihood, seed=1, noise_variance=0.2)[0])
    assert (truth["z"].std(0) - 1).abs().max() < 0.03


def test_a_turn_of_the_factors_changes_no_identified_quantity(wine: torch.Tensor) -> None:
    params = linear(wine)
    z = torch.randn(2, 5, 178, 2, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(2, 2, dtype=torch.float64)).Q
    turned = params | {"decoder.mean.weight": params["decoder.mean.weight"] @ turn}
    one, other = vae.identify(params | {"z": z}), vae.identify(turned | {"z": z @ turn}, {})
    assert one["x_mean"].shape == (2, 5, 178, 13)
    torch.testing.assert_close(one["x_mean"], other["x_mean"])
    torch.testing.assert_close(
        one["x_mean"][1, 3], z[1, 3] @ params["decoder.mean.weight"].mT + params["decoder.mean.bias"]
    )
    assert not torch.allclose(one["x_mean"], vae.identify(turned | {"z": z})["x_mean"])


def test_the_plane_is_laid_out_by_quantiles() -> None:
    params = linear(rows(30, likelihood="gaussian"))
    plane = vae.manifold(params, 4)
    at = stats.norm.ppf([0.125, 0.375, 0.625, 0.875])
    W, b = params["decoder.mean.weight"].numpy(), params["decoder.mean.bias"].numpy()
    for line, column in ((0, 0), (0, 3), (2, 1)):
        np.testing.assert_allclose(plane[line, column], W @ [at[column], at[3 - line]] + b)


# ------------------------------------------------------------------------------------------------------------- errors


def test_bad_input_gets_a_sentence() -> None:
    x = rows()
    grey, holed = x.clone(), rows(likelihood="gaussian")
    grey[2, 3], holed[1, 4] = 0.5, math.nan
    three = created(partial(vae.model, latent_dim=3), x=x)
    both = created(vae.model, guides.encoder, x=x)
    for call, words in (
        (lambda: vae.model(None, num_rows=3), "vae: to draw data, give num_rows= and num_features="),
        (lambda: vae.model(x, latent_dim=0), "vae: latent_dim must be at least 1, got 0"),
        (lambda: unwrap(vae.model)(x, likelihood="poisson"), "vae: unknown likelihood 'poisson'"),
        (lambda: unwrap(vae.model)(x, network="lstm"), "vae: unknown network 'lstm': there is mlp, conv, linear"),
        (lambda: vae.model(x, hidden=()), "vae: hidden must name at least one layer"),
        (lambda: vae.model(x, network="linear", hidden=5), "vae: the linear network has no hidden layers"),
        (lambda: vae.model(x[:, :15], network="conv"), "vae: 2 convolutions need square images"),
        (lambda: vae.model(x, network="conv", hidden=(2, 2, 2)), "side is a multiple of 8; 16 columns are not"),
        (lambda: vae.model(x, prior_scale=0.0), "vae: prior_scale must be positive"),
        (lambda: vae.model(x, variance_floor=0.0), "vae: variance_floor must be positive"),
        (lambda: vae.model(grey), "vae: row 2, column 3 is 0.5: the Bernoulli likelihood takes 0 and 1"),
        (lambda: vae.model(holed, likelihood="gaussian"), "vae: x is nan in row 1, column 4, and finite numbers"),
        (lambda: svi(vae.model, guides.encoder, grey, progress=False), "row 2, column 3 is 0.5"),
        (lambda: vae.simulate(5, noise_variance=0.0), "vae: num_rows and noise_variance must be positive"),
        (lambda: vae.decode({}, x), "vae: the parameters hold no decoder"),
        (lambda: vae.encode(three, x), "vae: the parameters hold no encoder of normals"),
        (lambda: vae.manifold(three), "vae: a manifold needs latent_dim 2"),
        (lambda: vae.log_likelihood(both, x, num_draws=0), "vae: num_draws must be at least 1"),
        (lambda: vae.binarise(2 * x), "binarise: intensities must lie between 0 and 1, got 0 to 2"),
        (lambda: unwrap(vae.binarise)(x, "static"), "binarise: unknown mode 'static'"),
        (lambda: vae.dequantise(grey), "dequantise: levels must be whole numbers from 0 to 255"),
        (lambda: guides.encoder(x, network="lstm"), "vae: unknown network 'lstm'"),
        (lambda: guides.encoder(x, network="linear", hidden=5), "vae: the linear network has no hidden layers"),
        (lambda: guides.encoder(x[:, :15], network="conv"), "vae: 2 convolutions need square images"),
        (lambda: guides.flow_encoder(x, latent_dim=1), "flow_encoder: a coupling needs latent_dim of 2"),
        (lambda: guides.semi_amortised(vae.model, num_steps=0), "semi_amortised: num_steps and lr must be positive"),
        (lambda: kl_warm_up(0), "kl_warm_up: num_steps must be at least 1, got 0"),
        (lambda: kl_warm_up(5, start=1.5), "kl_warm_up: start must lie between 0 and 1"),
    ):
        with pyro.get_param_store().scope(), pytest.raises(ValueError, match=words):
            call()
