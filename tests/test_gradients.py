"""Gradient estimators against closed forms: their means, their variances, and what a wrong one looks like."""

import sys
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import Tensor
from zoo import linear

from guidebook import guides
from guidebook.inference import elbo_gradients, svi

sys.path.insert(0, str(Path(__file__).parents[1] / "tutorials"))
from estimators import Detached, gradient_draws, score_function

LIMIT = 5  # standard errors: of some 150 normal comparisons one exceeds it once in ten thousand runs
DRAWS = 100_000
CENTRE, SCALE = 0.4, 0.7  # a and σ of f = -(z - a)² / 2 under q = Normal(μ, σ²)


def quadratic(z: Tensor, params: dict[str, Tensor]) -> Tensor:
    return -0.5 * (z - CENTRE) ** 2


def normal(params: dict[str, Tensor]) -> dist.Normal:
    return dist.Normal(params["loc"], params["scale"])


def at(r: float) -> dict[str, Tensor]:
    """Parameters with (μ - a) / σ = r."""
    return {
        "loc": torch.tensor(CENTRE + r * SCALE, dtype=torch.float64),
        "scale": torch.tensor(SCALE, dtype=torch.float64),
    }


def z_scores(draws: dict[str, Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Distances of all means from the truth, in standard errors."""
    error = {n: draws[n].std(0) / len(draws[n]) ** 0.5 + 1e-9 for n in truth}
    return torch.cat([((draws[n].mean(0) - truth[n]) / error[n]).flatten() for n in truth])


def variance_and_error(draws: Tensor) -> tuple[float, float]:
    """Sample variance, and its standard error from the fourth moment."""
    square = (draws - draws.mean()) ** 2
    return float(square.mean()), float(square.std() / len(draws) ** 0.5)


def ratio_of_variances(first: Tensor, second: Tensor) -> tuple[float, float]:
    """The ratio, and its standard error by the delta method; the two sets of draws are independent."""
    (a, a_error), (b, b_error) = variance_and_error(first), variance_and_error(second)
    return a / b, a / b * ((a_error / a) ** 2 + (b_error / b) ** 2) ** 0.5


def is_right(score: Tensor, r: float) -> bool:
    """Both properties of the score-function estimate of ∂/∂μ: its mean, and its variance by that of the other one."""
    pathwise = gradient_draws(quadratic, normal, at(r), num_draws=DRAWS, seed=1)["loc"]
    ratio, error = ratio_of_variances(score, pathwise)
    unbiased = z_scores({"loc": score}, {"loc": torch.tensor(-r * SCALE)}).abs().max() < LIMIT
    return bool(unbiased) and abs(ratio - (15 / 4 + 7 / 2 * r**2 + r**4 / 4)) < LIMIT * error


@pytest.mark.parametrize("r", [0.0, 1.0, 3.0])
def test_both_estimators_have_their_known_mean_and_variance(r: float) -> None:
    """Gradients of E f = -((μ - a)² + σ²) / 2; the ratio of variances is 3.75, 7.5, 55.5."""
    truth = {"loc": torch.tensor(-r * SCALE), "scale": torch.tensor(-SCALE)}
    pathwise = gradient_draws(quadratic, normal, at(r), num_draws=DRAWS, seed=2)
    score = gradient_draws(quadratic, normal, at(r), estimator="score_function", num_draws=DRAWS, seed=3)
    assert z_scores(pathwise, truth).abs().max() < LIMIT
    assert z_scores(score, truth).abs().max() < LIMIT
    assert is_right(score["loc"], r)
    variance, error = variance_and_error(pathwise["loc"])
    assert variance == pytest.approx(SCALE**2, abs=LIMIT * error)


def score_times_f(which: str) -> Tensor:
    """The score-function estimate of ∂/∂μ at r = 1 by hand, right or wrong."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(DRAWS, generator=generator, dtype=torch.float64)
    f, score = -0.5 * (SCALE + SCALE * noise) ** 2, noise / SCALE
    return {
        "right": f * score,
        "f of another draw": f.roll(1) * score,
        "f without its half": 2 * f * score,
        "score without its scale": f * noise,
        "its own mean taken off": (f - f.roll(1)) * score / 2,
        "draws averaged in pairs": ((f * score) + (f * score).roll(1)) / 2,
    }[which]


@pytest.mark.parametrize(
    ("which", "right"),
    [
        ("right", True),
        ("f of another draw", False),
        ("f without its half", False),
        ("score without its scale", False),
        ("its own mean taken off", False),
        ("draws averaged in pairs", False),
    ],
)
def test_wrong_estimators_fail_the_same_checks(which: str, right: bool) -> None:
    assert is_right(score_times_f(which), 1.0) is right


@pytest.mark.parametrize("r", [0.0, 1.0, 3.0])
def test_control_variates_leave_the_mean_and_take_off_the_variance_they_should(r: float) -> None:
    """Of ∂/∂μ, in units of σ²: 15/4 + 7r²/2 + r⁴/4 without a baseline, 5/2 + 2r² with E f, 3/2 + 2r² with the best.

    With b = E f the estimate is -(dσε + σ²(ε² - 1)/2) ε/σ, d = μ - a; the best b is E f ε² = E f - σ².
    """
    truth = {"loc": torch.tensor(-r * SCALE), "scale": torch.tensor(-SCALE)}
    plain = gradient_draws(quadratic, normal, at(r), estimator="score_function", num_draws=DRAWS, seed=4)
    last = {name: value.var() for name, value in plain.items()}
    for baseline, known in (("mean", 5 / 2 + 2 * r**2), ("optimal", 3 / 2 + 2 * r**2)):
        draws = gradient_draws(
            quadratic, normal, at(r), estimator="score_function", baseline=baseline, num_draws=DRAWS, seed=4
        )
        assert z_scores(draws, truth).abs().max() < LIMIT
        variance, error = variance_and_error(draws["loc"])
        assert variance == pytest.approx(known * SCALE**2, abs=LIMIT * error)
        new = {name: value.var() for name, value in draws.items()}
        assert all(new[name] < last[name] for name in new)
        last = new


@pytest.mark.parametrize(("baseline", "num_draws"), [("mean", 2), ("optimal", 6)])
def test_baselines_are_unbiased_however_few_the_draws(baseline: str, num_draws: int) -> None:
    """A draw in its own baseline would halve the gradient of two draws; a slope from its own half would bias it."""
    means = {"loc": [], "scale": []}
    for seed in range(600):
        draws = gradient_draws(
            quadratic, normal, at(1.0), estimator="score_function", baseline=baseline, num_draws=num_draws, seed=seed
        )
        for name, values in means.items():
            values.append(draws[name].mean())
    truth = {"loc": torch.tensor(-SCALE), "scale": torch.tensor(-SCALE)}
    assert z_scores({name: torch.stack(values) for name, values in means.items()}, truth).abs().max() < LIMIT


@pytest.mark.parametrize("baseline", [None, "mean", "optimal"])
def test_a_discrete_distribution_has_the_score_function_alone(baseline: str | None) -> None:
    """Three Bernoullis: E f and its gradient by the sum over all eight outcomes."""
    logits = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def objective(z: Tensor, params: dict[str, Tensor]) -> Tensor:
        return torch.exp(weight @ z)

    outcomes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    mass = dist.Bernoulli(logits=logits).log_prob(outcomes).sum(-1).exp()
    (truth,) = torch.autograd.grad((mass * torch.exp(outcomes @ weight)).sum(), logits)

    def family(params: dict[str, Tensor]) -> dist.Distribution:
        return dist.Bernoulli(logits=params["logits"]).to_event(1)

    draws = gradient_draws(
        objective, family, {"logits": logits.detach()}, estimator="score_function", baseline=baseline, num_draws=50_000
    )
    assert draws["logits"].shape == (50_000, 3)
    assert z_scores(draws, {"logits": truth}).abs().max() < LIMIT


@pytest.mark.parametrize(
    ("estimator", "baseline"), [("reparameterised", None), ("score_function", None), ("score_function", "optimal")]
)
def test_an_elbo_whose_density_of_q_moves_with_its_parameters(estimator: str, baseline: str | None) -> None:
    """-KL(Normal(m, s²) ‖ Normal(1, 2²)), with gradient -(m - 1)/4 and 1/s - s/4; zero where q is the target."""
    target = dist.Normal(torch.tensor(1.0, dtype=torch.float64), 2.0)

    def elbo(z: Tensor, params: dict[str, Tensor]) -> Tensor:
        return target.log_prob(z) - normal(params).log_prob(z)

    for m, s in ((0.2, 0.8), (1.0, 2.0)):
        params = {"loc": torch.tensor(m, dtype=torch.float64), "scale": torch.tensor(s, dtype=torch.float64)}
        draws = gradient_draws(elbo, normal, params, estimator=estimator, baseline=baseline, num_draws=20_000)
        truth = {"loc": torch.tensor(-(m - 1) / 4), "scale": torch.tensor(1 / s - s / 4)}
        assert z_scores(draws, truth).abs().max() < LIMIT
        if baseline and m == 1.0:  # f is constant there, and all that is left is a multiple of the score
            assert max(float(v.var()) for v in draws.values()) < 1e-12


@pytest.mark.parametrize(
    ("estimator", "baseline"),
    [("reparameterised", None), ("score_function", None), ("score_function", "mean")],
)
def test_parameters_of_f_itself_get_their_part(estimator: str, baseline: str | None) -> None:
    """E θ z² = θ (m² + s²), θ a parameter of f alone, and s of f and q: with f = θ z² / s the part 1/s counts too."""
    theta, m, s = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.5, 0.4, 0.8))
    known = torch.autograd.grad(theta * (m**2 + s**2) / s, (theta, m, s))
    draws = gradient_draws(
        lambda z, p: p["theta"] * z**2 / p["scale"],
        normal,
        {"theta": theta.detach(), "loc": m.detach(), "scale": s.detach()},
        estimator=estimator,
        baseline=baseline,
        num_draws=20_000,
    )
    assert z_scores(draws, dict(zip(("theta", "loc", "scale"), known, strict=True))).abs().max() < LIMIT


def test_gradient_draws_refuse_what_they_cannot_do() -> None:
    for options in ({"estimator": "pathwise"}, {"baseline": "mean"}, {"estimator": "score_function", "baseline": "f"}):
        with pytest.raises(ValueError, match="there is no estimator"):
            gradient_draws(quadratic, normal, at(0.0), **options)
    params = {"loc": torch.arange(5.0), "scale": torch.tensor(0.5)}  # with five copies, one scale for each entry
    for num_draws in (5, 40):
        with pytest.raises(RuntimeError, match="must match the size"):
            gradient_draws(quadratic, lambda p: dist.Normal(p["loc"], p["scale"]), params, num_draws=num_draws)


def test_same_seed_same_gradients_and_no_state_is_left() -> None:
    state = torch.get_rng_state()
    params = at(1.0)
    first, again, other = (gradient_draws(quadratic, normal, params, num_draws=50, seed=s) for s in (1, 1, 2))
    assert torch.equal(first["loc"], again["loc"])
    assert not torch.equal(first["loc"], other["loc"])
    assert torch.equal(state, torch.get_rng_state())
    assert not params["loc"].requires_grad


# Any Pyro model and guide


@pytest.fixture(scope="module")
def rows() -> tuple[Tensor, Tensor]:
    return linear.data(20)


def mean_field(x: Tensor, y: Tensor | None = None, *, start: float = 0.1) -> None:
    mean = pyro.param("mean", lambda: x.new_zeros(3))
    scale = pyro.param("scale", lambda: x.new_full((3,), start), constraint=dist.constraints.positive)
    pyro.sample("w", dist.Normal(mean, scale).to_event(1))


def closed_form(x: Tensor, y: Tensor, params: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the ELBO of q = Normal(m, s²): Λ (μ - m), and by log s: 1 - Λ[i, i] s[i]²; Normal(μ, Λ⁻¹) the posterior."""
    posterior = linear.posterior(x, y)
    precision = posterior.precision_matrix
    return {
        "mean": precision @ (posterior.mean - params["mean"]),
        "scale": 1 - precision.diagonal() * params["scale"] ** 2,
    }


def near(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Parameters of `mean_field` a standard deviation off, and too wide by a half."""
    posterior = linear.posterior(x, y)
    sd = posterior.precision_matrix.diagonal().rsqrt()
    return {"mean": posterior.mean + sd, "scale": 1.5 * sd}


def transformed(x: Tensor) -> dist.TransformedDistribution:
    """`mean_field` again, its parameters within a transformation that remembers its last draw."""
    mean = pyro.param("mean", lambda: x.new_zeros(3))
    scale = pyro.param("scale", lambda: x.new_full((3,), 0.1), constraint=dist.constraints.positive)
    affine = dist.transforms.AffineTransform(mean, scale, event_dim=1, cache_size=1)
    return dist.TransformedDistribution(dist.Normal(torch.zeros_like(mean), 1.0).to_event(1), [affine])


def through_a_transformation(x: Tensor, y: Tensor | None = None) -> None:
    pyro.sample("w", transformed(x))


PARTICLES = {"num_particles": 8, "vectorize_particles": True, "max_plate_nesting": 1}
ESTIMATORS = {
    "Trace": (mean_field, Trace_ELBO, 800),
    "TraceMeanField": (mean_field, TraceMeanField_ELBO, 800),
    "TraceGraph": (mean_field, TraceGraph_ELBO, 300),
    "score, Trace": (score_function(mean_field), Trace_ELBO, 800),
    "score, TraceGraph": (score_function(mean_field, baseline=False), TraceGraph_ELBO, 200),
    "score, baseline": (score_function(mean_field), TraceGraph_ELBO, 500),
    "score, baseline, particles": (score_function(mean_field), partial(TraceGraph_ELBO, **PARTICLES), 150),
    "score, transformation": (score_function(through_a_transformation), Trace_ELBO, 800),
}


@pytest.fixture(scope="module")
def estimates(rows) -> dict[str, dict[str, Tensor]]:
    return {
        name: elbo_gradients(linear.model, guide, *rows, loss=loss(), params=near(*rows), num_draws=num_draws, seed=7)
        for name, (guide, loss, num_draws) in ESTIMATORS.items()
    }


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_loss_estimates_the_gradient_in_closed_form(rows, estimates, name: str) -> None:
    assert z_scores(estimates[name], closed_form(*rows, near(*rows))).abs().max() < LIMIT


def test_variances_are_in_their_order(estimates) -> None:
    """Analytic divergence < sampled; reparameterised < score function with a baseline < without."""
    variance = {name: {n: value.var(0) for n, value in draws.items()} for name, draws in estimates.items()}
    for lower, higher in (
        ("TraceMeanField", "Trace"),
        ("Trace", "score, baseline"),
        ("score, baseline", "score, Trace"),
        ("score, baseline, particles", "score, baseline"),
    ):
        assert all((variance[lower][n] < variance[higher][n]).all() for n in ("mean", "scale")), (lower, higher)


def test_variances_of_reparameterised_gradients_have_their_closed_forms(rows, estimates) -> None:
    """By the mean: diag(Λ S Λ), S = diag(s²); without the prior's part, whose divergence is analytic, Λ - I for Λ."""
    precision = linear.posterior(*rows).precision_matrix
    square = near(*rows)["scale"] ** 2
    for name, curvature in (("Trace", precision), ("TraceMeanField", precision - torch.eye(3, dtype=precision.dtype))):
        for entry, known in enumerate((curvature.square() * square).sum(1)):
            variance, error = variance_and_error(estimates[name]["mean"][:, entry])
            assert variance == pytest.approx(float(known), abs=LIMIT * error)


def test_a_switch_alone_is_biased_where_a_transformation_remembers_its_last_draw(rows) -> None:
    """The bias that `score_function` avoids: the way back from the draw is taken as fixed."""

    def biased(x: Tensor, y: Tensor | None = None) -> None:
        fn = transformed(x)
        fn.__class__ = type("Switched", (type(fn),), {"has_rsample": False})
        pyro.sample("w", fn)

    draws = elbo_gradients(linear.model, biased, *rows, params=near(*rows), num_draws=300)
    assert z_scores(draws, closed_form(*rows, near(*rows))).abs().max() > 10


def test_one_importance_sample_gives_the_elbos_gradient_and_more_are_exact_at_the_posterior(rows) -> None:
    """RenyiELBO(alpha=0) is the importance-weighted bound, whose gradient vanishes where q is the posterior."""
    options = {"params": near(*rows), "num_draws": 600}
    single = elbo_gradients(linear.model, mean_field, *rows, loss=RenyiELBO(alpha=0, num_particles=1), **options)
    assert z_scores(single, closed_form(*rows, near(*rows))).abs().max() < LIMIT

    def exact(x: Tensor, y: Tensor | None = None) -> None:
        mean = pyro.param("mean", lambda: x.new_zeros(3))
        root = pyro.param("root", lambda: torch.eye(3, dtype=x.dtype), constraint=dist.constraints.lower_cholesky)
        pyro.sample("w", dist.MultivariateNormal(mean, scale_tril=root))

    posterior = linear.posterior(*rows)
    at_posterior = {"mean": posterior.mean, "root": posterior.scale_tril}
    bound = RenyiELBO(alpha=0, num_particles=5)
    draws = elbo_gradients(linear.model, exact, *rows, loss=bound, params=at_posterior, num_draws=200)
    lower = torch.tril_indices(3, 3)
    free = {"mean": draws["mean"], "root": draws["root"][:, lower[0], lower[1]]}
    assert z_scores(free, {name: torch.zeros(value.shape[1:]) for name, value in free.items()}).abs().max() < LIMIT
    off = elbo_gradients(linear.model, mean_field, *rows, loss=bound, num_draws=60)
    assert z_scores(off, {"mean": torch.zeros(3)}).abs().max() > LIMIT


def test_gradients_of_autoguides_families_and_losses_that_are_functions(rows) -> None:
    """AutoNormal keeps the logarithm-like softplus of its scale: ∂/∂u = ∂/∂s · sigmoid(u)."""
    params = near(*rows)
    named = {"AutoNormal.locs.w": params["mean"], "AutoNormal.scales.w": params["scale"]}
    draws = elbo_gradients(linear.model, guides.mean_field, *rows, params=named, num_draws=500)
    truth = closed_form(*rows, params)
    free = torch.distributions.transform_to(dist.constraints.softplus_positive).inv(params["scale"])
    truth = {
        "AutoNormal.locs.w": truth["mean"],
        "AutoNormal.scales.w": truth["scale"] / params["scale"] * torch.sigmoid(free),
    }
    assert set(draws) == set(truth)
    assert z_scores(draws, truth).abs().max() < LIMIT

    guide = guides.mean_field(linear.model)
    made = elbo_gradients(linear.model, guide, *rows, params=named, num_draws=50)
    again = elbo_gradients(
        linear.model, guide, *rows, params=named, num_draws=50, loss=Trace_ELBO().differentiable_loss
    )
    for name in made:
        torch.testing.assert_close(made[name], again[name])
    assert guide.prototype_trace is None  # only a copy of it was run
    assert not list(pyro.get_param_store())


def test_elbo_gradients_refuse_what_they_cannot_do(rows) -> None:
    for options, words in (
        ({"num_draws": 0}, "num_draws must be at least 1"),
        ({"params": {"mu": torch.zeros(3)}}, "no parameter 'mu'; there is mean, scale"),
    ):
        with pytest.raises(ValueError, match=words):
            elbo_gradients(linear.model, mean_field, *rows, **options)
    with pytest.raises(ValueError, match="have no parameters"):
        elbo_gradients(linear.model, lambda x, y: pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1)), *rows)


# The score function as a guide


def distributions(loc: Tensor, scale: Tensor) -> dict[str, dist.Distribution]:
    plain = dist.Normal(loc, scale)
    affine = dist.transforms.AffineTransform(loc, scale, cache_size=1)
    return {
        "plain": plain,
        "event": plain.to_event(1),
        "expanded event": plain.to_event(1).expand([4]),
        "joint": dist.MultivariateNormal(loc, scale_tril=torch.diag(scale)),
        "gamma": dist.Gamma(scale, loc.exp()).expand([2, 3]).to_event(2),
        "dirichlet": dist.Dirichlet(scale),
        "transformed": dist.TransformedDistribution(dist.Normal(torch.zeros(3), 1.0), [affine]).to_event(1),
    }


@pytest.mark.parametrize("name", distributions(torch.zeros(3), torch.ones(3)))
def test_draws_forget_their_gradient_and_nothing_else(name: str) -> None:
    """Same draws, same density, same gradient of the density at a fixed value, also after a plate has expanded it."""
    leaves = (torch.arange(3.0, requires_grad=True), torch.tensor([0.5, 1.0, 2.0], requires_grad=True))
    original = distributions(*leaves)[name]
    detached = Detached(original)
    wider = (2, *original.batch_shape)
    for ours, theirs in ((detached, original), (detached.expand(wider), original.expand(wider))):
        assert theirs.has_rsample
        torch.manual_seed(0)
        value = ours()
        torch.manual_seed(0)
        assert torch.equal(value, theirs().detach())
        assert not value.requires_grad
        parts, density = ours.score_parts(value), theirs.log_prob(value.clone())
        torch.testing.assert_close(parts.score_function, density)
        assert isinstance(parts.entropy_term, int)  # Pyro's sign for no such term
        mine, known = (
            torch.autograd.grad(d.sum(), leaves, allow_unused=True, retain_graph=True)
            for d in (parts.log_prob, density)
        )
        assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in mine)
        torch.testing.assert_close(mine, known)


def test_sites_ask_for_a_baseline_unless_they_bring_their_own_or_are_told_not_to() -> None:
    def guide() -> None:
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(0.0, 1.0), infer={"baseline": {"baseline_value": torch.zeros(())}, "other": 1})
        pyro.sample("point", dist.Delta(torch.zeros(2), event_dim=1))

    with_baseline = poutine.trace(score_function(guide, decay=0.7)).get_trace().nodes
    assert with_baseline["a"]["infer"]["baseline"] == {"use_decaying_avg_baseline": True, "baseline_beta": 0.7}
    assert list(with_baseline["b"]["infer"]["baseline"]) == ["baseline_value"]
    assert with_baseline["b"]["infer"]["other"] == 1
    assert with_baseline["point"]["fn"].has_rsample
    without = poutine.trace(score_function(guide, baseline=False)).get_trace().nodes
    assert "baseline" not in without["a"]["infer"]
    assert not without["a"]["fn"].has_rsample


def test_training_by_the_score_function_reaches_the_same_posterior(rows) -> None:
    """Optimum of mean-field in closed form: the posterior's mean, and 1 / √Λ[i, i]."""
    posterior = linear.posterior(*rows)
    sd = posterior.precision_matrix.diagonal().rsqrt()
    particles = TraceGraph_ELBO(num_particles=20, vectorize_particles=True, max_plate_nesting=1)
    fit = svi(
        linear.model,
        score_function(mean_field),
        *rows,
        loss=particles,
        num_steps=500,
        lr=0.03,
        num_draws=4000,
        engine="eager",  # the baselines change from step to step
        progress=False,
    )
    assert ((fit.params["mean"] - posterior.mean) / sd).abs().max() < 0.2
    assert (fit.params["scale"] / sd - 1).abs().max() < 0.1
    w = fit.draws["w"][0]
    assert ((w.mean(0) - fit.params["mean"]) / fit.params["scale"]).abs().max() < LIMIT / len(w) ** 0.5
    assert fit.info.elbo < linear.log_evidence(*rows) + LIMIT * fit.info.elbo_se
    assert fit.info.guide == "score_function(mean_field)"
