"""Pólya-Gamma draws against closed forms, the summed density and the definition as a sum of gammas."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import cumulative_simpson

from guidebook.models._shared import polya_gamma as module
from guidebook.models._shared.polya_gamma import polya_gamma

TILTS = (0.0, 0.5, 3.0, 3.2, 20.0, 500.0)  # the way to draw below the cut changes at 3.125
DRAWS = 100_000
WORST_Z, LEAST_P = 5, 1e-6  # hundreds of comparisons: a right sampler fails about once in ten thousand runs


def draws(c: float, *, seed: int = 1, size: int = DRAWS, dtype: torch.dtype = torch.float64) -> np.ndarray:
    torch.manual_seed(seed)
    return polya_gamma(torch.full((size,), c, dtype=dtype)).double().numpy()


def mean(c: float) -> float:
    """Polson, Scott and Windle (2013), section 2."""
    return 0.25 if c == 0 else math.tanh(c / 2) / (2 * c)


def variance(c: float) -> float:
    """(sinh c - c) / (4 c³ cosh²(c / 2)), 1/24 at 0."""
    return 1 / 24 if c == 0 else (2 * math.tanh(c / 2) - c * math.exp(-2 * log_cosh(c / 2))) / (4 * c**3)


def log_cosh(a: float) -> float:
    return abs(a) + math.log1p(math.exp(-2 * abs(a))) - math.log(2)


def density(x: np.ndarray, c: float) -> np.ndarray:
    """The alternating series in its form for small x alone, Polson, Scott and Windle (2013), section 2."""
    total = np.zeros_like(x)
    for n in range(200):
        odd = 2 * n + 1
        exponent = log_cosh(c / 2) - c**2 * x / 2 - odd**2 / (8 * x)
        total += (-1) ** n * odd / np.sqrt(2 * np.pi * x**3) * np.exp(exponent)
    return total


def worst_z(sample: np.ndarray, c: float) -> float:
    """Largest distance of mean, variance and three Laplace transforms from their closed forms, in standard errors."""

    def z(values: np.ndarray, truth: float) -> float:
        return abs(values.mean() - truth) / (values.std() / len(values) ** 0.5)

    figures = [z(sample, mean(c)), z((sample - mean(c)) ** 2, variance(c))]
    for relative in (0.2, 1.0, 4.0):
        s = relative / mean(c)
        transform = math.exp(log_cosh(c / 2) - log_cosh(math.sqrt(c**2 + 2 * s) / 2))
        figures.append(z(np.exp(-s * sample), transform))
    return max(figures)


def ks_p_value(sample: np.ndarray, c: float) -> float:
    """Kolmogorov and Smirnov's test against the density, summed on a grid."""
    sd = math.sqrt(variance(c))
    grid = np.linspace(max(1e-6, mean(c) - 12 * sd), mean(c) + 30 * sd, 40_001)
    cdf = cumulative_simpson(density(grid, c), x=grid, initial=0)
    assert cdf[-1] == pytest.approx(1, abs=1e-8)
    return stats.kstest(sample, lambda x: np.interp(x, grid, cdf)).pvalue


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("c", TILTS)
def test_moments_and_laplace_transform(c: float, dtype: torch.dtype) -> None:
    assert worst_z(draws(c, dtype=dtype), c) < WORST_Z


@pytest.mark.parametrize("c", TILTS)
def test_distribution_is_that_of_the_summed_density(c: float) -> None:
    assert ks_p_value(draws(c, seed=2), c) > LEAST_P


@pytest.mark.parametrize("c", [0.0, 3.0])
def test_distribution_is_that_of_the_sum_of_gammas(c: float) -> None:
    """The definition, its first 300 terms drawn and the rest, whose variance is negligible, put at its mean."""
    rng = np.random.default_rng(0)
    k = np.arange(1, 301)
    weight = 1 / ((k - 0.5) ** 2 + c**2 / (4 * np.pi**2)) / (2 * np.pi**2)
    rest = mean(c) - weight.sum()
    assert 0 < rest < 0.01 * mean(c)
    theirs = rng.exponential(size=(20_000, 300)) @ weight + rest
    assert stats.ks_2samp(draws(c, size=20_000), theirs).pvalue > LEAST_P


def test_a_large_tilt_has_the_inverse_normals_spread() -> None:
    """Draws hug 1 / (2c), and their standard deviation, about √(1 / 2c³), still comes out."""
    for c, dtype in ((1e3, torch.float32), (1e6, torch.float64), (1e6, torch.float32)):
        sample = draws(c, dtype=dtype)
        assert abs(sample.mean() - mean(c)) < 4.5 * sample.std() / DRAWS**0.5
        assert sample.std() == pytest.approx(math.sqrt(variance(c)), rel=0.01)
        assert sample.min() > 0


def test_sign_shape_dtype_and_generator() -> None:
    c = torch.linspace(-6, 6, 24).reshape(2, 3, 4)
    torch.manual_seed(3)
    first = polya_gamma(c)
    after = torch.rand(())
    torch.manual_seed(3)
    again = polya_gamma(-c.requires_grad_())
    assert torch.equal(first, again)
    assert torch.equal(after, torch.rand(()))
    assert first.shape == c.shape
    assert first.dtype == torch.float32
    assert not again.requires_grad
    assert polya_gamma(torch.zeros(0)).shape == (0,)
    assert polya_gamma(torch.tensor(2.0, dtype=torch.float64)).shape == ()


def test_entries_of_a_tensor_have_their_own_tilts_and_are_independent() -> None:
    torch.manual_seed(4)
    tilts = torch.tensor(TILTS, dtype=torch.float64)
    sample = polya_gamma(tilts.expand(20_000, -1)).numpy()
    for column, c in enumerate(TILTS):
        assert worst_z(sample[:, column], c) < WORST_Z
    correlation = np.corrcoef(sample.T) - np.eye(len(TILTS))
    assert np.abs(correlation).max() < 4.5 / 20_000**0.5


def is_right() -> bool:
    return all(worst_z(draws(c), c) < WORST_Z and ks_p_value(draws(c, seed=2), c) > LEAST_P for c in TILTS)


@pytest.mark.parametrize("cut", [0.2, 2.5])
def test_any_cut_between_the_limits_of_the_two_series_gives_the_same_law(
    monkeypatch: pytest.MonkeyPatch, cut: float
) -> None:
    """Either form of the series alternates between log 3 / π² and 4 / log 3. Far from the best cut it rejects often."""
    monkeypatch.setattr(module, "CUT", cut)
    assert is_right()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_series_accepts", lambda x: torch.ones_like(x, dtype=torch.bool)),
        ("_left", lambda z: module._until_accepted(module._inverse_normal, z.clamp(min=1 / module.CUT))),
        ("_inverse_normal", lambda z: ((1 / z).clamp(max=module.CUT), torch.ones_like(z, dtype=torch.bool))),
    ],
)
def test_a_wrong_sampler_fails_the_same_checks(monkeypatch: pytest.MonkeyPatch, name: str, wrong) -> None:
    """The first at a cut where the series matters: at the best cut it rejects one proposal in a thousand."""
    monkeypatch.setattr(module, "CUT", 2.5)
    monkeypatch.setattr(module, name, wrong)
    assert not is_right()


def test_tilts_that_no_draw_can_have() -> None:
    for value, words in ((torch.tensor([1.0, torch.nan]), "finite"), (torch.tensor([3]), "floating point")):
        with pytest.raises(ValueError, match=f"polya_gamma: c must be {words}"):
            polya_gamma(value)
