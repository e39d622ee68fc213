"""Bayesian logistic regression on breast_cancer: guides against NUTS, NUTS against a published evidence and figures."""

import math

import numpy as np
import pytest
import torch
from pyro import poutine
from sklearn.linear_model import LogisticRegression

from guidebook import guides
from guidebook.inference import Posterior, compare, svi
from guidebook.models import logistic

STEPS = 15_000  # enough for the full-rank guide's narrowest directions


@pytest.fixture(scope="module")
def fits(breast_cancer, logistic_nuts: Posterior) -> dict[str, Posterior]:
    made = {
        name: svi(logistic.model, guide, *breast_cancer, num_steps=STEPS, num_draws=10_000, progress=False)
        for name, guide in (("mean_field", guides.mean_field), ("full_rank", guides.full_rank))
    }
    return {"nuts": logistic_nuts} | made


@pytest.fixture(scope="module")
def comparison(fits: dict[str, Posterior]):
    return compare(*fits.values(), identify=logistic.identify, names=list(fits))


def test_nuts_has_converged(logistic_nuts: Posterior) -> None:
    assert logistic_nuts.info.r_hat["w"].max() < 1.01
    assert int(logistic_nuts.info.divergences.sum()) == 0
    bias = logistic_nuts.draws["w"][..., 0]
    error = float(bias.std() / logistic_nuts.info.ess["w"][0].sqrt())
    assert float(bias.mean()) == pytest.approx(0.2062, abs=4 * error)  # from quadrature and long runs
    assert float(bias.std()) == pytest.approx(0.4094, rel=0.05)


def test_full_rank_is_good(comparison) -> None:
    frame = comparison.quantities["full_rank"]
    assert frame["mean_shift_in_sd"].abs().max() < 0.10
    assert frame["sd_ratio"].between(0.9, 1.1).all()
    assert comparison.posteriors["full_rank"].info.k_hat < 0.7
    assert comparison.verdicts["full_rank"].judgement in ("good", "usable")


def test_mean_field_is_too_narrow_by_what_theory_says(comparison, logistic_nuts: Posterior) -> None:
    frame = comparison.quantities["mean_field"]
    covariance = torch.cov(logistic_nuts.draws["w"].flatten(0, 1).mT)
    predicted = (torch.linalg.inv(covariance).diagonal() * covariance.diagonal()).rsqrt()
    assert np.abs(frame["sd_ratio"].to_numpy() / predicted.numpy() - 1).max() < 0.08
    assert frame["mean_shift_in_sd"].abs().max() <= 0.25
    assert comparison.posteriors["mean_field"].info.k_hat > 0.7
    assert comparison.verdicts["mean_field"].judgement == "bad"
    assert "too narrow" in comparison.verdicts["mean_field"].sentence


def test_bounds_are_in_order_below_the_evidence(fits: dict[str, Posterior]) -> None:
    """Mean-field < full-rank < log evidence, -55.224 by quadrature and annealing."""
    narrow, full = fits["mean_field"].info, fits["full_rank"].info
    assert narrow.elbo + 4 * (narrow.elbo_se + full.elbo_se) < full.elbo
    assert full.elbo < -55.224 + 4 * full.elbo_se
    # the importance-sampled evidence of the full-rank guide, whose weights are well behaved, is the evidence
    weights = full.log_weights
    evidence = float(weights.logsumexp(0) - math.log(len(weights)))
    assert evidence == pytest.approx(-55.224, abs=0.15)


@pytest.mark.parametrize(
    ("by_hand", "family"),
    [(guides.logistic.mean_field, guides.mean_field), (guides.logistic.cholesky, guides.full_rank)],
)
def test_guides_by_hand_are_twins_of_the_families(breast_cancer, by_hand, family) -> None:
    """The same family of distributions: the same bound at the optimum, within what 3000 steps leave."""
    bounds = [
        svi(logistic.model, guide, *breast_cancer, num_steps=3000, lr=0.02, num_draws=4000, progress=False).info.elbo
        for guide in (by_hand, family)
    ]
    assert bounds[0] == pytest.approx(bounds[1], abs=0.4)


def test_map_point_is_ridge_regression(breast_cancer) -> None:
    """The mode under w ~ N(0, 1) is scikit-learn's estimate at C = 1, its bias made a penalised column of ones."""
    x, y = breast_cancer
    ours = svi(logistic.model, guides.map_point, x, y, num_steps=5000, lr=0.05, progress=False).draws["w"][0, 0]
    columns = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), x], 1)
    theirs = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(columns.numpy(), y.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs.coef_[0], atol=2e-3)


def test_density_is_the_sum_of_its_parts(breast_cancer) -> None:
    x, y = breast_cancer
    torch.manual_seed(0)
    w = torch.randn(31, dtype=x.dtype)
    trace = poutine.trace(poutine.condition(logistic.model, {"w": w})).get_trace(x, y)
    p = 1 / (1 + np.exp(-(w[0] + x @ w[1:]).numpy()))
    likelihood = np.log(np.where(y.numpy() == 1, p, 1 - p)).sum()
    prior = -0.5 * float(w.square().sum()) - 31 / 2 * math.log(2 * math.pi)
    assert float(trace.log_prob_sum()) == pytest.approx(likelihood + prior, rel=1e-12)


def test_predict_averages_probabilities_and_simulate_follows_the_model() -> None:
    x, y, truth = logistic.simulate(50_000, num_features=2, seed=1)
    p = torch.sigmoid(logistic.scores(truth["w"], x))
    z = (y.sum() - p.sum()) / (p * (1 - p)).sum().sqrt()
    assert abs(float(z)) < 4
    draws = torch.stack([truth["w"], -truth["w"]])
    assert torch.allclose(logistic.predict(draws, x), torch.full((len(x),), 0.5, dtype=x.dtype))
    assert torch.allclose(logistic.predict(truth["w"][None], x), p)


def test_prior_scale_out_of_range() -> None:
    with pytest.raises(ValueError, match="prior_scale must be positive"):
        logistic.model(torch.zeros(3, 1), prior_scale=0.0)
