"""The Gaussian mixture's density, prior and symmetry against closed forms and an independent library."""

import sys
from functools import partial
from itertools import permutations

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats

from guidebook.models import gmm
from guidebook.models.gmm.covariance import form_of

KINDS = ("full", "tied", "diagonal", "isotropic")


def latent_values(model, x: torch.Tensor, seed: int = 0) -> dict[str, torch.Tensor]:
    pyro.set_rng_seed(seed)
    trace = poutine.trace(model).get_trace(x)
    return {
        n: s["value"] for n, s in trace.nodes.items() if s["type"] == "sample" and not s["is_observed"] and n != "rows"
    }


@pytest.mark.parametrize("kind", KINDS)
def test_likelihood_is_the_sum_over_components(iris: torch.Tensor, kind: str) -> None:
    """Site x against scipy's normal density, component by component, summed by hand."""
    model = partial(gmm.model, num_components=3, covariance=kind)
    values = latent_values(model, iris)
    trace = poutine.trace(poutine.condition(model, values)).get_trace(iris)
    trace.compute_log_prob()
    sigma = trace.nodes["covariance"]["value"].numpy()
    full = {
        "full": lambda k: sigma[k],
        "tied": lambda k: sigma[0],
        "diagonal": lambda k: np.diag(sigma[k]),
        "isotropic": lambda k: sigma[k] * np.eye(4),
    }[kind]
    density = sum(
        float(values["weights"][k]) * stats.multivariate_normal(values["loc"][k].numpy(), full(k)).pdf(iris.numpy())
        for k in range(3)
    )
    np.testing.assert_allclose(trace.nodes["x"]["log_prob"].numpy(), np.log(density), rtol=1e-10)
    params = {name: trace.nodes[name]["value"] for name in ("weights", "loc", "covariance")}
    np.testing.assert_allclose(gmm.log_joint(params, iris).logsumexp(-1).numpy(), np.log(density), rtol=1e-10)


def test_bartlett_sites_give_an_inverse_wishart(iris: torch.Tensor) -> None:
    """The density of Σ under the sites, by change of variables, against scipy's inverse Wishart.

    Both are densities of the same matrix if their logarithms differ by the Jacobian alone, which a numerical
    derivative of the map from the sites to Σ's lower triangle gives.
    """
    prior = gmm.default_prior(iris, 1)
    dim = 4
    row, column = torch.tril_indices(dim, dim)

    def covariance(sites: torch.Tensor) -> torch.Tensor:
        values = {"bartlett_diagonal": sites[None, :dim], "bartlett_upper": sites[None, dim:]}
        model = poutine.condition(partial(gmm.model, num_components=1, prior=prior), values)
        return poutine.trace(model).get_trace(iris).nodes["covariance"]["value"][0]

    values = latent_values(partial(gmm.model, num_components=1, prior=prior), iris)
    sites = torch.cat([values["bartlett_diagonal"][0], values["bartlett_upper"][0]])
    jacobian = torch.autograd.functional.jacobian(lambda s: covariance(s)[row, column], sites)
    trace = poutine.trace(poutine.condition(partial(gmm.model, num_components=1, prior=prior), values)).get_trace(iris)
    trace.compute_log_prob()
    of_sites = sum(float(trace.nodes[name]["log_prob_sum"]) for name in ("bartlett_diagonal", "bartlett_upper"))
    of_matrix = stats.invwishart(prior.df, prior.scale.numpy()).logpdf(covariance(sites).detach().numpy())
    assert of_sites - float(torch.linalg.slogdet(jacobian).logabsdet) == pytest.approx(of_matrix, abs=1e-9)


def test_prior_mean_of_the_covariance_is_its_scale(iris: torch.Tensor) -> None:
    """E Σ = Λ / (ν - d - 1); four standard errors over 20,000 draws, with ν large enough for a finite variance."""
    prior = gmm.default_prior(iris, 3)._replace(df=12.0)
    model = partial(gmm.model, None, num_components=3, prior=prior, num_rows=3)
    pyro.set_rng_seed(0)
    with torch.no_grad():
        draws = pyro.infer.Predictive(model, {}, num_samples=20_000, parallel=True)()
    sigma = draws["covariance"].squeeze(1)[:, 0]
    error = sigma.std(0) / len(sigma) ** 0.5
    assert ((sigma.mean(0) - prior.scale / (12 - 4 - 1)).abs() < 4 * error).all()


@pytest.mark.parametrize("kind", KINDS)
def test_density_does_not_depend_on_labels_or_on_the_order_of_rows(iris: torch.Tensor, kind: str) -> None:
    model = partial(gmm.model, num_components=3, covariance=kind)
    values = latent_values(model, iris)
    base = poutine.trace(poutine.condition(model, values)).get_trace(iris).log_prob_sum()
    for order in permutations(range(3)):
        index = list(order)
        swapped = {n: v[index] if v.shape[0] == 3 else v for n, v in values.items()}
        density = poutine.trace(poutine.condition(model, swapped)).get_trace(iris).log_prob_sum()
        assert float(density) == pytest.approx(float(base), rel=1e-12)
    shuffled = iris[torch.randperm(len(iris))]
    density = poutine.trace(poutine.condition(model, values)).get_trace(shuffled).log_prob_sum()
    assert float(density) == pytest.approx(float(base), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_identify_undoes_any_relabelling(iris: torch.Tensor, kind: str) -> None:
    torch.manual_seed(0)
    params = gmm.em_steps(3, kind).init(0, iris)
    noise = {
        name: value * torch.empty(4, 25, *value.shape, dtype=value.dtype).uniform_(0.95, 1.05)
        for name, value in params.items()
    }
    if noise["covariance"].dim() == 5:
        noise["covariance"] = params["covariance"] * torch.empty(4, 25, 1, 1, 1, dtype=torch.float64).uniform_(
            0.95, 1.05
        )
    orders = torch.stack([torch.randperm(3) for _ in range(100)]).unflatten(0, (4, 25))

    def relabel(value: torch.Tensor) -> torch.Tensor:
        index = orders.reshape(4, 25, 3, *[1] * (value.dim() - 3)).expand_as(value)
        return value.gather(2, index)

    shuffled = {name: value if value.shape[2] == 1 else relabel(value) for name, value in noise.items()}
    straight = gmm.identify(noise)
    anchored = gmm.identify(shuffled, straight)
    alone = gmm.identify(shuffled)
    for name in noise:
        assert torch.equal(anchored[name], noise[name])
        assert alone[name].flatten(0, 1).std(0).max() <= noise[name].flatten(0, 1).std(0).max() * 1.001


def test_responsibilities_are_bayes_rule() -> None:
    params = {
        "weights": torch.tensor([0.3, 0.7], dtype=torch.float64),
        "loc": torch.tensor([[0.0], [2.0]], dtype=torch.float64),
        "covariance": torch.tensor([1.0, 4.0], dtype=torch.float64),
    }
    x = torch.linspace(-3, 5, 9, dtype=torch.float64)[:, None]
    first = 0.3 * stats.norm(0, 1).pdf(x.numpy())
    second = 0.7 * stats.norm(2, 2).pdf(x.numpy())
    np.testing.assert_allclose(gmm.responsibilities(params, x)[:, :1].numpy(), first / (first + second), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_simulated_rows_have_the_mixtures_moments(kind: str) -> None:
    x, truth = gmm.simulate(20_000, covariance=kind, seed=4)
    for k in range(3):
        rows = x[truth["component"] == k]
        error = rows.std(0) / len(rows) ** 0.5
        assert ((rows.mean(0) - truth["loc"][k]).abs() < 4 * error).all()
    assert torch.equal(x, gmm.simulate(20_000, covariance=kind, seed=4)[0])


def test_options_of_simulate_and_the_seed_of_predictions() -> None:
    x, truth = gmm.simulate(500, num_components=4, num_features=3, separation=1000.0, seed=4)
    assert x.shape == (500, 3)
    assert truth["loc"].shape == (4, 3)
    assert 300 < float(truth["loc"].square().mean().sqrt()) < 2000
    assert not torch.equal(x, gmm.simulate(500, num_components=4, num_features=3, separation=1000.0, seed=5)[0])
    same, other = (gmm.posterior_predictive(truth, 5, seed=seed) for seed in (0, 1))
    assert torch.equal(gmm.posterior_predictive(truth, 5), same)
    assert not torch.equal(same, other)


def test_the_default_prior_is_in_the_datas_units(iris: torch.Tensor) -> None:
    prior = gmm.default_prior(iris, 2, torch.float32)
    assert prior.mean.dtype == prior.scale.dtype == torch.float32
    np.testing.assert_allclose(prior.mean.numpy(), iris.mean(0).numpy(), rtol=1e-6)
    np.testing.assert_allclose(prior.scale.diagonal().numpy(), (iris.var(0, correction=0) / 4).numpy(), rtol=1e-6)
    assert gmm.default_prior(iris, 2).mean.dtype == iris.dtype


@pytest.mark.parametrize("kind", ["full", "tied"])
@pytest.mark.parametrize("given", [False, True])
def test_log_joint_at_the_models_sites_has_the_models_prior(iris: torch.Tensor, kind: str, given: bool) -> None:
    """Σ from its Bartlett factor depends on Λ: the default one for that number of components, or the one given."""
    prior = gmm.default_prior(iris, 2)._replace(scale=2 * torch.eye(4, dtype=torch.float64) + 0.5) if given else None
    options = {"num_components": 2, "covariance": kind, "prior": prior}
    model = partial(gmm.model, **options)
    values = latent_values(model, iris)
    trace = poutine.trace(poutine.condition(model, values)).get_trace(iris)
    trace.compute_log_prob()
    joint = gmm.log_joint_at(values, iris, **options)
    np.testing.assert_allclose(joint.logsumexp(-1).numpy(), trace.nodes["x"]["log_prob"].numpy(), rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_starts_at_one_clustering(iris: torch.Tensor, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All sites' starts come from the same k-means: its centres, and the covariance within its clusters."""
    found = []

    def k_means(x: torch.Tensor, num_components: int) -> tuple[torch.Tensor, torch.Tensor]:
        found.append(original(x, num_components))
        return found[-1]

    module = sys.modules["guidebook.models.gmm.model"]  # the package shows its function by that name
    original = module.k_means
    monkeypatch.setattr(module, "k_means", k_means)
    trace = poutine.trace(partial(gmm.model, covariance=kind)).get_trace(iris)
    assert not found  # a density asks for no start
    starts = {n: s["infer"]["init"]() for n, s in trace.nodes.items() if "init" in s.get("infer", {})}
    ((centres, within),) = found
    values = {n: v.expand(trace.nodes[n]["fn"].shape()) for n, v in starts.items()}
    trace = poutine.trace(poutine.condition(partial(gmm.model, covariance=kind), values)).get_trace(iris)
    values["covariance"] = trace.nodes["covariance"]["value"]
    torch.testing.assert_close(values["weights"], torch.full((3,), 1 / 3, dtype=torch.float64))
    assert torch.equal(values["loc"], centres)
    within = within + 1e-3 * gmm.default_prior(iris, 3).scale
    if kind in ("full", "tied"):
        expected = within.expand(3 if kind == "full" else 1, 4, 4)
    else:
        expected = within.diagonal().expand(3, 4) if kind == "diagonal" else within.diagonal().mean().expand(3)
    torch.testing.assert_close(values["covariance"], expected, rtol=1e-9, atol=1e-12)


def test_bad_options_get_a_sentence(iris: torch.Tensor) -> None:
    for model, x, words in (
        (partial(gmm.model, num_components=0), iris, "num_components must lie between 1"),
        (partial(gmm.model, num_components=200), iris, "number of rows, 150"),
        (gmm.model, torch.cat([iris, iris[:, :1] * 2], 1), "linearly dependent"),
        (gmm.model, torch.cat([iris, torch.ones(150, 1, dtype=iris.dtype)], 1), "column 4 is constant"),
        (gmm.model, None, "to draw data"),
        (form_of, "round", "covariance must be one of full, tied, diagonal, isotropic, got 'round'"),
    ):
        with pytest.raises(ValueError, match=words):
            model(x)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e200])
def test_numbers_without_a_variance_get_a_sentence(iris: torch.Tensor, wrong: float) -> None:
    x = iris.clone()
    x[7, 2] = wrong
    with pytest.raises(ValueError, match="column 2 has no finite variance"):
        gmm.default_prior(x, 3)
