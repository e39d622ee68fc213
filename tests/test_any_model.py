"""Models of which an unwary method would give a wrong answer: the right one, by every method that takes them.

Right values are closed forms, sums over discrete values, or quadrature.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoNormal
from pyro.infer.reparam import LocScaleReparam
from scipy import stats
from torch import Tensor
from torch.distributions.transforms import AbsTransform, AffineTransform, ExpTransform

from guidebook.guides import full_rank, laplace, mean_field
from guidebook.inference import Posterior, compare, discrete_draws, evidence, hmc, metropolis, nuts, svi
from guidebook.inference.diagnostics import mcse
from guidebook.inference.traces.prepare import prepare

pytest.importorskip("numpyro")
T = torch.tensor
nuts_of = partial(nuts, progress=False)


def close(draws: Tensor, mean: Any, sd: Any = None, errors: float = 4.0) -> None:
    """Check means, and sds if given, within Monte Carlo errors; draws are (chain, draw, *site)."""
    mean = torch.as_tensor(mean, dtype=torch.float64)
    off = (draws.double().mean((0, 1)) - mean).abs() / mcse(draws).clamp(min=1e-12)
    assert (off < errors).all(), f"means off by {off} errors"
    if sd is not None:
        off = (draws.double().std((0, 1)) - torch.as_tensor(sd, dtype=torch.float64)).abs() / mcse(draws, "sd")
        assert (off < errors).all(), f"sds off by {off} errors"


def fast(posterior: Posterior) -> Posterior:
    assert posterior.info.engine == "xla"
    return posterior


# Sites that depend on discrete ones


def two_centres(x: Tensor) -> None:
    z = pyro.sample("z", dist.Categorical(T([0.5, 0.5])))
    mu = pyro.sample("mu", dist.Normal(T([-5.0, 5.0]), 0.1).to_event(1))
    pyro.deterministic("centre", mu[z])
    pyro.sample("x", dist.Normal(mu[z], 1.0), obs=x)


def test_a_deterministic_site_follows_the_discrete_one() -> None:
    x = T(5.0)
    mean, sd = (500 + 5) / 101, (1 / 101) ** 0.5  # the other component has odds e⁻⁵⁰
    close(fast(nuts_of(two_centres, x)).draws["centre"], mean, sd)
    posterior = svi(two_centres, laplace, x, num_draws=4000, progress=False)
    close(posterior.draws["centre"], mean, sd)
    assert posterior.info.elbo == pytest.approx(math.log(0.5) + float(dist.Normal(5.0, 1.01**0.5).log_prob(x)), abs=0.1)


COUNTS = T([4, 5, 4, 1, 0, 4, 3, 4, 0, 6, 3, 3, 4, 0, 2, 6, 3, 3, 5, 4, 1, 0, 1, 1, 1, 0, 0, 2, 1, 0, 0, 1, 2.0])


def change_point(counts: Tensor) -> None:
    years = torch.arange(float(len(counts)))
    with pyro.plate("eras", 2):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    change = pyro.sample("change", dist.Categorical(torch.ones(len(counts))))
    pyro.deterministic("year", years[change])
    with pyro.plate("years", len(counts)):
        pyro.sample("counts", dist.Poisson(torch.where(years < change, rate[0], rate[1])), obs=counts)


def change_posterior() -> np.ndarray:
    """Return p(change | counts), the rates integrated out in closed form."""
    counts = COUNTS.numpy()
    logs = [
        sum(
            math.lgamma(2 + part.sum()) - (2 + part.sum()) * math.log(1 + len(part))
            for part in (counts[:change], counts[change:])
        )
        for change in range(len(counts))
    ]
    odds = np.exp(np.array(logs) - max(logs))
    return odds / odds.sum()


def test_a_change_point_has_its_exact_posterior() -> None:
    exact, years = change_posterior(), np.arange(len(COUNTS))
    mean = (exact * years).sum()
    sd = math.sqrt((exact * (years - mean) ** 2).sum())
    posterior = fast(nuts_of(change_point, COUNTS))
    close(posterior.draws["year"], mean, sd)
    change = discrete_draws(posterior, change_point, COUNTS)["change"]
    assert change.shape == (4, 1000)
    close(change, mean, sd)
    guided = svi(change_point, full_rank, COUNTS, num_steps=4000, num_draws=4000, progress=False)
    assert float(guided.draws["year"].mean()) == pytest.approx(mean, abs=0.3)


def labels(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(T([-2.0, 2.0]), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(T([0.3, 0.7])))
        pyro.deterministic("centre", mu[z])
        pyro.sample("x", dist.Normal(mu[z], 1.0), obs=x)


def test_labels_are_drawn_jointly_with_their_exact_probabilities() -> None:
    x = T([-1.0, 0.0, 0.4, 2.0])
    posterior = nuts_of(labels, x)
    mu = posterior.draws["mu"].double()
    log = T([0.3, 0.7]).double().log() - 0.5 * (x.double()[:, None] - mu[:, :, None]) ** 2
    probability = log.softmax(-1)[..., 1]
    z = discrete_draws(posterior, labels, x)["z"].double()
    error = (probability * (1 - probability)).mean((0, 1)).sqrt() / math.sqrt(4000)
    assert ((z.mean((0, 1)) - probability.mean((0, 1))).abs() < 4 * error).all()
    pairs = z * z.roll(1, -1) - probability * probability.roll(1, -1)  # given mu, rows are independent
    assert (pairs.mean((0, 1)).abs() < 4 * pairs.std((0, 1)) / math.sqrt(4000)).all()
    centre = (1 - probability) * mu[..., :1] + probability * mu[..., 1:]
    close(posterior.draws["centre"] - centre, torch.zeros(4))


def test_the_curvature_is_that_of_the_sum_over_discrete_values() -> None:
    def model(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Categorical(T([0.5, 0.5])))
            pyro.sample("x", dist.Normal(mu + 4.0 * z, 1.0), obs=x)

    x = T([-0.3, 0.1, 0.2, 3.5, 4.4, 2.1])
    at = svi(model, laplace, x, num_draws=10_000, progress=False)

    def minus_log_joint(mu: Tensor) -> Tensor:
        parts = torch.stack([dist.Normal(mu + shift, 1.0).log_prob(x.double()) for shift in (0.0, 4.0)])
        return -dist.Normal(0.0, 10.0).log_prob(mu) - (parts.logsumexp(0) - math.log(2)).sum()

    mode = at.draws["mu"].double().mean().reshape(())
    sd = torch.autograd.functional.hessian(minus_log_joint, mode) ** -0.5
    close(at.draws["mu"], mode, sd)


# Parameters inside the model


def learns(x: Tensor) -> None:
    w = pyro.param("w", T(0.5))
    s = pyro.sample("s", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(w + s, 1.0), obs=x)


X = T([1.3, 0.2, 2.1, 0.9, 1.6, -0.4, 1.1, 0.7])


def test_parameters_are_held_as_said_or_as_given() -> None:
    n = len(X)
    with pytest.warns(UserWarning, match="parameters w are held at their initial values"):
        held = nuts_of(learns, X)
    close(held.draws["s"], n / (n + 1) * float(X.mean() - 0.5), (n + 1) ** -0.5)
    for method in (nuts, partial(hmc, num_draws=500), partial(metropolis, num_draws=500)):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "parameters")
            given = method(learns, X, params={"w": T(-1.0)}, progress=False)
        close(given.draws["s"], n / (n + 1) * float(X.mean() + 1.0), (n + 1) ** -0.5)
        assert float(given.params["w"]) == -1.0
        assert (given.draws["w"] == -1.0).all()
    with pytest.raises(ValueError, match="nuts: the model has no parameter 'v': it has w"):
        nuts_of(learns, X, params={"v": T(1.0)})


def test_what_one_learnt_and_the_other_held_is_not_compared() -> None:
    fit = svi(learns, mean_field, X, num_steps=3000, num_draws=4000, progress=False)
    with pytest.warns(UserWarning, match="held"):
        held = nuts_of(learns, X)
    with pytest.raises(ValueError, match=r"compare: parameter 'w' .* params="):
        compare(held, fit)
    agreeing = compare(nuts_of(learns, X, params=fit.params), fit)
    assert agreeing.verdicts["svi:mean_field"].judgement == "good"


# Plates that subsample by themselves


def subsampling(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x), subsample_size=3) as index:
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x[index])


def subsampling_with_locals(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x), subsample_size=3) as index:
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])


def test_subsampled_plates_are_judged_on_all_rows() -> None:
    n, double = len(X), X.double()
    exact = float(dist.MultivariateNormal(torch.zeros(n).double(), torch.eye(n).double() + 1).log_prob(double))
    drawn = fast(nuts_of(subsampling, X))
    close(drawn.draws["mu"], n * float(X.mean()) / (n + 1), (n + 1) ** -0.5)
    assert "takes all its rows" in drawn.info.message
    for guide in (mean_field, by_hand):
        fit = svi(subsampling, guide, X, num_steps=3000, num_draws=4000, progress=False)
        assert exact - 0.2 < fit.info.elbo < exact + 3 * fit.info.elbo_se + 1e-5  # rounding, where the guide is exact
        assert fit.info.k_hat < 0.7
    drawn = nuts_of(subsampling_with_locals, X)
    close(drawn.draws["mu"], n * float(X.mean()) / (n + 2), (1 / (1 + n / 2)) ** 0.5)
    assert drawn.draws["z"].shape == (4, 1000, n)
    fit = svi(subsampling_with_locals, mean_field, X, num_steps=2000, progress=False)
    assert fit.draws["z"].shape == (1, 1000, n)
    covariance = 2 * torch.eye(n).double() + 1
    assert fit.info.elbo < float(dist.MultivariateNormal(torch.zeros(n).double(), covariance).log_prob(double))


def by_hand(x: Tensor) -> None:
    loc = pyro.param("loc", T(0.0))
    pyro.sample("mu", dist.Normal(loc, pyro.param("scale", T(0.3), constraint=constraints.positive)))
    with pyro.plate("rows", len(x), subsample_size=3):
        pass


# Masks on latent sites


def missing(x: Tensor, seen: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x, obs_mask=seen)


def test_entries_that_a_mask_leaves_out_do_not_distort_the_evidence() -> None:
    seen = T([True, True, False, True, True, True, False, False])
    known = X[seen].double()
    n = len(known)
    exact = float(dist.MultivariateNormal(torch.zeros(n).double(), torch.eye(n).double() + 1).log_prob(known))
    drawn = fast(nuts_of(missing, X, seen))
    mean, sd = float(known.sum()) / (n + 1), (n + 1) ** -0.5
    close(drawn.draws["mu"], mean, sd)
    close(drawn.draws["x"][..., ~seen], torch.full((3,), mean), (1 + sd**2) ** 0.5)
    assert torch.equal(drawn.draws["x"][0, 0, seen], X[seen])
    fit = svi(missing, full_rank, X, seen, num_steps=4000, num_draws=4000, progress=False)
    assert exact - 0.2 < fit.info.elbo < exact + 3 * fit.info.elbo_se + 1e-5  # rounding, where the guide is exact


def test_masked_latents_of_several_kinds() -> None:
    def padded(y: Tensor, lengths: Tensor) -> None:
        """Walks of unequal length, padded: latent steps beyond the end influence nothing."""
        walks, steps = pyro.plate("walks", len(y)), pyro.plate("steps", y.shape[1], dim=-2)
        with walks, steps, poutine.mask(mask=torch.arange(3)[:, None] < lengths):
            step = pyro.sample("step", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(step, 1.0), obs=y.T)

    y, lengths = T([[0.5, 1.0, 9.0], [1.0, -1.0, 0.3]]), T([2, 3])
    within = torch.arange(3) < lengths[:, None]
    exact = float(dist.Normal(0.0, 2**0.5).log_prob(y.double())[within].sum())
    fit = svi(padded, mean_field, y, lengths, num_steps=4000, num_draws=2000, progress=False)
    assert fit.info.elbo == pytest.approx(exact, abs=0.05)  # the posterior is a product of normals
    close(nuts_of(padded, y, lengths).draws["step"].mT[:, :, within], y[within] / 2, 0.5**0.5)

    def unused() -> None:
        pyro.sample("a", dist.Normal(0.0, 2.0).mask(False))
        pyro.sample("b", dist.Normal(1.0, 1.0))

    assert prepare("nuts", unused, ()).flat == ()
    close(nuts_of(unused).draws["a"], 0.0, 2.0)


def test_a_prior_that_is_masked_out_is_flat() -> None:
    def model(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 0.1).mask(False))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    assert prepare("nuts", model, (X,)).flat == ("mu",)
    close(nuts_of(model, X).draws["mu"], float(X.mean()), len(X) ** -0.5)
    with pytest.raises(ValueError, match="site 'mu' has a flat prior"):
        evidence(model, X, method="naive")


# Supports that depend on other sites


def triangle() -> None:
    a = pyro.sample("a", dist.Uniform(0.0, 1.0))
    pyro.sample("b", dist.Uniform(0.0, 1 - a))
    pyro.factor("uniform on the triangle", torch.log1p(-a))


def test_supports_may_depend_on_other_sites() -> None:
    sd = (1 / 18) ** 0.5
    drawn = fast(nuts_of(triangle))
    assert set(drawn.draws) == {"a", "b"}
    for name in ("a", "b"):
        close(drawn.draws[name], 1 / 3, sd)
    drawn = hmc(triangle, num_draws=400, num_warmup=300, progress=False)
    close(drawn.draws["b"], 1 / 3, sd)
    fit = svi(triangle, full_rank, num_steps=4000, num_draws=4000, progress=False)
    assert set(fit.draws) == {"a", "b"}
    assert fit.info.elbo < math.log(0.5)
    assert bool((fit.draws["a"] + fit.draws["b"] < 1).all())
    assert float(fit.draws["b"].mean()) == pytest.approx(1 / 3, abs=0.03)


def test_supports_that_depend_on_others_in_plates_and_simplexes() -> None:
    def below(x: Tensor) -> None:
        top = pyro.sample("top", dist.Gamma(4.0, 1.0))
        with pyro.plate("rows", 3):
            y = pyro.sample("y", dist.Uniform(torch.zeros(3), top))
            pyro.sample("x", dist.Normal(y, 0.5), obs=x)

    x = T([0.5, 1.0, 1.5])
    top = np.linspace(1e-3, 25, 20_001)
    each = stats.norm.cdf((top[:, None] - x.numpy()) / 0.5) - stats.norm.cdf(-x.numpy() / 0.5)
    density = stats.gamma.pdf(top, 4) * (each / top[:, None]).prod(1)
    mean = (density * top).sum() / density.sum()
    sd = math.sqrt((density * (top - mean) ** 2).sum() / density.sum())
    close(fast(nuts_of(below, x)).draws["top"], mean, sd)

    def later() -> None:  # the second waits at least as long as the first
        first = pyro.sample("first", dist.Exponential(1.0))
        pyro.sample("second", dist.Pareto(first, 5.0))

    close(nuts_of(later).draws["second"].log(), -0.5772156649 + 0.2)  # E log first + 1/5


def shifted(base: Any, *transforms: Any) -> dist.TransformedDistribution:  # type: ignore[name-defined]
    """A distribution whose stated support is the real line, whatever its base's."""
    return dist.TransformedDistribution(base, list(transforms))  # type: ignore[attr-defined]


def late(x: Tensor) -> None:
    start = pyro.sample("start", shifted(dist.Exponential(1.0), AffineTransform(2.0, 1.0)))
    pyro.sample("x", dist.Normal(start, 1.0), obs=x)


def test_shifted_distributions_end_where_their_density_does() -> None:
    there = stats.truncnorm(3.0, np.inf, loc=-1.0)  # of exp(-(a - 2)) N(0 | a, 1) above 2
    drawn = fast(nuts_of(late, T(0.0), target_accept=0.95))
    close(drawn.draws["start"], there.mean(), there.std())
    fit = svi(late, full_rank, T(0.0), num_steps=8000, num_draws=4000, progress=False)
    assert float(fit.draws["start"].min()) > 2
    exact = 2 + 0.5 + stats.norm.logsf(3.0)
    found = evidence(late, T(0.0), method="bridge", posterior=drawn)
    assert abs(found.estimate - exact) < max(4 * found.error, 0.02)
    assert fit.info.elbo < exact  # type: ignore[operator]


def test_guides_of_shifted_distributions_draw_them_as_they_are_written() -> None:
    def guide(x: Tensor) -> None:
        rate = pyro.param("rate", T(1.0), constraint=constraints.positive)
        pyro.sample("start", shifted(dist.Exponential(rate), AffineTransform(2.0, 1.0)))

    fit = svi(late, guide, T(0.0), num_steps=3000, progress=False)
    there = stats.truncnorm(3.0, np.inf, loc=-1.0)
    assert float(fit.draws["start"].mean()) == pytest.approx(there.mean(), abs=0.05)
    with pytest.raises(ValueError, match=r"^svi: the support of site 'start' .* AutoNormal, instead of a guide"):
        svi(late, AutoNormal(late), T(0.0), num_steps=10, progress=False)


def test_shifted_distributions_in_plates_and_vectors() -> None:
    def losses(x: Tensor) -> None:
        with pyro.plate("rows", 3):
            loss = pyro.sample("loss", shifted(dist.Normal(0.0, 1.0), ExpTransform(), AffineTransform(-1.0, -2.0)))
            pyro.sample("x", dist.Normal(loss, 1.0), obs=x)

    x, grid = T([-2.0, -3.0, -6.0]), np.linspace(1e-4, 60, 200_001)
    density = stats.lognorm.pdf(grid, 1.0) * stats.norm.pdf(x.numpy()[:, None], -1 - 2 * grid)
    density /= density.sum(1, keepdims=True)
    mean = (density * (-1 - 2 * grid)).sum(1)
    sd = np.sqrt((density * (-1 - 2 * grid - mean[:, None]) ** 2).sum(1))
    close(fast(nuts_of(losses, x, target_accept=0.95)).draws["loss"], mean, sd)

    def rates() -> None:
        beta = dist.Beta(T([2.0, 3.0]), 3.0).to_event(1)
        pyro.sample("rates", shifted(beta, AffineTransform(1.0, 4.0)))

    close(fast(nuts_of(rates)).draws["rates"], 1 + 4 * np.array([0.4, 0.5]), 4 * np.array([0.2, math.sqrt(1 / 28)]))


def test_transforms_that_reach_what_is_stated_are_left_alone_and_those_without_an_inverse_refused() -> None:
    def plain() -> None:
        pyro.sample("a", dist.LogNormal(0.0, 1.0))
        pyro.sample("b", shifted(dist.Normal(0.0, 1.0), AffineTransform(2.0, 3.0), ExpTransform()))

    assert prepare("nuts", plain, ()).log_joint().latent == ["a", "b"]

    def folded() -> None:
        pyro.sample("a", shifted(dist.Normal(0.0, 1.0), AbsTransform()))

    with pytest.raises(
        ValueError, match=r"^nuts: the model cannot be run: AbsTransform does not implement log_abs_det"
    ):
        nuts_of(folded)


# Reparameterised sites

EFFECTS, ERRORS = T([28.0, 8, -3, 7, -1, 1, 18, 12]), T([15.0, 10, 16, 11, 9, 11, 10, 18])


def schools(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, 3.0))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def test_a_reparameterised_site_is_among_the_draws() -> None:
    model = poutine.reparam(schools, {"theta": LocScaleReparam(0.0)})
    marginal = (ERRORS**2 + 9).double()
    variance = 1 / (1 / 25 + (1 / marginal).sum())
    mean = variance * (EFFECTS / marginal).sum()
    shrink = 9 / marginal
    theta, spread = shrink * EFFECTS + (1 - shrink) * mean, shrink * ERRORS**2 + (1 - shrink) ** 2 * variance
    close(fast(nuts_of(model, EFFECTS, ERRORS)).draws["theta"], theta, spread.sqrt())
    fit = svi(model, full_rank, EFFECTS, ERRORS, num_steps=8000, num_draws=4000, progress=False)
    assert fit.draws["theta"].shape == (1, 4000, 8)
    assert ((fit.draws["theta"].mean((0, 1)) - theta).abs() < 0.2 * spread.sqrt()).all()
    with pytest.warns(UserWarning, match="theta_centered are held"):
        nuts_of(poutine.reparam(schools, {"theta": LocScaleReparam()}), EFFECTS, ERRORS, num_draws=300)


# One dtype, and distributions made elsewhere


def line(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


@pytest.mark.parametrize("dtypes", [("double", "double"), ("float", "double"), ("double", "float")])
def test_data_in_double_precision_are_no_obstacle(dtypes: tuple[str, str]) -> None:
    x = torch.stack([torch.ones(8), X], 1)
    y = 0.5 + X
    precision = torch.eye(2).double() + 4 * x.double().mT @ x.double()
    mean = precision.inverse() @ (4 * x.double().mT @ y.double())
    given = (getattr(x, dtypes[0])(), getattr(y, dtypes[1])())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = fast(nuts_of(line, *given))
    assert drawn.draws["w"].dtype == torch.float64
    assert "computed in float64" in drawn.info.message
    close(drawn.draws["w"], mean, precision.inverse().diagonal().sqrt())
    fit = svi(line, laplace, *given, num_draws=4000, progress=False)
    assert "computed in float64" in fit.info.message
    close(fit.draws["w"], mean, precision.inverse().diagonal().sqrt())
    assert torch.get_default_dtype() == torch.float32


CHECKED = dist.Normal(T(0.0), T(1.0), validate_args=True)


class Network(pyro.nn.PyroModule):
    """Priors made once, outside the model, as every ``PyroSample`` is."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = pyro.nn.PyroModule[torch.nn.Linear](2, 1)
        self.linear.weight = pyro.nn.PyroSample(CHECKED.expand([1, 2]).to_event(2))
        self.linear.bias = pyro.nn.PyroSample(CHECKED.expand([1]).to_event(1))

    def forward(self, x: Tensor, y: Tensor) -> None:
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mean, 0.5, validate_args=True), obs=y)


def test_distributions_that_check_their_arguments_are_compiled() -> None:
    x, y = torch.stack([X, X**2], 1), 0.5 + X
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = fast(nuts_of(Network(), x, y))
    design = torch.cat([x, torch.ones(8, 1)], 1).double()
    precision = torch.eye(3).double() + 4 * design.mT @ design
    mean, sd = precision.inverse() @ (4 * design.mT @ y.double()), precision.inverse().diagonal().sqrt()
    close(drawn.draws["linear.weight"][..., 0, :], mean[:2], sd[:2])
    close(drawn.draws["linear.bias"][..., 0], mean[2], sd[2])
    fit = svi(Network(), mean_field, x, y, num_steps=6000, progress=False)
    assert fit.info.engine == "compiled"


def test_a_modules_weights_are_held_and_said_to_be() -> None:
    class Shifted(pyro.nn.PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(T(0.5))

        def forward(self, x: Tensor) -> None:
            s = pyro.sample("s", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", len(x)):
                pyro.sample("x", dist.Normal(s + self.shift, 1.0), obs=x)

    n = len(X)
    drawn = nuts_of(Shifted(), X)
    assert "weights of modules are held as they are (shift)" in drawn.info.message
    close(drawn.draws["s"], n / (n + 1) * float(X.mean() - 0.5), (n + 1) ** -0.5)
    given = nuts_of(Shifted(), X, params={"shift": T(-1.0)})
    close(given.draws["s"], n / (n + 1) * float(X.mean() + 1.0), (n + 1) ** -0.5)


# Flat priors


def flat_normal(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, sigma), obs=x)


def flat_normal_sd() -> tuple[float, float]:
    """Return sd of mu, and E sigma: σ² is inverse gamma with n - 2 degrees of freedom, mu a Student t."""
    n = len(X)
    squares = float(((X - X.mean()) ** 2).sum())
    scale = math.sqrt(squares / (n * (n - 2)))
    mean_sigma = math.sqrt(squares / 2) * math.exp(math.lgamma((n - 3) / 2) - math.lgamma((n - 2) / 2))
    return scale * math.sqrt((n - 2) / (n - 4)), mean_sigma


@pytest.mark.parametrize("method", [nuts, partial(hmc, num_draws=600), partial(metropolis, num_draws=600)])
def test_flat_priors_by_samplers(method: Callable[..., Posterior]) -> None:
    sd, sigma = flat_normal_sd()
    drawn = method(flat_normal, X, progress=False)
    close(drawn.draws["mu"], float(X.mean()), errors=4)
    assert float(drawn.draws["mu"].std()) == pytest.approx(sd, rel=0.12)  # a Student t with six degrees of freedom
    close(drawn.draws["sigma"], sigma)


def test_flat_priors_by_guides() -> None:
    mode = float(((X - X.mean()) ** 2).sum() / (len(X) - 1)) ** 0.5  # on the log scale
    at = svi(flat_normal, laplace, X, num_draws=4000, progress=False)
    close(at.draws["sigma"].log(), math.log(mode), (2 * (len(X) - 1)) ** -0.5)
    fit = svi(flat_normal, full_rank, X, num_steps=4000, num_draws=2000, progress=False)
    assert fit.info.k_hat < 1.0  # tails of Student's t with few degrees of freedom
    assert float(fit.draws["mu"].mean()) == pytest.approx(float(X.mean()), abs=0.1)
    with pytest.raises(ValueError, match="flat prior"):
        evidence(flat_normal, X, method="ais")


@pytest.mark.parametrize(
    ("support", "shape", "mean"),
    [
        (constraints.simplex, (3,), [1 / 3, 1 / 3, 1 / 3]),
        (constraints.unit_interval, (2,), [0.5, 0.5]),
        (constraints.interval(-1.0, 3.0), (), 1.0),
    ],
)
def test_flat_priors_on_bounded_supports_are_uniform(support: Any, shape: tuple, mean: Any) -> None:
    wrapped = constraints.independent(support, 1) if shape and support.event_dim == 0 else support

    def model() -> None:
        pyro.sample("p", dist.ImproperUniform(wrapped, (), shape))

    close(fast(nuts_of(model)).draws["p"], mean)


def test_a_flat_prior_on_ordered_vectors() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
        pyro.factor("normal", dist.Normal(0.0, 1.0).log_prob(x).sum())

    posterior = nuts_of(model, target_accept=0.95)  # the log of the gap has a long tail
    close(posterior.draws["x"], [-1 / math.sqrt(math.pi), 1 / math.sqrt(math.pi)])  # the order statistics' means


# Starts


def test_starts_without_a_finite_density_are_tried_again() -> None:
    def narrow(y: Tensor) -> None:  # finite only for |r| below .7: most uniform starts are not
        r = pyro.sample("r", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(torch.sqrt(0.49 - r**2), 1.0), obs=y)

    r = np.linspace(-0.7, 0.7, 20_001)[1:-1]
    density = stats.norm.pdf(r) * stats.norm.pdf(0.4, np.sqrt(0.49 - r**2))
    sd = math.sqrt((density * r**2).sum() / density.sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transitions to where there is no density diverge
        close(nuts_of(narrow, T(0.4)).draws["r"], 0.0, sd)

    def from_prior(y: Tensor) -> None:
        r = pyro.sample("r", dist.Normal(100.0, 1.0))
        pyro.sample("y", dist.Normal(torch.log(r - 90), 1.0), obs=y)

    assert float(nuts_of(from_prior, T(2.3)).draws["r"].mean()) == pytest.approx(100.0, abs=0.5)
    assert float(svi(from_prior, laplace, T(2.3), progress=False).draws["r"].mean()) == pytest.approx(100.0, abs=0.5)


# Nothing but parameters to learn


def test_parameters_without_latent_sites_are_learnt() -> None:
    def process(x: Tensor, y: Tensor) -> None:
        """A Gaussian process by maximum likelihood."""
        scale = pyro.param("scale", T(0.7), constraint=constraints.positive)
        covariance = torch.exp(-0.5 * (x[:, None] - x) ** 2) * scale**2 + 1e-5 * torch.eye(len(x)) * scale**2
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(len(x)), covariance), obs=y)

    x = torch.linspace(0.0, 4.0, 6).double()
    y = torch.sin(x)
    base = torch.exp(-0.5 * (x[:, None] - x) ** 2) + 1e-5 * torch.eye(6)
    exact = math.sqrt(float(y @ torch.linalg.solve(base.double(), y)) / 6)
    for guide in (mean_field, lambda x, y: None):
        fit = svi(process, guide, x, y, progress=False)
        assert float(fit.params["scale"]) == pytest.approx(exact, rel=1e-3)
        assert fit.info.is_point
        assert fit.info.elbo is None


def test_a_matrix_that_has_a_factorisation_nowhere_is_said_in_a_sentence() -> None:
    def singular(x: Tensor) -> None:
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        root = torch.linalg.cholesky(scale * torch.ones(3, 3))
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(3), scale_tril=root), obs=x)

    with pytest.raises(ValueError, match=r"^nuts: (no start was found|the model cannot be run).*cholesky") as said:
        nuts_of(singular, torch.zeros(3))
    assert "tensor" not in str(said.value)
    assert "Trace Shapes" not in str(said.value)
