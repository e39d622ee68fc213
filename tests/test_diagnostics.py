"""Monte Carlo errors, effective sample sizes, R̂ and k̂ of draws from known distributions."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guidebook.inference import diagnostics, nuts
from guidebook.inference.diagnostics import (
    MAX_R_HAT,
    MIN_ESS,
    disagrees,
    ess,
    k_hat,
    least_ess,
    mcse,
    of_quantities,
    of_sites,
    pareto_smoothed,
    r_hat,
)


def autoregressive(coefficient: float, num_draws: int = 1000, size: int = 240, seed: int = 1) -> Tensor:
    """Four stationary AR(1) chains of ``size`` standard normals, shape (4, draw, size)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(num_draws, 4, size, generator=generator, dtype=torch.float64)
    x = noise.clone()
    for t in range(1, num_draws):
        x[t] = coefficient * x[t - 1] + math.sqrt(1 - coefficient**2) * noise[t]
    return x.movedim(0, 1)


def z_scores(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of draws of standard normals, off by how many of their Monte Carlo errors."""
    flat = draws.flatten(0, 1)
    return flat.mean(0) / mcse(draws), (flat.std(0) - 1) / mcse(draws, "sd")


@pytest.mark.parametrize("coefficient", [-0.5, 0.0, 0.5])
def test_z_scores_of_means_and_sds_have_a_spread_of_one(coefficient: float) -> None:
    """With the effective sample size of the mean in their error, z-scores of sds have 2.4 at -.5 and .73 at .5."""
    of_means, of_sds = z_scores(autoregressive(coefficient))
    error = 1 / math.sqrt(2 * 240)  # of the spread of 240 normal z-scores
    assert float(of_means.std()) == pytest.approx(1, abs=4 * error)
    assert float(of_sds.std()) == pytest.approx(1, abs=4 * error)


@pytest.mark.slow
def test_z_scores_of_nuts_have_a_spread_of_one() -> None:
    """20 independent normals, 12 runs of 4 chains; arviz-stats' own error of sds gives 2.75."""
    pytest.importorskip("numpyro", reason="48 chains take Pyro minutes")

    def model() -> None:
        pyro.sample("w", dist.Normal(torch.zeros(20).double(), 1.0).to_event(1))

    w = nuts(model, num_chains=48, engine="xla", progress=False).draws["w"]
    scores = [torch.cat(z) for z in zip(*(z_scores(run) for run in w.split(4)), strict=True)]
    assert float(ess(w[:4]).min()) > 4000 * 1.5  # antithetic
    for z in scores:
        assert float(z.std()) == pytest.approx(1, abs=4 / math.sqrt(2 * 240))
        assert float(z.abs().max()) < 4.5  # 480 of them: chance .003


def test_errors_are_in_the_units_of_the_draws() -> None:
    draws = autoregressive(0.0, size=3)
    for of in ("mean", "sd"):
        torch.testing.assert_close(mcse(7 - 100 * draws, of), 100 * mcse(draws, of))
    independent = 1 / math.sqrt(4000)
    assert mcse(draws).tolist() == pytest.approx([independent] * 3, rel=0.15)
    assert mcse(draws, "sd").tolist() == pytest.approx([independent / math.sqrt(2)] * 3, rel=0.15)


def test_effective_sample_size_follows_the_autocorrelation() -> None:
    """(1 - φ) / (1 + φ) of the draws for the mean of an AR(1) chain."""
    for coefficient in (-0.3, 0.0, 0.5, 0.8):
        sizes = ess(autoregressive(coefficient, num_draws=2000, size=30))
        assert float(sizes.mean()) == pytest.approx(8000 * (1 - coefficient) / (1 + coefficient), rel=0.1)


def test_one_chain_is_compared_with_itself_in_halves() -> None:
    chain = autoregressive(0.0, size=2)[:1]
    assert float(r_hat(chain).max()) < 1.01
    assert ess(chain).tolist() == pytest.approx([1000] * 2, rel=0.3)
    drifting = chain + torch.linspace(0, 3, 1000)[:, None]
    assert float(r_hat(drifting).min()) > 1.1


def test_r_hat_sees_chains_that_differ_in_centre_or_in_spread() -> None:
    draws = autoregressive(0.0, size=2)
    assert float(r_hat(draws).max()) < 1.01
    assert float(r_hat(draws + torch.arange(4.0)[:, None, None]).min()) > 1.1
    assert float(r_hat(draws * torch.tensor([1.0, 1, 1, 3])[:, None, None]).min()) > 1.02
    assert math.isnan(float(r_hat(torch.ones(4, 100))))


RANDOM = torch.randn(3, 301, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
STEPS = torch.arange(4.0, dtype=torch.float64)[:, None, None]
CASES = {
    "independent": RANDOM,
    "antithetic": autoregressive(-0.6, size=20),
    "autocorrelated": autoregressive(0.9, num_draws=999, size=20),
    "hardly moving": autoregressive(0.999, num_draws=500, size=20),
    "disagreeing": autoregressive(0.3, num_draws=400, size=5) + STEPS,
    "heavy-tailed": RANDOM / RANDOM.roll(1, 2),
    "constant": torch.ones(4, 100, 2).double(),
    "constant chains": torch.ones(4, 100, 1).double() * STEPS,
    "tied": autoregressive(0.5, size=20).round(),
    "of two values": (autoregressive(0.7, num_draws=501, size=10) > 0.5).double(),
    "four draws": RANDOM[:, :4],
    "seven draws": RANDOM[:, :7],
    "three draws": RANDOM[:, :3],
    "not a number": RANDOM.where(RANDOM < 3, math.nan),
    "one chain": RANDOM[:1, :300],
    "of a matrix": RANDOM.unflatten(2, (2, 3)),
    "a scalar": RANDOM[:, :, 0],
}


@pytest.mark.parametrize("case", CASES)
def test_all_entries_at_once_equal_arviz_stats_one_by_one(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from arviz_stats.base import array_stats

    monkeypatch.setattr(diagnostics, "_VALUES", 7000)  # in parts of a few entries
    draws = CASES[case]
    chains = draws if len(draws) > 1 else torch.stack(draws[0].split(150))  # R̂ needs two
    squares = ((chains - chains.mean((0, 1))) ** 2).numpy()

    def theirs(name: str, x: np.ndarray, **options: str) -> Tensor:
        with np.errstate(all="ignore"):
            return torch.as_tensor(getattr(array_stats, name)(x, chain_axis=0, draw_axis=1, **options)).double()

    x = chains.numpy()
    of_sd = theirs("mcse", squares, method="mean") / (2 * torch.as_tensor(squares).mean((0, 1)).sqrt())
    pairs = [
        (r_hat(draws), theirs("rhat", x)),
        (ess(draws), theirs("ess", x)),
        (ess(draws, "mean"), theirs("ess", x, method="mean")),
        (ess(draws, "sd"), theirs("ess", x, method="sd")),
        (mcse(draws), theirs("mcse", x, method="mean")),
        (mcse(draws, "sd"), of_sd),
    ]
    together = of_quantities(draws)
    fewer = torch.minimum(theirs("ess", x), theirs("ess", x, method="sd"))
    expected = (theirs("rhat", x), theirs("mcse", x, method="mean"), of_sd, fewer)
    pairs += zip((together[name] for name in ("r_hat", "mcse", "mcse_sd", "ess")), expected, strict=True)
    for ours, known in pairs:
        assert ours.shape == draws.shape[2:]
        torch.testing.assert_close(ours, known, rtol=1e-10, atol=0, equal_nan=True)


def test_of_sites_is_r_hat_and_ess_by_site() -> None:
    sites = {"w": RANDOM, "none": RANDOM[:, :, :0], "float": RANDOM[..., 0].float()}
    largest, sizes = of_sites(sites)
    for name, value in sites.items():
        assert torch.equal(largest[name], r_hat(value))
        assert torch.equal(sizes[name], ess(value))
        assert largest[name].shape == sizes[name].shape == value.shape[2:]


def refused(draws: Tensor) -> Tensor:
    """At which of the quantities of one run chains are said to disagree."""
    return disagrees({"w": draws}, {"w": r_hat(draws)})["w"]


def test_the_largest_r_hat_of_many_mixed_chains_is_refused_by_chance_in_a_twentieth_of_runs() -> None:
    """400 effective draws: R̂ exceeds 1.01 at a third of all quantities."""
    draws = autoregressive(9 / 11, size=6000)
    figures = r_hat(draws)
    assert 0.3 < float((figures > MAX_R_HAT).double().mean()) < 0.45
    for runs in (draws[..., :600].split(1, 2), draws.split(30, 2)):
        wrong = sum(bool(refused(run).any()) for run in runs)
        assert wrong < 0.05 * len(runs) + 4 * math.sqrt(0.05 * 0.95 * len(runs))
    for run in draws.split(3000, 2):
        assert not refused(run).any()


@pytest.mark.parametrize("coefficient", [-0.5, 0.0, 0.5])
def test_r_hat_of_better_mixed_chains_is_below_its_limit_as_ever(coefficient: float) -> None:
    assert not refused(autoregressive(coefficient, size=1000)).any()


def test_one_of_many_quantities_whose_chains_are_stuck_apart_is_found() -> None:
    for coefficient, apart, seed in ((0.0, 0.3, 1), (0.3, 0.5, 2), (0.6, 0.5, 3)):  # 4,000 to 1,000 effective draws
        draws = autoregressive(coefficient, size=3000, seed=seed)
        draws[:2, :, 1234] += apart
        assert refused(draws).nonzero().tolist() == [[1234]]


def test_a_chain_apart_in_spread_alone_is_found() -> None:
    draws = autoregressive(0.0, size=300)
    draws[0, :, 7] *= 2
    assert refused(draws).nonzero().tolist() == [[7]]


def test_the_same_r_hat_is_no_chance_alone_and_chance_among_many() -> None:
    draws = autoregressive(9 / 11, size=3000)
    figures = r_hat(draws)
    most = int(figures.argmax())
    assert float(figures[most]) > 1.025
    assert bool(refused(draws[..., most]))
    assert not bool(refused(draws)[most])
    unmoved = torch.ones(4, 1000, 2999)  # constants are not quantities to be counted
    assert bool(refused(torch.cat([draws[..., most, None], unmoved], -1))[0])


def test_r_hat_of_few_effective_draws_is_never_put_down_to_chance() -> None:
    draws = autoregressive(0.98, size=200)  # 40 effective draws
    assert torch.equal(refused(draws), r_hat(draws) > MAX_R_HAT)
    assert refused(draws).any()


def test_the_least_of_many_effective_sample_sizes_may_be_lower_by_chance() -> None:
    """600 effective draws: an estimate below 400 has a chance of .003."""
    assert least_ess(1) == MIN_ESS
    assert least_ess(1) > least_ess(2) > least_ess(30) > least_ess(3000) > MIN_ESS / 2
    draws = autoregressive(0.739, size=3000)
    assert least_ess(3000) < float(ess(draws).min()) < MIN_ESS
    assert float(ess(autoregressive(0.9, size=30)).min()) < least_ess(3000)  # 210 effective draws


def test_k_hat_is_the_tail_index_of_the_weights() -> None:
    """Weights u^(-k) with u uniform have a Pareto tail with shape k."""
    u = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in (0.3, 0.5, 0.9):
        assert k_hat(-k * u.log()) == pytest.approx(k, abs=0.15)


def test_weights_without_a_tail_stay_as_they_are() -> None:
    u = torch.rand(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for weights, known in ((u, True), (u[:99], False), (u.clamp(max=0.5), False), (torch.zeros(200), False)):
        smoothed, shape = pareto_smoothed(weights)
        assert (shape is not None) is known
        assert torch.equal(smoothed, weights.double()) is not known
