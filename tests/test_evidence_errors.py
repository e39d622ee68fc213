"""Whether an evidence's error covers, over many seeds, against exact evidences."""

import math
from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Normal, StudentT
from zoo import linear, schools

from guidebook.guides import mean_field
from guidebook.inference import svi
from guidebook.inference.diagnostics import k_hat
from guidebook.inference.evidence import Evidence, evidence
from guidebook.inference.evidence.means import independent, mean_bound
from guidebook.inference.evidence.tails import beyond, fit_pareto, tail_error

REPEATS = 1000  # estimates per case, all from one tensor of weights


def normal_weights(shape: tuple[int, int], dim: int, scale: float, shift: float = 0.0) -> Tensor:
    """Log weights of Normal(0, 1) under a guide Normal(shift, scale²), in each of ``dim`` dimensions: E w = 1."""
    noise = torch.randn(dim, *shape, dtype=torch.float64)
    return (0.5 * noise**2 + math.log(scale) - 0.5 * (shift + scale * noise) ** 2).sum(0)


def pareto_weights(shape: tuple[int, int], k: float) -> Tensor:
    """Log weights with a generalised Pareto distribution, k its shape: E w = 1."""
    return (torch.expm1(-k * torch.rand(shape, dtype=torch.float64).log()) / k * (1 - k)).log()


def student_weights(shape: tuple[int, int], dim: int, df: float, scale: float) -> Tensor:
    """Log weights of Student's t under a guide Normal(0, scale²), in each dimension: E w = 1."""
    z = scale * torch.randn(dim, *shape, dtype=torch.float64)
    return (StudentT(df).log_prob(z) - Normal(0.0, scale).log_prob(z)).sum(0)


def covered(log_weights: Tensor, errors: float) -> float:
    """Share of estimates, one per block, within so many errors of log 1, among those whose k̂ is 0.7 or less."""
    means = independent(log_weights)
    draws = len(log_weights)
    tail = int(min(draws / 5, 3 * math.sqrt(draws)))
    top = log_weights.exp().sort(0).values[-tail - 1 :]
    shape = (tail * fit_pareto(top[1:] - top[0])[0] + 5) / (tail + 10)
    return float((means.estimate.abs() <= errors * means.error)[shape <= 0.7].double().mean())


@pytest.mark.parametrize(
    ("weights", "by_the_sample"),
    [
        (partial(normal_weights, dim=5, scale=1.5), 0.95),  # too wide: bounded weights
        (partial(normal_weights, dim=1, scale=1.0, shift=1.0), 0.95),  # lognormal weights
        (partial(normal_weights, dim=3, scale=0.85), 0.94),
        (partial(normal_weights, dim=10, scale=0.8), 0.91),
        (partial(pareto_weights, k=0.2), 0.94),
        (partial(pareto_weights, k=0.35), 0.93),
        (partial(pareto_weights, k=0.5), 0.90),
        (partial(student_weights, dim=10, df=30.0, scale=1.1), 0.95),
        (partial(student_weights, dim=5, df=20.0, scale=1.2), 0.95),
    ],
)
def test_errors_of_heavy_tailed_weights_cover(weights: Callable, by_the_sample: float) -> None:
    """Two errors cover 95 %, three 99 %, up to 2 % and 1 % of systematic error, and three of binomial error."""
    torch.manual_seed(0)
    log_weights = weights((1000, REPEATS))
    two, three = covered(log_weights, 2), covered(log_weights, 3)
    noise = 3 * math.sqrt(0.05 * 0.95 / REPEATS)
    assert 0.93 - noise < two < 0.985 + noise / 3, two
    assert three > 0.98 - 3 * math.sqrt(0.01 * 0.99 / REPEATS), three
    means = independent(log_weights)
    sample = (means.estimate.abs() <= 2 * means.spread).double().mean()
    assert abs(float(sample) - by_the_sample) < 0.04
    assert two >= float(sample) - noise


def test_light_tails_leave_the_samples_error_as_it_is() -> None:
    torch.manual_seed(0)
    for log_weights in (normal_weights((1000, 50), 1, 1.5), torch.rand(1000, 50, dtype=torch.float64)):
        means = independent(log_weights)
        assert float((means.error / means.spread).median()) < 1.02
    flat = independent(torch.zeros(200, 3, dtype=torch.float64))
    assert (flat.error == 0).all()
    few = independent(normal_weights((24, 3), 1, 0.6))  # too few for a tail
    torch.testing.assert_close(few.error, few.spread, rtol=0, atol=0)


@pytest.mark.parametrize("k", [-0.4, 0.1, 0.5, 0.8])
def test_the_fit_of_a_tail_recovers_its_shape_and_scale(k: float) -> None:
    """Standard errors by Fisher's information, (1 + k) / √M of k and σ √(2 (1 + k) / M) of σ, M = 4,000."""
    draws = stats.genpareto(k, scale=2.5).rvs((4000, 20), random_state=0)
    shape, scale = fit_pareto(torch.tensor(draws).sort(0).values)
    assert float((shape - k).abs().max()) < 4.5 * (1 + k) / math.sqrt(4000)
    assert float((scale - 2.5).abs().max()) < 4.5 * 2.5 * math.sqrt(2 * (1 + k) / 4000)


def test_the_fit_is_that_of_arviz_without_its_prior() -> None:
    torch.manual_seed(0)
    for weights in (normal_weights((2000, 3), 3, 0.8), pareto_weights((2000, 3), 0.6)):
        top = weights.exp().sort(0).values[-135:]  # 3 √2000 = 134, and the threshold
        shape = (134 * fit_pareto(top[1:] - top[0])[0] + 5) / 144
        for block in range(3):
            assert k_hat(weights[:, block]) == pytest.approx(float(shape[block]), abs=1e-6)


def test_the_error_of_exponential_tails_is_the_samples() -> None:
    """For k = 0 both terms of the variance add up to var(w) / S: the sample mean is efficient."""
    torch.manual_seed(0)
    exponential = -torch.rand(20_000, 40, dtype=torch.float64).log()
    sizes = torch.full((40,), 20_000.0).double()
    assert float(tail_error(exponential, sizes).mean()) == pytest.approx(1 / math.sqrt(20_000), rel=0.03)
    assert float(tail_error(exponential, sizes / 4).mean()) == pytest.approx(2 / math.sqrt(20_000), rel=0.03)


# --------------------------------------------------------------------------------------------- beyond the guide's draws


def test_the_mass_beyond_the_draws_is_that_of_the_posterior() -> None:
    """Normal(0, 1) under Normal(0, 0.75²), and Normal(0.8, 1) under Normal(0, 1): a tail of known mass."""
    torch.manual_seed(0)
    for loc, scale, side in ((0.0, 0.75, 1.0), (0.8, 1.0, 1.0), (-0.8, 1.0, -1.0)):
        places = scale * torch.randn(10_000, 30, 1, dtype=torch.float64)
        weights = (Normal(loc, 1.0).log_prob(places) - Normal(0.0, scale).log_prob(places))[..., 0]
        found = beyond(weights, places, ["z"])
        assert found is not None
        outermost = Normal(0.0, scale).icdf(torch.tensor(1 - 1e-4))
        mass = float(1 - Normal(side * loc, 1.0).cdf(outermost))
        assert 0.5 * mass < float(found.mass.mean()) < 2 * mass
        assert found.site == "z"
    assert beyond(weights[:999], places[:999], ["z"]) is None
    assert beyond(weights[:1000], places[:1000], ["z"]) is not None


def test_the_mass_beyond_is_looked_for_in_every_column_and_block() -> None:
    torch.manual_seed(0)
    places = torch.randn(5000, 2, 3, dtype=torch.float64)
    places[:, 1, 2] *= 0.6
    weights = torch.zeros(5000, 2, dtype=torch.float64)
    weights[:, 1] = Normal(0.0, 1.0).log_prob(places[:, 1, 2]) - Normal(0.0, 0.6).log_prob(places[:, 1, 2])
    found = beyond(weights, places, ["a", "a", "b"])
    assert found is not None
    assert found.site == "b"
    assert found.mass[1] > 20 * found.mass[0]
    plain = independent(weights)
    wider = independent(weights, found)
    torch.testing.assert_close(wider.error, torch.hypot(plain.error, 2 * found.mass), rtol=1e-9, atol=0)


# ---------------------------------------------------------------------------------------------- whole models


def shares(found: list[Evidence], exact: float) -> tuple[float, float]:
    """Share within two errors, and within three."""
    z = torch.tensor([abs(one.estimate - exact) / one.error for one in found])
    return float((z <= 2).double().mean()), float((z <= 3).double().mean())


def poisson(x: Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(x.new_tensor(2.0), 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Poisson(rate), obs=x)


def light_gamma(x: Tensor) -> None:
    """The posterior is Gamma(10, 4), so that weights grow by e^rate on the right, k = 0.2, and rate^-2 on the left."""
    pyro.sample("rate", dist.Gamma(x.new_tensor(12.0), 5.0))


def student(x: Tensor) -> None:
    z = pyro.sample("z", dist.StudentT(x.new_tensor(20.0).expand(4), 0.0, 1.0).to_event(1))
    pyro.sample("x", dist.Normal(0.0 * z.sum(-1), 1.0), obs=x[0])


def normal_guide(x: Tensor) -> None:
    pyro.sample("z", dist.Normal(x.new_zeros(4), 1.1).to_event(1))


def narrow_linear(x: Tensor, y: Tensor) -> None:
    posterior = linear.posterior(x, y)
    pyro.sample("w", dist.MultivariateNormal(posterior.mean, scale_tril=0.85 * posterior.scale_tril))


GAMMA_POISSON = math.lgamma(10) - math.lgamma(2) - 10 * math.log(4) - math.log(6 * 24)


@pytest.mark.parametrize(
    ("model", "guide", "data", "exact"),
    [
        (poisson, light_gamma, (torch.tensor([3.0, 1.0, 4.0]).double(),), GAMMA_POISSON),
        (student, normal_guide, (torch.zeros(1).double(),), -0.5 * math.log(2 * math.pi)),
        (linear.model, narrow_linear, linear.data(), linear.log_evidence(*linear.data())),
    ],
)
def test_errors_cover_the_evidence_of_whole_models(model: Callable, guide: Callable, data: tuple, exact: float) -> None:
    found = [evidence(model, *data, guide=guide, num_draws=1000, seed=seed) for seed in range(60)]
    two, three = shares(found, exact)
    assert two > 0.93 - 3 * math.sqrt(0.05 * 0.95 / 60)
    assert three > 0.95
    assert sum(not one.warnings for one in found) > 30
    assert {one.bound for one in found} == {"lower"}


EIGHT_SCHOOLS = -31.31135  # by quadrature over mu and log tau, on 801 × 2,301 points


@pytest.mark.slow
def test_eight_schools_are_covered_or_warned_of() -> None:
    """A normal guide misses the long left tail of log tau; by the sample's error 63 % of 300 were within two."""
    data = (schools.ERROR.double(), schools.EFFECT.double())
    fitted = svi(schools.non_centred, mean_field, *data, num_steps=4000, num_draws=10, progress=False)
    scales = {name: fitted.params[name].double() for name in fitted.params}

    def guide(error: Tensor, effect: Tensor) -> None:
        pyro.sample("mu", dist.Normal(scales["AutoNormal.locs.mu"], scales["AutoNormal.scales.mu"]))
        pyro.sample("tau", dist.LogNormal(scales["AutoNormal.locs.tau"], scales["AutoNormal.scales.tau"]))
        with pyro.plate("schools", 8):
            pyro.sample("z", dist.Normal(scales["AutoNormal.locs.z"], scales["AutoNormal.scales.z"]))

    found = [evidence(schools.non_centred, *data, guide=guide, num_draws=4000, seed=seed) for seed in range(60)]
    off = [one for one in found if abs(one.estimate - EIGHT_SCHOOLS) > 2 * one.error]
    silent = [one for one in off if not one.warnings]
    assert len(silent) <= 6, [str(one) for one in silent]
    assert sum("'tau'" in str(one) for one in found) > 10


# ---------------------------------------------------------------------------------------------- iwae


@pytest.mark.parametrize("groups", [2, 5, 40])
def test_errors_of_iwae_cover_with_few_groups_as_with_many(groups: int) -> None:
    """Of a guide 0.8 times as wide as its posterior in three dimensions; E L_20 from 200,000 groups."""
    torch.manual_seed(0)
    expected = float(mean_bound(normal_weights((20 * 200_000, 1), 3, 0.8), 20)[0])
    estimate, error = mean_bound(normal_weights((20 * groups, 2000), 3, 0.8), 20)
    share = float(((estimate - expected).abs() <= 2 * error).double().mean())
    assert 0.94 - 0.02 < share < 0.98, share
