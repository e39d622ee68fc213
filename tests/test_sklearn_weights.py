"""Weights of rows, as rows repeated; and missing values, against likelihoods that nobody here wrote."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal, poisson

from guidebook.sklearn import PPCA, FactorAnalysis, GaussianMixture, PoissonMixture

RNG = np.random.default_rng(5)
BLOBS = np.concatenate([RNG.normal(size=(40, 2)), RNG.normal(size=(30, 2)) @ [[1, 0.5], [0, 0.7]] + 6])
COUNTS = np.concatenate([RNG.poisson([2, 9, 4], size=(40, 3)), RNG.poisson([8, 1, 4], size=(30, 3))]).astype(float)
PLANE = RNG.normal(size=(80, 1)) * [1.0, 0.8, -1.2, 0.9, 1.1] + RNG.normal(size=(80, 5)) * [0.6, 0.8, 0.7, 0.9, 0.8] + 3
TIGHT = {"tol": 1e-10, "random_state": 0}


@pytest.mark.parametrize(
    ("estimator", "x"),
    [
        *((GaussianMixture(2, covariance_type=c, **TIGHT), BLOBS) for c in ("full", "tied", "diag", "spherical")),
        (PoissonMixture(2, **TIGHT), COUNTS),
        (PPCA(1, **TIGHT), PLANE),
        (PPCA(1, method="closed_form"), PLANE),
        (FactorAnalysis(1, **TIGHT), PLANE),
    ],
)
def test_a_weight_is_a_number_of_rows(estimator, x: np.ndarray) -> None:
    """With zeros among them, and with gaps where EM takes them; unweighted fits are elsewhere."""
    weights = np.random.default_rng(1).integers(0, 4, len(x))
    gaps = x.copy()
    gaps[::7, 0] = np.nan
    for rows in [x] if estimator.method == "closed_form" else [x, gaps]:
        whole = estimator.fit(rows.repeat(weights, 0))
        expected, bound = whole.score_samples(rows), whole.lower_bound_
        plain = estimator.fit(rows).score_samples(rows)
        found = estimator.fit(rows, sample_weight=weights.astype(float))
        np.testing.assert_allclose(found.score_samples(rows), expected, atol=1e-4)
        assert found.lower_bound_ == pytest.approx(bound, abs=1e-7)
        assert np.abs(plain - expected).max() > 0.05


def density(x: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> float:
    """Log likelihood of a Gaussian mixture at the entries that are there, row by row."""
    total = 0.0
    for row in x:
        seen = ~np.isnan(row)
        if seen.any():
            parts = zip(weights, means, covariances, strict=True)
            densities = [w * multivariate_normal(m[seen], s[np.ix_(seen, seen)]).pdf(row[seen]) for w, m, s in parts]
            total += np.log(sum(densities))
    return total


def gaps_in(x: np.ndarray, share: float) -> np.ndarray:
    return np.where(np.random.default_rng(2).uniform(size=x.shape) < share, np.nan, x)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_a_mixture_with_gaps_is_at_the_maximum_of_what_is_observed(kind: str) -> None:
    x = gaps_in(BLOBS, 0.2)
    x[0] = np.nan
    found = GaussianMixture(2, covariance_type=kind, **TIGHT).fit(x)
    sigma = found.covariances_
    matrices = {
        "full": lambda s: s,
        "tied": lambda s: np.stack([s, s]),
        "diag": lambda s: np.stack([np.diag(v) for v in s]),
        "spherical": lambda s: s[:, None, None] * np.eye(2),
    }[kind]

    def at(free: np.ndarray) -> float:
        share, means, entries = free[0], free[1:5].reshape(2, 2), free[5:].reshape(sigma.shape)
        entries = (entries + entries.swapaxes(-1, -2)) / 2 if kind in ("full", "tied") else entries
        return density(x, np.array([share, 1 - share]), means, matrices(entries))

    free = np.concatenate([found.weights_[:1], found.means_.ravel(), sigma.ravel()])
    assert at(free) == pytest.approx(found.lower_bound_ * len(x), rel=1e-9)
    assert found.score_samples(x).sum() == pytest.approx(at(free), rel=1e-9)
    assert np.abs(approx_fprime(free, at, 1e-6)).max() < 5e-3
    assert np.abs(approx_fprime(free * 1.05, at, 1e-6)).max() > 1


def test_counts_with_gaps_are_at_the_maximum_of_what_is_observed() -> None:
    x = gaps_in(COUNTS, 0.2)
    found = PoissonMixture(2, **TIGHT).fit(x)

    def at(free: np.ndarray) -> float:
        logs = poisson.logpmf(x[:, None], free[1:].reshape(2, 3))
        joint = np.exp(np.nansum(logs, -1)) * [free[0], 1 - free[0]]
        return np.log(joint.sum(1)).sum()

    free = np.concatenate([found.weights_[:1], found.means_.ravel()])
    assert found.score_samples(x).sum() == pytest.approx(at(free), rel=1e-9)
    assert found.lower_bound_ * len(x) == pytest.approx(at(free), rel=1e-9)
    assert np.abs(approx_fprime(free, at, 1e-6)).max() < 1e-3


@pytest.mark.parametrize("kind", [PPCA, FactorAnalysis])
def test_factors_with_gaps_are_at_the_maximum_of_what_is_observed(kind: type) -> None:
    x = gaps_in(PLANE, 0.15)
    found = kind(1, **TIGHT).fit(x)
    size = found.noise_variance_.size

    def at(free: np.ndarray) -> float:
        W, loc, noise = free[:5], free[5:10], free[10:]
        return density(x, np.ones(1), loc[None], (np.outer(W, W) + noise * np.eye(5))[None])

    free = np.concatenate([found.components_.ravel(), found.mean_, found.noise_variance_.reshape(size)])
    assert found.score_samples(x).sum() == pytest.approx(at(free), rel=1e-9)
    assert np.abs(approx_fprime(free, at, 1e-6)).max() < 5e-3


def test_gaps_cost_precision_and_mean_imputation_the_truth() -> None:
    """A fifth of the values missing: EM errs as little as chance allows, and rows filled with means do not."""
    rng = np.random.default_rng(3)
    truth = np.array([[1.0, 0.8, 0.5], [0.8, 1.0, 0.6], [0.5, 0.6, 1.0]])
    x = rng.multivariate_normal(np.zeros(3), truth, size=2000)
    gaps = np.where(rng.uniform(size=x.shape) < 0.2, np.nan, x)
    filled = np.where(np.isnan(gaps), np.nanmean(gaps, 0), gaps)
    error = np.sqrt((truth**2 + np.outer(np.diag(truth), np.diag(truth))) / (2000 * 0.64))  # of complete pairs alone
    by_em = (GaussianMixture().fit(gaps).covariances_[0] - truth) / error
    by_means = (GaussianMixture().fit(filled).covariances_[0] - truth) / error
    assert np.abs(by_em).max() < 4
    assert np.abs(by_means).min() > 4
