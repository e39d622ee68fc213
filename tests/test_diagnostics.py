"""Monte Carlo errors, effective sample sizes, R̂ and k̂ of draws from known distributions."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guidebook.inference import nuts
from guidebook.inference.diagnostics import MOST_ENTRIES, ess, k_hat, mcse, of_sites, r_hat


def autoregressive(coefficient: float, num_draws: int = 1000, size: int = 240) -> Tensor:
    """Four stationary AR(1) chains of ``size`` standard normals, shape (4, draw, size)."""
    generator = torch.Generator().manual_seed(1)
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


def test_large_sites_are_left_out() -> None:
    sites = {"small": torch.randn(2, 10, 3), "large": torch.randn(2, 10, MOST_ENTRIES + 1)}
    assert [set(found) for found in of_sites(sites)] == [{"small"}, {"small"}]


def test_k_hat_is_the_tail_index_of_the_weights() -> None:
    """Weights u^(-k) with u uniform have a Pareto tail with shape k."""
    u = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in (0.3, 0.5, 0.9):
        assert k_hat(-k * u.log()) == pytest.approx(k, abs=0.15)
