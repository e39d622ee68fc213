"""The mixture of counts against scipy, enumeration of all assignments, closed forms and Monte Carlo."""

from functools import partial
from itertools import permutations, product

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate, infer_discrete
from scipy import stats
from scipy.special import digamma, gammaln, logsumexp, softmax
from torch.fx.experimental.proxy_tensor import make_fx

from guidebook.guides import mixture as guides
from guidebook.inference import cavi, em, gibbs, svi
from guidebook.models import mixture
from guidebook.models.mixture import Family
from guidebook.models.mixture.prior import check

FAMILIES: tuple[Family, ...] = ("poisson", "multinomial")
SITE = {"poisson": "rate", "multinomial": "probs"}

Sites = dict[str, torch.Tensor]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture
def purchases(family: Family) -> tuple[torch.Tensor, Sites]:
    return mixture.simulate(200, num_components=3, num_features=6, family=family, mean_total=12.0, seed=1)


def few_rows(family: Family, rows: int = 8) -> torch.Tensor:
    """Rows of two segments that overlap, so that assignments are in doubt."""
    return mixture.simulate(rows, num_components=2, num_features=2, family=family, mean_total=4.0, contrast=3.0)[0]


def drawn_sites(family: Family, rows: int, seed: int = 0, components: int = 3, columns: int = 6) -> Sites:
    """Parameters with dimensions ``rows`` on the left."""
    torch.manual_seed(seed)
    weights = torch.distributions.Dirichlet(torch.full((components,), 3.0, dtype=torch.float64)).sample((rows,))
    intensity = torch.empty(rows, components, columns, dtype=torch.float64).uniform_(0.2, 4)
    intensity = intensity / intensity.sum(-1, keepdim=True) if family == "multinomial" else intensity
    return {"weights": weights, SITE[family]: intensity}


def scipy_log_joint(sites: Sites, x: torch.Tensor) -> np.ndarray:
    """log p(row, component), (n, k), from scipy's probability mass functions."""
    weights, rows = sites["weights"].numpy(), x.numpy()
    columns = []
    for k in range(len(weights)):
        if "rate" in sites:
            mass = stats.poisson.logpmf(rows, sites["rate"][k].numpy()).sum(1)
        else:
            mass = stats.multinomial.logpmf(rows, rows.sum(1).astype(int), sites["probs"][k].numpy())
        columns.append(np.log(weights[k]) + mass)
    return np.stack(columns, 1)


def scipy_log_prior(sites: Sites, prior: mixture.Prior) -> float:
    weights = sites["weights"].numpy()
    total = stats.dirichlet.logpdf(weights / weights.sum(), np.full(len(weights), prior.concentration))
    if prior.inverse_scale is None:
        return total + sum(stats.dirichlet.logpdf(p / p.sum(), prior.shape.numpy()) for p in sites["probs"].numpy())
    scale = 1 / prior.inverse_scale.numpy()
    return total + stats.gamma.logpdf(sites["rate"].numpy(), prior.shape.numpy(), scale=scale).sum()


def enumerated(x: torch.Tensor, prior: mixture.Prior, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Every assignment of rows to components, (K^n, n), and log p(x, assignment), the parameters integrated out."""
    rows = x.numpy()
    shape, c = prior.shape.numpy(), prior.concentration
    assignments = np.array(list(product(range(components), repeat=len(rows))))
    member = assignments[:, :, None] == np.arange(components)
    counts, sums = member.sum(1), np.einsum("ank,nd->akd", member, rows)
    value = gammaln(components * c) - gammaln(components * c + len(rows))
    value = value + (gammaln(c + counts) - gammaln(c)).sum(1) - gammaln(rows + 1).sum()
    value = value + (gammaln(shape + sums) - gammaln(shape)).sum((1, 2))
    if prior.inverse_scale is None:
        value = value + gammaln(rows.sum(1) + 1).sum()
        value = value + (gammaln(shape.sum()) - gammaln(shape.sum() + sums.sum(2))).sum(1)
    else:
        rate = prior.inverse_scale.numpy()
        value = value + (shape * np.log(rate) - (shape + sums) * np.log(rate + counts[..., None])).sum((1, 2))
    return assignments, value


def log_density(model, x: torch.Tensor, sites: Sites) -> torch.Tensor:
    return poutine.trace(poutine.condition(model, sites)).get_trace(x).log_prob_sum()


def bound(family: Family, components: int = 3, **options):
    return partial(mixture.model, num_components=components, family=family, **options)


def bound_latent(family: Family, components: int = 3, **options):
    return partial(mixture.latent_model, num_components=components, family=family, **options)


# Densities


def test_density_is_scipys_summed_over_components(family: Family, purchases: tuple[torch.Tensor, Sites]) -> None:
    x = purchases[0].clone()
    x[3] = 0
    x[:, 2] = 0
    sites = {name: value[0] for name, value in drawn_sites(family, 1).items()}
    joint = scipy_log_joint(sites, x)
    trace = poutine.trace(poutine.condition(bound(family), sites)).get_trace(x)
    trace.compute_log_prob()
    np.testing.assert_allclose(trace.nodes["x"]["log_prob"].numpy(), logsumexp(joint, 1), rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(mixture.log_joint(sites, x).numpy(), joint, rtol=1e-11)
    prior = mixture.default_prior(x, 3, family)
    assert float(trace.log_prob_sum()) == pytest.approx(
        logsumexp(joint, 1).sum() + scipy_log_prior(sites, prior), rel=1e-11
    )


def test_any_dimensions_on_the_left_go_through(family: Family, purchases: tuple[torch.Tensor, Sites]) -> None:
    x, _ = purchases
    flat = drawn_sites(family, 6)
    sites = {name: value.unflatten(0, (2, 3)) for name, value in flat.items()}
    joint = mixture.log_joint(sites, x)
    shares = mixture.responsibilities(sites, x)
    assert joint.shape == (2, 3, 200, 3)
    for draw in range(6):
        expected = scipy_log_joint({name: value[draw] for name, value in flat.items()}, x)
        total = logsumexp(expected, 1, keepdims=True)
        index = divmod(draw, 3)
        np.testing.assert_allclose(joint[index].numpy(), expected, rtol=1e-11)
        np.testing.assert_allclose(mixture.log_likelihood(sites, x)[index].numpy(), total[:, 0], rtol=1e-11)
        np.testing.assert_allclose(shares[index].numpy(), np.exp(expected - total), atol=1e-11)


def test_rows_of_given_totals_are_scipys_multinomial() -> None:
    """Every outcome of totals 0, 3 and 5 over three columns, one of them impossible in the last row."""
    probs = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.4, 0.0, 0.6]], dtype=torch.float64)
    totals = torch.tensor([0.0, 3.0, 5.0], dtype=torch.float64)
    rows = mixture.Counts(probs, totals)
    draws = rows.sample((40_000,))
    for row, total in enumerate((0, 3, 5)):
        outcomes = [o for o in product(range(total + 1), repeat=3) if sum(o) == total]
        mass = stats.multinomial.pmf(outcomes, total, probs[row].numpy())
        one = mixture.Counts(probs[row], totals[row])
        np.testing.assert_allclose(one.log_prob(torch.tensor(outcomes).double()).exp().numpy(), mass, atol=1e-14)
        seen = np.array([(draws[:, row].numpy() == outcome).all(1).sum() for outcome in outcomes])
        assert seen.sum() == len(draws)
        assert (np.abs(seen / len(draws) - mass) <= 4.5 * np.sqrt(mass * (1 - mass) / len(draws))).all()
    with pytest.raises(ValueError, match="within the support"):
        rows.log_prob(torch.ones(3, 3, dtype=torch.float64))


def test_draws_of_a_mixture_have_its_probabilities(family: Family) -> None:
    sites = {name: value[0] for name, value in drawn_sites(family, 1, columns=2).items()}
    totals = torch.tensor(3.0, dtype=torch.float64) if family == "multinomial" else None
    torch.manual_seed(0)
    rows = mixture.CountMixture(sites["weights"], sites[SITE[family]], totals)
    draws = rows.sample((40_000,))
    for outcome in ([3.0, 0.0], [2.0, 1.0], [1.0, 2.0], [0.0, 3.0]):
        value = torch.tensor([outcome], dtype=torch.float64)
        mass = float(np.exp(logsumexp(scipy_log_joint(sites, value))))
        assert float(rows.log_prob(value[0]).exp()) == pytest.approx(mass, rel=1e-10)
        seen = (draws == value).all(1).double().mean()
        assert float(seen) == pytest.approx(mass, abs=4 * (mass * (1 - mass) / len(draws)) ** 0.5)


def test_zero_intensities_are_exact_and_have_gradients() -> None:
    """A rate of zero makes a count of zero certain and any other impossible; its derivative at no count is -1."""
    rate = torch.tensor([[0.0, 2.0], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    sites = {"weights": torch.tensor([0.4, 0.6], dtype=torch.float64), "rate": rate}
    joint = mixture.log_joint(sites, x)
    np.testing.assert_allclose(
        joint.detach().numpy(), scipy_log_joint({n: v.detach() for n, v in sites.items()}, x), rtol=1e-12
    )
    assert joint[1, 0] == -torch.inf
    assert mixture.responsibilities(sites, x)[1].tolist() == [0.0, 1.0]
    (gradient,) = torch.autograd.grad(mixture.log_likelihood(sites, x)[1], rate, retain_graph=True)
    assert gradient[0].tolist() == [0.0, 0.0]
    (gradient,) = torch.autograd.grad(joint[0, 0], rate)
    assert gradient[0, 0] == -1


def test_coefficients_follow_changed_data_and_traced_arguments(family: Family) -> None:
    """What is remembered of a tensor must not outlive a change of it, nor enter a graph in which it is an argument."""
    x = few_rows(family)
    sites = {name: value[0] for name, value in drawn_sites(family, 1, columns=2).items()}
    before = mixture.log_likelihood(sites, x)
    graph = make_fx(lambda rows: mixture.log_likelihood(sites, rows))(x)
    other = torch.flip(x, [0]) + 1
    np.testing.assert_allclose(graph(other).numpy(), mixture.log_likelihood(sites, other).numpy(), rtol=1e-12)
    x += 1
    after = mixture.log_likelihood(sites, x)
    np.testing.assert_allclose(after.numpy(), logsumexp(scipy_log_joint(sites, x), 1), rtol=1e-12)
    assert not torch.allclose(before, after)


def test_potential_can_be_traced(family: Family, purchases: tuple[torch.Tensor, Sites]) -> None:
    x, _ = purchases
    draws = drawn_sites(family, 2)
    first, second = ({name: value[draw] for name, value in draws.items()} for draw in range(2))
    with pyro.validation_enabled(False):
        bound(family)(x)  # the default prior is worked out before
        graph = make_fx(lambda sites: log_density(bound(family), x, sites))(first)
        assert float(graph(second)) == pytest.approx(float(log_density(bound(family), x, second)), rel=1e-13)


def test_density_does_not_depend_on_labels_or_on_the_order_of_rows(
    family: Family, purchases: tuple[torch.Tensor, Sites]
) -> None:
    x, _ = purchases
    sites = {name: value[0] for name, value in drawn_sites(family, 1).items()}
    base = float(log_density(bound(family), x, sites))
    for order in permutations(range(3)):
        swapped = {name: value[list(order)] for name, value in sites.items()}
        assert float(log_density(bound(family), x, swapped)) == pytest.approx(base, rel=1e-12)
    assert float(log_density(bound(family), x.flip(0), sites)) == pytest.approx(base, rel=1e-12)


@pytest.mark.parametrize("latent", [False, True])
def test_a_dimension_on_the_left_gives_each_draw_its_own_density(
    family: Family, purchases: tuple[torch.Tensor, Sites], latent: bool
) -> None:
    x, truth = purchases
    model = (bound_latent if latent else bound)(family)
    draws = drawn_sites(family, 3)
    batch = {name: value.unsqueeze(1) for name, value in draws.items()}
    single = [{name: value[draw] for name, value in draws.items()} for draw in range(3)]
    if latent:
        labels = torch.stack([truth["component"].roll(draw) for draw in range(3)])
        batch["z"] = labels
        single = [sites | {"z": z} for sites, z in zip(single, labels, strict=True)]
    with pyro.plate("draws", 3, dim=-2):
        trace = poutine.trace(poutine.condition(model, batch)).get_trace(x)
    trace.compute_log_prob()
    names = ("weights", SITE[family], "x", *(["z"] if latent else []))
    together = sum(trace.nodes[name]["log_prob"].reshape(3, -1).sum(1) for name in names)
    expected = torch.stack([log_density(model, x, sites) for sites in single])
    torch.testing.assert_close(together, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("latent", [False, True])
def test_single_precision_gives_the_same_density(
    family: Family, purchases: tuple[torch.Tensor, Sites], latent: bool
) -> None:
    x, truth = purchases
    model = (bound_latent if latent else bound)(family)
    sites = {name: value[0] for name, value in drawn_sites(family, 1).items()}
    sites = sites | {"z": truth["component"]} if latent else sites
    single = {name: value.float() if value.is_floating_point() else value for name, value in sites.items()}
    density = log_density(model, x.float(), single)
    assert density.dtype == torch.float32
    assert float(density) == pytest.approx(float(log_density(model, x, sites)), rel=1e-5)


def other_prior(family: Family, columns: int = 2) -> mixture.Prior:
    """Far from the default one."""
    shape = 3.0 + 4.0 * torch.arange(columns, dtype=torch.float64)
    return mixture.Prior(2.0, shape, 10.0 + shape if family == "poisson" else None)


def test_density_has_the_prior_given(family: Family) -> None:
    x, prior = few_rows(family), other_prior(family)
    sites = {name: value[0] for name, value in drawn_sites(family, 1, components=2, columns=2).items()}
    expected = logsumexp(scipy_log_joint(sites, x), 1).sum() + scipy_log_prior(sites, prior)
    assert float(log_density(bound(family, 2, prior=prior), x, sites)) == pytest.approx(expected, rel=1e-11)
    map_steps = mixture.em_steps(2, family, map=True, prior=prior)
    assert float(map_steps.objective(sites, map_steps.e_step(sites, x))) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("method", ["map", "cavi", "gibbs"])
def test_methods_have_the_prior_given(family: Family, method: str) -> None:
    """One component: mode, evidence, and mean of the conjugate posterior of a prior far from the default."""
    x, prior = few_rows(family), other_prior(family)
    if method == "map":
        rate = em(mixture.em_steps(1, family, map=True, prior=prior), x, num_restarts=1).params[SITE[family]][0]
        total = x.sum(0) + prior.shape - 1
        expected = total / (len(x) + prior.inverse_scale) if family == "poisson" else total / total.sum()
        torch.testing.assert_close(rate, expected)
    elif method == "cavi":
        elbo = cavi(mixture.cavi_steps(1, family, prior), x, num_restarts=1, num_draws=1).info.elbo
        assert elbo == pytest.approx(enumerated(x, prior, 1)[1][0], rel=1e-12)
    else:
        options = {"num_draws": 2000, "num_warmup": 1, "num_chains": 2, "progress": False}
        draws = gibbs(mixture.gibbs_steps(1, family, prior), x, **options).draws[SITE[family]].flatten(0, 1)[:, 0]
        mean, sd = conjugate_moments(x, prior)
        assert ((draws.mean(0) - mean).abs() < 4 * sd / len(draws) ** 0.5).all()


def test_a_fit_starts_at_one_clustering(family: Family, purchases: tuple[torch.Tensor, Sites]) -> None:
    """Even weights, and the posterior mean of the components given clusters that k-means finds."""
    x, truth = mixture.simulate(400, num_components=3, num_features=6, family=family, contrast=50.0, seed=1)
    trace = poutine.trace(bound(family)).get_trace(x)
    starts = {name: trace.nodes[name]["infer"]["init"]() for name in ("weights", SITE[family])}
    assert starts["weights"].tolist() == [1 / 3] * 3
    gap = (starts[SITE[family]].unsqueeze(1) - truth[SITE[family]]).abs().amax(-1) / truth[SITE[family]].max()
    assert sorted(gap.argmin(1).tolist()) == [0, 1, 2]
    assert gap.amin(1).max() < 0.1


# The model with the components of the rows


def test_latent_model_summed_over_all_assignments_is_the_model(family: Family) -> None:
    x = few_rows(family)
    sites = {name: value[0] for name, value in drawn_sites(family, 1, components=2, columns=2).items()}
    terms = [
        log_density(bound_latent(family, 2), x, sites | {"z": torch.tensor(z)}) for z in product(range(2), repeat=8)
    ]
    expected = float(log_density(bound(family, 2), x, sites))
    assert float(torch.stack(terms).logsumexp(0)) == pytest.approx(expected, rel=1e-12)
    enumerating = config_enumerate(poutine.condition(bound_latent(family, 2), sites))
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(enumerating, lambda x: None, x)
    assert -loss == pytest.approx(expected, rel=1e-12)


def test_discrete_inference_draws_components_by_their_responsibilities(family: Family) -> None:
    sites = {name: value[0] for name, value in drawn_sites(family, 1).items()}
    row = torch.tensor([[1.0, 2.0, 0.0, 1.0, 1.0, 3.0]], dtype=torch.float64)
    shares = mixture.responsibilities(sites, row)[0]
    x = row.expand(4000, -1).contiguous()
    model = config_enumerate(poutine.condition(bound_latent(family), sites))
    pyro.set_rng_seed(0)
    z = poutine.trace(infer_discrete(model, first_available_dim=-2)).get_trace(x).nodes["z"]["value"]
    seen = torch.bincount(z, minlength=3) / 4000
    assert ((seen - shares).abs() < 4 * (shares * (1 - shares) / 4000).sqrt()).all()


@pytest.mark.parametrize("latent", [False, True])
def test_generated_rows_have_the_priors_mean(family: Family, latent: bool) -> None:
    """E x = a / b, or the total times a / Σ a; four standard errors over 4,000 draws of all sites."""
    x = few_rows(family)
    prior = mixture.default_prior(x, 2, family)
    totals = torch.tensor([2.0, 5.0, 9.0], dtype=torch.float64) if family == "multinomial" else None
    model = (bound_latent if latent else bound)(family, 2, prior=prior, num_rows=3, totals=totals)
    pyro.set_rng_seed(0)
    with torch.no_grad():
        draws = pyro.infer.Predictive(model, {}, num_samples=4000, parallel=True)()["x"].reshape(4000, 3, 2)
    if family == "poisson":
        expected = (prior.shape / prior.inverse_scale).expand(3, 2)
    else:
        expected = totals[:, None] * prior.shape / prior.shape.sum()
        assert (draws.sum(-1) == totals).all()
    assert ((draws.mean(0) - expected).abs() < 4 * draws.std(0) / 4000**0.5).all()
    assert model().shape == (3, 2)


@pytest.mark.parametrize("num_rows", [500, None])
def test_posterior_predictive_rows_have_the_mixtures_mean(family: Family, num_rows: int | None) -> None:
    sites = {name: value.unflatten(0, (2, 2)) for name, value in drawn_sites(family, 4).items()}
    x = torch.full((500, 6), 2.0, dtype=torch.float64)
    state = torch.random.get_rng_state()
    totals = torch.full((500,), 12.0) if family == "multinomial" else None
    rows = mixture.posterior_predictive(sites, num_rows or x, totals=totals, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(rows, mixture.posterior_predictive(sites, x, seed=3))
    assert not torch.equal(rows, mixture.posterior_predictive(sites, x, seed=4))
    mean = torch.einsum("abk,abkd->abd", sites["weights"], sites[SITE[family]])
    mean = 12 * mean if family == "multinomial" else mean
    assert rows.shape == (2, 2, 500, 6)
    assert ((rows.mean(2) - mean).abs() < 4 * rows.std(2) / 500**0.5).all()


# Expectation maximisation


def slow_em(sites: Sites, x: torch.Tensor, steps: int) -> list[Sites]:
    """Maximum likelihood by EM, from scipy's densities and loops."""
    found = []
    for _ in range(steps):
        joint = scipy_log_joint(sites, x)
        shares = np.exp(joint - logsumexp(joint, 1, keepdims=True))
        name = "rate" if "rate" in sites else "probs"
        intensity = np.zeros(sites[name].shape)
        for k in range(len(intensity)):
            total = sum(shares[n, k] * x[n].numpy() for n in range(len(x)))
            intensity[k] = total / (shares[:, k].sum() if name == "rate" else total.sum())
        sites = {"weights": torch.tensor(shares.mean(0)), name: torch.tensor(intensity)}
        found.append(sites)
    return found


@pytest.mark.parametrize("restart", [0, 1])
def test_every_iterate_equals_a_slow_one(family: Family, purchases: tuple[torch.Tensor, Sites], restart: int) -> None:
    x = purchases[0].clone()
    x[:, 2] = 0
    torch.manual_seed(restart)
    steps = mixture.em_steps(3, family)
    params = steps.init(restart, x)
    for expected in slow_em(params, x, 12):
        params = steps.m_step(steps.e_step(params, x), x)
        for name, value in expected.items():
            np.testing.assert_allclose(params[name].numpy(), value.numpy(), atol=1e-11)


def test_likelihood_never_falls_and_ends_at_a_stationary_point(
    family: Family, purchases: tuple[torch.Tensor, Sites]
) -> None:
    x, _ = purchases
    posterior = em(mixture.em_steps(3, family), x, tol=1e-10, num_restarts=4)
    assert (posterior.info.objective.diff() >= -1e-11).all()
    assert posterior.info.objective[-1] == pytest.approx(
        float(mixture.log_likelihood(posterior.params, x).sum()), rel=1e-12
    )
    for gradient in free_gradients(lambda sites: mixture.log_likelihood(sites, x).sum(), posterior.params):
        assert gradient.abs().max() < 1e-3
    start = mixture.em_steps(3, family).init(1, x)
    gradients = free_gradients(lambda sites: mixture.log_likelihood(sites, x).sum(), start)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 10


def free_gradients(density, sites: Sites) -> list[torch.Tensor]:
    """Gradients at given sites: of points of a simplex along the simplex."""
    leaves = {name: value.clone().requires_grad_() for name, value in sites.items()}
    gradients = torch.autograd.grad(density(leaves), list(leaves.values()))
    return [
        gradient if name == "rate" else gradient - (gradient * sites[name]).sum(-1, keepdim=True)
        for name, gradient in zip(leaves, gradients, strict=True)
    ]


def test_one_component_has_closed_estimates(family: Family, purchases: tuple[torch.Tensor, Sites]) -> None:
    """Maximum likelihood: the columns' means or shares. With the prior: (Σ x + a - 1) / (n + b), or likewise."""
    x, _ = purchases
    prior = mixture.default_prior(x, 1, family)
    for posterior, more, rows in (
        (em(mixture.em_steps(1, family), x, num_restarts=1), 0 * prior.shape, len(x)),
        (em(mixture.em_steps(1, family, map=True), x, num_restarts=1), prior.shape - 1, len(x)),
    ):
        total = x.sum(0) + more
        if family == "poisson":
            rows = rows + (prior.inverse_scale if more.any() else 0)
        torch.testing.assert_close(
            posterior.params[SITE[family]][0], total / (rows if family == "poisson" else total.sum())
        )


def test_map_ends_at_a_stationary_point_of_the_pyro_model(
    family: Family, purchases: tuple[torch.Tensor, Sites]
) -> None:
    x, _ = purchases
    posterior = em(mixture.em_steps(3, family, map=True), x, tol=1e-10, num_restarts=4)
    density = log_density(bound(family), x, posterior.params)
    assert posterior.info.objective[-1] == pytest.approx(float(density), rel=1e-12)
    for gradient in free_gradients(lambda sites: log_density(bound(family), x, sites), posterior.params):
        assert gradient.abs().max() < 1e-3


@pytest.mark.parametrize("map", [False, True])
def test_extrapolation_ends_where_plain_iterations_do(family: Family, map: bool) -> None:
    """Steps may leave the parameters' space on the way, where the objective must not count."""
    x, _ = mixture.simulate(400, num_features=6, family=family, seed=2)
    steps = mixture.em_steps(4, family, map=map)
    fast, plain = (em(steps, x, tol=1e-8, num_restarts=4, accelerate=choice).info for choice in (True, False))
    assert fast.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-5)
    outside = steps.init(0, x)
    outside[SITE[family]] = outside[SITE[family]] - 1
    assert steps.objective(outside, steps.e_step(outside, x)).isnan()


def test_a_component_without_rows_is_a_flaw(family: Family, purchases: tuple[torch.Tensor, Sites]) -> None:
    x, _ = purchases
    steps = mixture.em_steps(3, family)
    params = steps.init(0, x) | {"weights": torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)}
    expectations = steps.e_step(params, x)
    assert "holds no row" in steps.degenerate(params, expectations, x)
    assert all(torch.isfinite(value).all() for value in steps.m_step(expectations, x).values())


@pytest.mark.filterwarnings("ignore:gibbs.*not mixed")
@pytest.mark.parametrize("method", ["em", "map", "cavi", "gibbs"])
def test_rows_and_columns_of_zeros_and_equal_rows_are_taken(family: Family, method: str) -> None:
    x = torch.tensor([[0.0, 0.0, 0.0]] * 5 + [[4.0, 0.0, 1.0]] * 5, dtype=torch.float64)
    if method == "gibbs":
        fitted = gibbs(
            mixture.gibbs_steps(3, family), x, num_draws=20, num_warmup=5, num_chains=2, thin=1, progress=False
        )
    elif method == "cavi":
        fitted = cavi(mixture.cavi_steps(3, family), x, num_restarts=2)
    else:
        fitted = em(mixture.em_steps(3, family, map=method == "map"), x, num_restarts=2)
    assert all(torch.isfinite(value).all() for value in mixture.identify(fitted.draws).values())


# Coordinate ascent


@pytest.mark.parametrize("restart", [0, 1, 2, 3])
def test_bound_never_falls_and_stays_below_the_evidence(family: Family, restart: int) -> None:
    """After each coordinate; the evidence by all 256 assignments of eight rows to two components."""
    x = few_rows(family)
    evidence = logsumexp(enumerated(x, mixture.default_prior(x, 2, family), 2)[1])
    steps = mixture.cavi_steps(2, family)
    torch.manual_seed(restart)
    params = steps.init(restart, x)
    curve = []
    for _ in range(60):
        statistics = steps.e_step(params, x)
        curve.append(float(steps.objective(params, statistics)))
        params = steps.m_step(statistics, x)
        curve.append(float(steps.objective(params, statistics)))
    assert (np.diff(curve) >= -1e-11).all()
    assert curve[-1] - curve[0] > 0.05
    assert evidence - 5 < curve[-1] < evidence


def test_bound_is_the_expected_log_ratio(family: Family) -> None:
    """E_q[log p(x, z, sites) - log q] over 2,000 draws of all of q, from scipy's densities; before it has converged."""
    x = few_rows(family)
    prior = mixture.default_prior(x, 2, family)
    steps = mixture.cavi_steps(2, family)
    torch.manual_seed(0)
    before = steps.init(1, x)
    statistics = steps.e_step(before, x)
    params = steps.m_step(statistics, x)
    sites = steps.draw(params, 2000)
    shares = expected_shares(before, x)
    rng = np.random.default_rng(0)
    rows = np.arange(len(x))
    ratios = []
    for draw in range(2000):
        one = {name: value[draw] for name, value in sites.items()}
        z = (rng.random((len(x), 1)) > shares.cumsum(1)[:, :-1]).sum(1)
        log_q = np.log(shares[rows, z]).sum()
        log_q += stats.dirichlet.logpdf(one["weights"].numpy(), params["weights.concentration"].numpy())
        if family == "poisson":
            a, b = params["rate.concentration"].numpy(), params["rate.rate"].numpy()
            log_q += stats.gamma.logpdf(one["rate"].numpy(), a, scale=1 / b).sum()
        else:
            for k in range(2):
                p = one["probs"][k].numpy()
                log_q += stats.dirichlet.logpdf(p / p.sum(), params["probs.concentration"][k].numpy())
        ratios.append(scipy_log_joint(one, x)[rows, z].sum() + scipy_log_prior(one, prior) - log_q)
    error = np.std(ratios) / 2000**0.5
    assert error < 0.15
    assert float(steps.objective(params, statistics)) == pytest.approx(np.mean(ratios), abs=4 * error)


def expected_shares(params: Sites, x: torch.Tensor) -> np.ndarray:
    """q(component | row) ∝ exp E log p(row, component), with scipy's expectations."""
    weights, *components = (value.numpy() for value in params.values())
    if len(components) == 1:
        terms = digamma(components[0]) - digamma(components[0].sum(1, keepdims=True))
        constant = 0.0
    else:
        terms = digamma(components[0]) - np.log(components[1])
        constant = -(components[0] / components[1]).sum(1)
    return softmax(x.numpy() @ terms.T + constant + digamma(weights), axis=1)


def test_one_component_is_exact(family: Family) -> None:
    x = few_rows(family)
    prior = mixture.default_prior(x, 1, family)
    posterior = cavi(mixture.cavi_steps(1, family), x, num_restarts=1, num_draws=20_000)
    assert posterior.info.elbo == pytest.approx(enumerated(x, prior, 1)[1][0], rel=1e-12)
    draws = posterior.draws[SITE[family]][0, :, 0]
    mean, sd = conjugate_moments(x, prior)
    assert ((draws.mean(0) - mean).abs() < 4 * sd / 20_000**0.5).all()


def conjugate_moments(x: torch.Tensor, prior: mixture.Prior) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior mean and standard deviation of the one component's rates or probabilities."""
    a = prior.shape + x.sum(0)
    if prior.inverse_scale is not None:
        b = prior.inverse_scale + len(x)
        return a / b, a.sqrt() / b
    mean = a / a.sum()
    return mean, (mean * (1 - mean) / (a.sum() + 1)).sqrt()


def test_evidence_is_bound_plus_divergence_for_any_q(family: Family, purchases: tuple[torch.Tensor, Sites]) -> None:
    """Given the sites, log p(x) = Σ q (log p(x, z) - log q) + KL(q ‖ p(z | x)), whatever the categorical q."""
    x, _ = purchases
    sites = {name: value[0] for name, value in drawn_sites(family, 1).items()}
    torch.manual_seed(5)
    q = torch.distributions.Dirichlet(torch.ones(200, 3, dtype=torch.float64)).sample()
    elbo = (q * (mixture.log_joint(sites, x) - q.log())).sum(-1)
    divergence = (q * (q.log() - mixture.responsibilities(sites, x).log())).sum(-1)
    torch.testing.assert_close(elbo + divergence, mixture.log_likelihood(sites, x), rtol=1e-12, atol=1e-12)
    assert (divergence > 0).all()


def test_prior_averages_the_likelihood_to_the_evidence(family: Family) -> None:
    """Importance sampling from the prior, 100,000 draws of the Pyro model's own, against all assignments."""
    x = few_rows(family)
    prior = mixture.default_prior(x, 2, family)
    pyro.set_rng_seed(0)
    with torch.no_grad(), pyro.plate("draws", 100_000, dim=-2):
        trace = poutine.trace(poutine.block(bound(family, 2), hide=["x"])).get_trace(x)
    sites = {name: trace.nodes[name]["value"].squeeze(1) for name in ("weights", SITE[family])}
    likelihood = mixture.log_likelihood(sites, x).sum(-1)
    ratio = (likelihood - logsumexp(enumerated(x, prior, 2)[1])).exp()
    error = float(ratio.std() / 100_000**0.5)
    assert error < 0.05
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * error)


# Gibbs sampling


def test_gibbs_pairs_rows_as_all_assignments_do(family: Family) -> None:
    """P(z_i = z_j | x) over 100 chains of 600 sweeps; the error from the spread of the chains' means."""
    x = few_rows(family)
    assignments, value = enumerated(x, mixture.default_prior(x, 2, family), 2)
    posterior = np.exp(value - logsumexp(value))
    exact = np.einsum("a,anm->nm", posterior, assignments[:, :, None] == assignments[:, None, :])
    steps = mixture.gibbs_steps(2, family)
    torch.manual_seed(0)
    state = steps.init(100, x)
    together = torch.zeros(100, 8, 8)
    for sweep in range(650):
        for conditional in steps.conditionals:
            state = state | conditional(state, x)
        if sweep >= 50:
            together += state["z"].unsqueeze(-1) == state["z"].unsqueeze(-2)
    shares = (together / 600).numpy()
    error = shares.std(0) / 100**0.5
    upper = np.triu_indices(8, 1)
    assert error[upper].max() < 0.02
    assert 0.05 < exact[upper].min() < exact[upper].max() < 0.95
    assert (np.abs(shares.mean(0) - exact)[upper] < 4 * error[upper]).all()


def test_gibbs_of_one_component_draws_the_conjugate_posterior(family: Family) -> None:
    x = few_rows(family)
    posterior = gibbs(
        mixture.gibbs_steps(1, family), x, num_draws=500, num_warmup=1, num_chains=40, thin=1, progress=False
    )
    draws = posterior.draws[SITE[family]].flatten(0, 1)[:, 0]
    mean, sd = conjugate_moments(x, mixture.default_prior(x, 1, family))
    count = len(draws)
    kurtosis = stats.kurtosis(draws.numpy(), fisher=False)
    assert ((draws.mean(0) - mean).abs() < 4 * sd / count**0.5).all()
    relative = 4 * np.sqrt((kurtosis - 1) / (4 * count))  # of an estimated standard deviation
    assert (np.abs(draws.std(0).numpy() / sd.numpy() - 1) < relative).all()


@pytest.mark.filterwarnings("ignore:gibbs.*swap labels")
def test_gibbs_weights_follow_the_enumerated_posterior(family: Family) -> None:
    """E Σ_k weights_k² | x: given an assignment weights are Dirichlet(c + counts)."""
    x = few_rows(family)
    prior = mixture.default_prior(x, 2, family)
    assignments, value = enumerated(x, prior, 2)
    counts = np.stack([(assignments == k).sum(1) for k in range(2)], 1)
    a = prior.concentration + counts
    total = a.sum(1)
    second = (a * (a + 1)).sum(1) / (total * (total + 1))
    exact = (np.exp(value - logsumexp(value)) * second).sum()
    draws = gibbs(
        mixture.gibbs_steps(2, family), x, num_draws=600, num_warmup=50, num_chains=100, thin=1, progress=False
    ).draws
    means = draws["weights"].square().sum(-1).mean(1)
    assert float(means.mean()) == pytest.approx(exact, abs=4 * float(means.std()) / 10)


# Labels, guides, data


def test_identify_undoes_any_relabelling(family: Family, purchases: tuple[torch.Tensor, Sites]) -> None:
    x, _ = purchases
    params = em(mixture.em_steps(3, family), x, num_restarts=2).params
    torch.manual_seed(0)
    noise = {
        name: value * torch.empty(4, 25, *value.shape, dtype=value.dtype).uniform_(0.95, 1.05)
        for name, value in params.items()
    }
    orders = torch.stack([torch.randperm(3) for _ in range(100)]).unflatten(0, (4, 25))

    def relabel(value: torch.Tensor) -> torch.Tensor:
        return value.gather(2, orders.reshape(4, 25, 3, *[1] * (value.dim() - 3)).expand_as(value))

    shuffled = {name: relabel(value) for name, value in noise.items()}
    straight = mixture.identify(noise)
    anchored, alone = mixture.identify(shuffled, straight), mixture.identify(shuffled)
    for name in noise:
        assert torch.equal(anchored[name], straight[name])
        assert torch.equal(straight[name], noise[name])
        assert alone[name].flatten(0, 1).std(0).max() <= noise[name].flatten(0, 1).std(0).max() * 1.001


@pytest.mark.parametrize("guide", [guides.mean_field, guides.structured])
def test_guides_take_a_dimension_on_the_left(family: Family, purchases: tuple[torch.Tensor, Sites], guide) -> None:
    x, _ = purchases
    pyro.set_rng_seed(0)
    with pyro.get_param_store().scope(), torch.no_grad():
        bound_guide = partial(guide, num_components=3, family=family)
        bound_guide(x)
        with pyro.plate("draws", 3, dim=-2):
            trace = poutine.trace(bound_guide).get_trace(x)
        trace.compute_log_prob()
        names = [name for name in ("weights", SITE[family], "z") if name in trace.nodes]
        together = sum(trace.nodes[name]["log_prob"].reshape(3, -1).sum(1) for name in names)
        values = {name: trace.nodes[name]["value"].squeeze(1) for name in names}
        for draw in range(3):
            one = {name: value[draw] for name, value in values.items()}
            assert float(log_density(bound_guide, x, one)) == pytest.approx(float(together[draw]), rel=1e-12)


def test_the_structured_guide_has_the_mean_field_bound(family: Family, purchases: tuple[torch.Tensor, Sites]) -> None:
    """At each draw of the same q(sites), summing z out under its exact conditional gives the marginal model's ratio."""
    x, _ = purchases
    options = {"num_components": 3, "family": family}
    losses = []
    with pyro.get_param_store().scope():
        for elbo, model, guide in (
            (Trace_ELBO(), bound(family), guides.mean_field),
            (TraceEnum_ELBO(max_plate_nesting=1), bound_latent(family), guides.structured),
        ):
            partial(guide, **options)(x)  # parameters come to be, with random numbers of their own
            pyro.set_rng_seed(1)
            losses.append([elbo.loss(model, partial(guide, **options), x) for _ in range(3)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-11)
    assert np.std(losses[0]) > 1e-3


@pytest.mark.filterwarnings("ignore:svi")
def test_guides_train_to_a_bound_above_coordinate_ascents(
    family: Family, purchases: tuple[torch.Tensor, Sites]
) -> None:
    """With z summed out the bound is no lower than with q(z) apart from q(sites)."""
    x, _ = purchases
    options = {"num_components": 3, "family": family}
    ascended = cavi(mixture.cavi_steps(**options), x, num_restarts=4).info.elbo
    for model, guide, loss in (
        (bound(family), guides.mean_field, None),
        (bound_latent(family), guides.structured, TraceEnum_ELBO(max_plate_nesting=1)),
    ):
        fitted = svi(
            model, partial(guide, **options), x, num_steps=200, lr=0.02, num_draws=200, loss=loss, progress=False
        )
        assert fitted.info.losses[:10].mean() > fitted.info.losses[-50:].mean()
        assert ascended - 0.1 < fitted.info.elbo < ascended + 2


def test_simulated_customers_have_their_segments_moments(family: Family) -> None:
    x, truth = mixture.simulate(20_000, family=family, seed=4)
    shares = torch.bincount(truth["component"], minlength=4) / 20_000
    assert ((shares - truth["weights"]).abs() < 4 * (truth["weights"] / 20_000).sqrt()).all()
    assert float(x.sum(1).mean()) == pytest.approx(20, abs=4 * float(x.sum(1).std()) / 20_000**0.5)
    for k in range(4):
        rows = x[truth["component"] == k]
        mean = truth[SITE[family]][k] * (1 if family == "poisson" else rows.sum(1).mean())
        assert ((rows.mean(0) - mean).abs() < 4 * rows.std(0) / len(rows) ** 0.5).all()
        if family == "poisson":
            dispersion = rows.var(0) / rows.mean(0)
            assert ((dispersion - 1).abs() < 5 * (2 / len(rows)) ** 0.5).all()
    assert torch.equal(x, mixture.simulate(20_000, family=family, seed=4)[0])


def test_options_of_simulate(family: Family) -> None:
    """Each segment buys its favourites, a column in three, so many times more often."""
    options = {"num_components": 3, "num_features": 6, "family": family, "seed": 2}
    x, truth = mixture.simulate(4000, mean_total=50.0, contrast=100.0, **options)
    assert x.shape == (4000, 6)
    assert float(x.sum(1).mean()) == pytest.approx(50, abs=4 * float(x.sum(1).std()) / 4000**0.5)
    favourite = torch.arange(6) % 3 == torch.arange(3)[:, None]
    profile = truth[SITE[family]]
    assert profile[favourite].min() > 5 * profile[~favourite].max()
    assert not torch.equal(x, mixture.simulate(4000, mean_total=50.0, contrast=100.0, **options | {"seed": 3})[0])


def test_segments_are_recovered(family: Family) -> None:
    """As many customers in their true segments as the true parameters put there, less one in a hundred."""
    x, truth = mixture.simulate(1000, family=family, seed=2)
    posterior = em(mixture.em_steps(4, family), x, num_restarts=4)
    true_sites = {name: truth[name][None, None] for name in ("weights", SITE[family])}
    sites = mixture.identify(posterior.draws, mixture.identify(true_sites))

    def right(given: Sites) -> float:
        flat = {name: value[0, 0] for name, value in given.items()}
        return float((mixture.responsibilities(flat, x).argmax(-1) == truth["component"]).double().mean())

    assert right(true_sites) > 0.9
    assert right(sites) > right(true_sites) - 0.01
    counts = 1000 * truth["weights"][:, None]
    variance = truth["rate"] if family == "poisson" else truth["probs"] / 20
    gap = (sites[SITE[family]][0, 0] - truth[SITE[family]]).abs()
    assert (gap < 5 * (variance / counts).sqrt()).all()


def test_default_prior_is_in_the_datas_units(family: Family) -> None:
    x = torch.tensor([[2.0, 0.0, 8.0], [4.0, 0.0, 0.0]], dtype=torch.float64)
    prior = mixture.default_prior(x, 1, family)
    if family == "poisson":
        torch.testing.assert_close(prior.shape / prior.inverse_scale, torch.tensor([3.0, 0.5, 4.0]).double())
    else:
        mode = (prior.shape - 1) / (prior.shape - 1).sum()
        torch.testing.assert_close(mode, torch.tensor([6.0, 1.0, 8.0]).double() / 15)
        assert float(prior.shape.sum()) == pytest.approx(6)


def test_data_that_are_no_counts_get_a_sentence(family: Family) -> None:
    x = few_rows(family)
    for value, words in ((2.5, "holds 2.5"), (-1.0, "holds -1"), (float("nan"), "holds nan"), (float("inf"), "inf")):
        wrong = x.clone()
        wrong[3, 1] = value
        with pytest.raises(ValueError, match=f"mixture: row 3, column 1 .*{words}"):
            mixture.check_counts(wrong)
        with pytest.raises(ValueError, match="row 3, column 'milk'"):
            mixture.check_counts(wrong, ["bread", "milk"])
        for run in (
            bound(family, 2),
            partial(mixture.em_steps(2, family).init, 0),
            partial(mixture.cavi_steps(2, family, mixture.default_prior(x, 2, family)).init, 0),
            partial(mixture.gibbs_steps(2, family).init, 1),
        ):
            with pytest.raises(ValueError, match="row 3, column 1"):
                run(wrong)
    with pytest.raises(ValueError, match="floating-point"):
        mixture.check_counts(torch.ones(2, 2, dtype=torch.long))


def test_bad_options_get_a_sentence(family: Family) -> None:
    x = few_rows(family)
    other = {"poisson": "multinomial", "multinomial": "poisson"}[family]
    prior = mixture.default_prior(x, 2, family)
    low = prior._replace(shape=0.5 * torch.ones_like(prior.shape))
    sites = {name: value[0] for name, value in drawn_sites("multinomial", 1).items()}
    for run, words in (
        (partial(bound(family, 0), x), "num_components must lie between 1"),
        (partial(bound(family, 9), x), "number of rows, 8"),
        (partial(check, 2, "normal", 8), "family must be one of poisson, multinomial"),
        (partial(bound(other, 2, prior=prior), x), "not one of family"),
        (bound(family, 2), "to draw data, give prior="),
        (bound("multinomial", 2, prior=mixture.default_prior(x, 2, "multinomial"), num_rows=3), "totals="),
        (partial(mixture.em_steps(2, family, map=True, prior=low).init, 0, x), "map needs more"),
        (partial(mixture.posterior_predictive, sites, 4), "need their totals"),
        (partial(mixture.simulate, mean_total=0.5), "mean_total"),
    ):
        with pytest.raises(ValueError, match=f"mixture: .*{words}"):
            run()
