"""The Gaussian mixture's posterior by MAP-EM, coordinate ascent and Gibbs, against enumeration and the Pyro model."""

from functools import partial
from itertools import product

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate, infer_discrete
from scipy import stats
from scipy.linalg import eigh
from scipy.special import gammaln, logsumexp

from guidebook.guides import gmm as guides
from guidebook.inference import cavi, em, gibbs, nuts
from guidebook.inference.diagnostics import mcse
from guidebook.models import gmm
from guidebook.models.gmm.covariance import as_matrices

KINDS = ("full", "tied", "diagonal", "isotropic")


@pytest.fixture(scope="module")
def few() -> torch.Tensor:
    """Eight rows in two groups that touch."""
    torch.manual_seed(3)
    return torch.randn(8, 2, dtype=torch.float64) + torch.tensor([[0.0, 0.0], [1.5, 1.0]]).repeat(4, 1)


def tight_prior(x: torch.Tensor, components: int) -> gmm.Prior:
    """Means that the prior keeps together, so that rows change their component often."""
    return gmm.default_prior(x, components)._replace(mean_strength=0.5)


def log_marginal(x: np.ndarray, prior: gmm.Prior, kind: str) -> float:
    """log p(rows of one component), row by row from the predictive Student distributions of scipy."""
    dim, total = x.shape[1], 0.0
    mean, kappa, df = prior.mean.numpy(), prior.mean_strength, prior.df
    scale = prior.scale.numpy()
    if kind == "diagonal":
        scale = np.diag(scale).copy()
    elif kind == "isotropic":
        scale = np.diag(scale).mean()
    for row in x:
        widened = scale * (kappa + 1) / kappa
        gap = row - mean
        if kind == "full":
            shape = widened / (df - dim + 1)
            total += stats.multivariate_t(mean, shape, df=df - dim + 1).logpdf(row)
            scale, df = scale + kappa / (kappa + 1) * np.outer(gap, gap), df + 1
        elif kind == "diagonal":
            total += stats.t(df, mean, np.sqrt(widened / df)).logpdf(row).sum()
            scale, df = scale + kappa / (kappa + 1) * gap**2, df + 1
        else:
            total += stats.multivariate_t(mean, widened / df * np.eye(dim), df=df).logpdf(row)
            scale, df = scale + kappa / (kappa + 1) * gap @ gap, df + dim
        mean, kappa = (kappa * mean + row) / (kappa + 1), kappa + 1
    return total


def log_marginal_tied(x: np.ndarray, z: np.ndarray, prior: gmm.Prior) -> float:
    """log p(all rows | components), one covariance for all: a matrix-variate Student, by its normaliser."""
    rows, dim = x.shape
    scale, log_ratio = prior.scale.numpy().copy(), 0.0
    for k in np.unique(z):
        block = np.vstack([x[z == k], prior.mean.numpy()])
        weights = np.append(np.ones(len(block) - 1), prior.mean_strength)
        centre = weights @ block / weights.sum()
        scale += (weights[:, None] * (block - centre)).T @ (block - centre)
        log_ratio += 0.5 * dim * np.log(prior.mean_strength / weights.sum())
    first, last = stats.wishart(prior.df, np.eye(dim)), stats.wishart(prior.df + rows, np.eye(dim))
    constant = last.logpdf(np.eye(dim)) - first.logpdf(np.eye(dim))  # ratio of the two normalisers at the identity
    change = 0.5 * prior.df * np.linalg.slogdet(prior.scale.numpy())[1]
    change -= 0.5 * (prior.df + rows) * np.linalg.slogdet(scale)[1]
    return log_ratio - constant + change - 0.5 * rows * dim * np.log(2 * np.pi)


def enumerate_all(x: torch.Tensor, components: int, kind: str) -> tuple[float, np.ndarray]:
    """The exact log evidence, and P(rows i and j share a component), over every assignment of rows."""
    prior, data = tight_prior(x, components), x.numpy()
    assignments = np.array(list(product(range(components), repeat=len(x))))
    logs = []
    for z in assignments:
        counts = np.bincount(z, minlength=components)
        c = prior.concentration
        value = gammaln(components * c) - gammaln(components * c + len(z)) + (gammaln(c + counts) - gammaln(c)).sum()
        if kind == "tied":
            value += log_marginal_tied(data, z, prior)
        else:
            value += sum(log_marginal(data[z == k], prior, kind) for k in range(components))
        logs.append(value)
    weights = np.exp(np.array(logs) - logsumexp(logs))
    together = np.einsum("a,aij->ij", weights, assignments[:, :, None] == assignments[:, None, :])
    return float(logsumexp(logs)), together


@pytest.mark.parametrize("kind", KINDS)
def test_with_one_component_the_bound_is_the_evidence(few: torch.Tensor, kind: str) -> None:
    evidence, _ = enumerate_all(few, 1, kind)
    assert cavi(gmm.cavi_steps(1, kind, tight_prior(few, 1)), few).info.elbo == pytest.approx(evidence, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_lies_below_the_evidence_and_never_falls(few: torch.Tensor, kind: str) -> None:
    """The loop itself raises if the bound falls after either coordinate."""
    evidence, _ = enumerate_all(few, 2, kind)
    posterior = cavi(gmm.cavi_steps(2, kind, tight_prior(few, 2)), few)
    assert (posterior.info.objective.diff() >= -1e-10).all()
    assert evidence - 6 < posterior.info.elbo < evidence


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:gibbs.*not mixed")  # labels of rows swap with those of components
@pytest.mark.parametrize("kind", KINDS)
def test_gibbs_shares_rows_out_as_enumeration_does(few: torch.Tensor, kind: str) -> None:
    _, together = enumerate_all(few, 2, kind)
    steps = gmm.gibbs_steps(2, kind, tight_prior(few, 2))._replace(sites=("component",))
    z = gibbs(steps, few, num_draws=4000, progress=False).draws["component"]
    same = (z[..., :, None] == z[..., None, :]).double()
    row, column = torch.triu_indices(8, 8, 1)
    same, exact = same[..., row, column], torch.tensor(together)[row, column]
    assert ((same.mean((0, 1)) - exact).abs() < 4 * mcse(same) + 1e-9).all()


def raw_sites(params: dict[str, torch.Tensor], prior: gmm.Prior, kind: str) -> dict[str, torch.Tensor]:
    """The Pyro model's own sites at these covariances."""
    sites = {"weights": params["weights"], "loc": params["loc"]}
    if kind in ("diagonal", "isotropic"):
        return sites | {"precision": 1 / params["covariance"]}
    root = torch.linalg.inv(torch.linalg.cholesky(prior.scale))
    whitened = torch.linalg.inv(root @ params["covariance"] @ root.mT)  # A Aᵀ, A upper triangular
    factor = torch.linalg.cholesky(whitened.flip(-1, -2)).flip(-1, -2)
    row, column = torch.triu_indices(4, 4, 1)
    diagonal = factor.diagonal(dim1=-2, dim2=-1).square()
    return sites | {"bartlett_diagonal": diagonal, "bartlett_upper": factor[:, row, column]}


@pytest.mark.parametrize("kind", KINDS)
def test_map_em_ends_at_a_mode_of_the_pyro_models_joint(iris: torch.Tensor, kind: str) -> None:
    posterior = em(gmm.em_steps(3, kind, map=True), iris, tol=1e-10)
    prior = gmm.default_prior(iris, 3)
    sites = {n: v.requires_grad_() for n, v in raw_sites(posterior.params, prior, kind).items()}
    model = partial(gmm.model, num_components=3, covariance=kind)
    density = poutine.trace(poutine.condition(model, sites)).get_trace(iris).log_prob_sum()
    assert float(density.detach()) == pytest.approx(posterior.info.log_likelihood, abs=1e-8)
    gradients = dict(zip(sites, torch.autograd.grad(density, list(sites.values())), strict=True))
    gradients["weights"] = gradients["weights"] - gradients["weights"].mean()  # the weights sum to one
    for name, gradient in gradients.items():
        assert (gradient * sites[name].abs()).abs().max() < 2e-3, name


@pytest.mark.parametrize("kind", KINDS)
def test_map_em_has_the_prior_given(iris: torch.Tensor, kind: str) -> None:
    prior = gmm.default_prior(iris, 2)._replace(concentration=20.0, mean_strength=3.0, df=12.0)
    posterior = em(gmm.em_steps(2, kind, map=True, prior=prior), iris, num_restarts=2)
    sites = raw_sites(posterior.params, prior, kind)
    model = partial(gmm.model, num_components=2, covariance=kind, prior=prior)
    density = poutine.trace(poutine.condition(model, sites)).get_trace(iris).log_prob_sum()
    assert float(density) == pytest.approx(posterior.info.log_likelihood, abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_floor_is_a_relative_eigenvalue(iris: torch.Tensor, kind: str) -> None:
    """Just above the smallest eigenvalue of the components' covariances in units of the data's, and just below."""
    params = em(gmm.em_steps(3, kind), iris, num_restarts=2).params
    sigma = as_matrices(params["covariance"], params["loc"]).numpy()
    data = np.cov(iris.numpy().T, ddof=0)
    smallest = min(eigh(one, data, eigvals_only=True)[0] for one in sigma)
    for floor, collapsed in ((0.999 * smallest, False), (1.001 * smallest, True)):
        steps = gmm.em_steps(3, kind, floor=floor)
        sentence = steps.degenerate(params, steps.e_step(params, iris), iris)
        assert ("collapsed" in sentence) if collapsed else sentence is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [False, True])
def test_the_structured_guide_has_the_mean_field_bound(iris: torch.Tensor, kind: str, given: bool) -> None:
    """At the same draws of q(sites), z summed out under its exact conditional gives the marginal model's ratio."""
    scale = 2 * torch.eye(4, dtype=torch.float64) + 0.5
    prior = gmm.default_prior(iris, 2)._replace(scale=scale) if given else None
    options = {"num_components": 2, "covariance": kind}
    losses = []
    for elbo, model, guide in (
        (Trace_ELBO(), gmm.model, partial(guides.mean_field, **options)),
        (TraceEnum_ELBO(max_plate_nesting=1), gmm.latent_model, partial(guides.structured, **options, prior=prior)),
    ):
        with pyro.get_param_store().scope():
            pyro.set_rng_seed(0)
            guide(iris)  # parameters come to be
            pyro.set_rng_seed(1)
            losses.append([elbo.loss(partial(model, **options, prior=prior), guide, iris) for _ in range(3)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-10)
    assert np.std(losses[0]) > 1e-3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(nuts|gibbs).*swap labels")
def test_gibbs_equals_nuts() -> None:
    x, _ = gmm.simulate(80, num_components=2, num_features=1, separation=4.0, seed=2)
    model = partial(gmm.model, num_components=2)
    sampled = nuts(model, x, num_draws=600, num_warmup=400, num_chains=2, target_accept=0.97, progress=False)
    reference = gmm.identify(sampled.draws)
    ours = gmm.identify(gibbs(gmm.gibbs_steps(2), x, num_draws=4000, progress=False).draws, reference)
    for name, value in ours.items():
        for of, moment in (("mean", lambda v: v.mean((0, 1))), ("sd", lambda v: v.flatten(0, 1).std(0))):
            error = torch.hypot(mcse(value, of), mcse(reference[name], of))
            assert ((moment(value) - moment(reference[name])).abs() < 4 * error).all(), (name, of)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gibbs_with_one_component_draws_from_the_conjugate_posterior(iris: torch.Tensor, kind: str) -> None:
    """K = 1: independent draws; E Σ⁻¹ = ν Λ⁻¹ of the updated prior, and E loc its mean."""
    draws = gibbs(gmm.gibbs_steps(1, kind), iris, num_draws=5000, num_warmup=1, progress=False).draws
    prior = gmm.default_prior(iris, 1)
    n, centred = len(iris), iris - iris.mean(0)
    scatter = prior.scale + centred.mT @ centred  # the prior's mean is the data's own
    if kind in ("full", "tied"):
        value, exact = torch.linalg.inv(draws["covariance"][:, :, 0]), (prior.df + n) * torch.linalg.inv(scatter)
    elif kind == "diagonal":
        value, exact = 1 / draws["covariance"][:, :, 0], (prior.df + n) / scatter.diagonal()
    else:
        rate = prior.scale.diagonal().mean() + centred.square().sum()
        value, exact = 1 / draws["covariance"][:, :, 0], (prior.df + 4 * n) / rate
    assert ((value.mean((0, 1)) - exact).abs() < 4 * value.flatten(0, 1).std(0) / 20_000**0.5).all()
    loc = draws["loc"][:, :, 0]
    assert ((loc.mean((0, 1)) - prior.mean).abs() < 4 * loc.flatten(0, 1).std(0) / 20_000**0.5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_draws_of_coordinate_ascent_have_the_moments_of_q(iris: torch.Tensor, kind: str) -> None:
    posterior = cavi(gmm.cavi_steps(3, kind), iris, num_draws=20_000)
    q, draws = posterior.params, {n: v[0] for n, v in posterior.draws.items()}
    for name, exact in (("weights", q["concentration"] / q["concentration"].sum()), ("loc", q["mean"])):
        assert ((draws[name].mean(0) - exact).abs() < 4.5 * draws[name].std(0) / 20_000**0.5).all(), name
    df = q["df"].reshape(-1, *[1] * (q["scale"].dim() - 1))
    exact = q["scale"] / (df - (5 if kind in ("full", "tied") else 2))
    error = draws["covariance"].std(0) / 20_000**0.5
    assert ((draws["covariance"].mean(0) - exact).abs() < 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("kind", KINDS)
def test_log_likelihood_is_elbo_plus_divergence_for_any_shares(iris: torch.Tensor, kind: str) -> None:
    params = em(gmm.em_steps(3, kind), iris, num_restarts=2).params
    torch.manual_seed(0)
    q = torch.rand(len(iris), 3, dtype=torch.float64).softmax(-1)
    joint, posterior = gmm.log_joint(params, iris), gmm.responsibilities(params, iris)
    elbo = (q * (joint - q.log())).sum(-1)
    divergence = (q * (q.log() - posterior.log())).sum(-1)
    evidence = gmm.log_likelihood(params, iris)
    torch.testing.assert_close(elbo + divergence, evidence, rtol=0, atol=1e-12 * float(evidence.abs().max() + 100))


@pytest.mark.parametrize("kind", KINDS)
def test_the_explicit_component_summed_out_is_the_model(iris: torch.Tensor, kind: str) -> None:
    """TraceEnum_ELBO with a point for a guide is minus the log joint density."""
    options = {"num_components": 3, "covariance": kind}
    params = em(gmm.em_steps(3, kind, map=True), iris, num_restarts=2).params
    sites = {n: v.detach() for n, v in raw_sites(params, gmm.default_prior(iris, 3), kind).items()}
    density = poutine.trace(poutine.condition(partial(gmm.model, **options), sites)).get_trace(iris).log_prob_sum()
    explicit = config_enumerate(poutine.condition(partial(gmm.latent_model, **options), sites))
    with pyro.get_param_store().scope():
        loss = TraceEnum_ELBO(max_plate_nesting=1).loss(explicit, lambda x: None, iris)
    assert loss == pytest.approx(-float(density), rel=1e-12)
    torch.testing.assert_close(
        gmm.log_joint_at(sites, iris, **options), gmm.log_joint(params, iris), rtol=1e-9, atol=1e-9
    )
    pyro.set_rng_seed(0)
    best = infer_discrete(explicit, first_available_dim=-2, temperature=0)
    z = poutine.trace(best).get_trace(iris).nodes["z"]["value"]
    assert torch.equal(z, gmm.responsibilities(params, iris).argmax(-1))


@pytest.mark.parametrize("kind", KINDS)
def test_leading_dimensions_are_draws(iris: torch.Tensor, kind: str) -> None:
    draws = gibbs(gmm.gibbs_steps(3, kind), iris, num_draws=3, num_warmup=1, num_chains=2, progress=False).draws
    together = gmm.log_joint(draws, iris)
    assert together.shape == (2, 3, 150, 3)
    one = gmm.log_joint({n: v[1, 2] for n, v in draws.items()}, iris)
    torch.testing.assert_close(together[1, 2], one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_predicted_rows_have_the_mixtures_moments(iris: torch.Tensor, kind: str) -> None:
    params = em(gmm.em_steps(3, kind), iris, num_restarts=2).params
    rows = gmm.posterior_predictive(params, 40_000)
    assert rows.shape == (40_000, 4)
    mean = params["weights"] @ params["loc"]
    assert ((rows.mean(0) - mean).abs() < 4 * rows.std(0) / 200).all()
    draws = gibbs(gmm.gibbs_steps(3, kind), iris, num_draws=3, num_warmup=1, num_chains=2, progress=False).draws
    state = torch.get_rng_state()
    assert gmm.posterior_predictive(draws, 7, seed=1).shape == (2, 3, 7, 4)
    assert torch.equal(state, torch.get_rng_state())
