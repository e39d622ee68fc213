"""Estimators beside scikit-learn's own, beside SciPy's densities, and beside the functions that they call."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, poisson
from sklearn import decomposition, linear_model, mixture
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import scale

from guidebook import models
from guidebook.inference import em
from guidebook.sklearn import (
    LDA,
    PPCA,
    BayesianLinearRegression,
    BayesianLogisticRegression,
    FactorAnalysis,
    GaussianMixture,
    PoissonMixture,
)

IRIS, WINE = load_iris().data, scale(load_wine().data)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_a_mixture_rests_where_scikit_learns_does(kind: str) -> None:
    ours = GaussianMixture(3, covariance_type=kind, random_state=0, tol=1e-9).fit(IRIS)
    precisions = 1 / ours.covariances_ if kind in ("diag", "spherical") else np.linalg.inv(ours.covariances_)
    theirs = mixture.GaussianMixture(
        3,
        covariance_type=kind,
        reg_covar=0,
        tol=1e-10,
        max_iter=1000,
        weights_init=ours.weights_,
        means_init=ours.means_,
        precisions_init=precisions,
    ).fit(IRIS)
    np.testing.assert_allclose(ours.means_, theirs.means_, atol=1e-3)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, atol=1e-3)
    np.testing.assert_allclose(ours.predict_proba(IRIS), theirs.predict_proba(IRIS), atol=1e-3)
    np.testing.assert_allclose(ours.score_samples(IRIS), theirs.score_samples(IRIS), atol=1e-3)
    assert ours.score(IRIS) == pytest.approx(theirs.score(IRIS), abs=1e-8)
    assert ours.lower_bound_ == pytest.approx(ours.score(IRIS), abs=1e-10)
    assert ours.bic(IRIS) == pytest.approx(theirs.bic(IRIS), abs=1e-5)
    assert ours.aic(IRIS) == pytest.approx(theirs.aic(IRIS), abs=1e-5)
    assert adjusted_rand_score(ours.predict(IRIS), theirs.predict(IRIS)) > 0.98


def test_a_mixture_is_what_em_returns() -> None:
    found = GaussianMixture(2, random_state=7).fit(IRIS)
    expected = em(models.gmm.em_steps(2), torch.tensor(IRIS), seed=7)
    torch.testing.assert_close(found.posterior_.params["loc"], expected.params["loc"])
    expected = em(models.gmm.em_steps(2, map=True), torch.tensor(IRIS), seed=7).params["loc"]
    mode = GaussianMixture(2, random_state=7, options={"map": True}).fit(IRIS).means_
    np.testing.assert_allclose(mode, expected.numpy())
    assert np.abs(mode - found.means_).max() > 1e-4


def test_samples_of_a_mixture_have_its_moments_and_its_labels() -> None:
    found = GaussianMixture(2, random_state=0).fit(IRIS)
    x, labels = found.sample(20_000)
    assert x.shape == (20_000, 4)
    for k in range(2):
        own = x[labels == k]
        error = np.sqrt(np.diagonal(found.covariances_[k]) / len(own))
        assert np.abs((own.mean(0) - found.means_[k]) / error).max() < 4.5
    assert abs(labels.mean() - found.weights_[1]) < 4 * np.sqrt(0.25 / 20_000)


@pytest.mark.parametrize("method", ["cavi", "gibbs"])
def test_a_bayesian_mixture_averages_over_its_draws(method: str) -> None:
    options = {"num_draws": 500, "num_warmup": 100, "num_chains": 2, "thin": 1} if method == "gibbs" else {}
    found = GaussianMixture(2, method=method, options=options, random_state=0).fit(IRIS)
    draws = models.gmm.identify(dict(found.posterior_.draws))
    assert found.means_ == pytest.approx(draws["loc"].mean((0, 1)).numpy())
    assert (found.predict(IRIS) == GaussianMixture(2, random_state=0).fit_predict(IRIS)).mean() in (0.0, 1.0)
    np.testing.assert_allclose(found.predict_proba(IRIS).sum(1), 1)
    predictive = np.zeros(len(IRIS))
    chosen = torch.linspace(0, draws["loc"].shape[:2].numel() - 1, 200).round().long()
    flat = {name: value.flatten(0, 1)[chosen].numpy() for name, value in draws.items()}
    for w, means, sigma in zip(flat["weights"], flat["loc"], flat["covariance"], strict=True):
        predictive += sum(w[k] * multivariate_normal(means[k], sigma[k]).pdf(IRIS) for k in range(2)) / len(chosen)
    np.testing.assert_allclose(found.score_samples(IRIS), np.log(predictive), rtol=1e-8)


def test_a_poisson_mixture_has_scipys_density() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.poisson([2, 9], size=(60, 2)), rng.poisson([7, 1], size=(40, 2))])
    found = PoissonMixture(2, random_state=0).fit(x)
    joint = found.weights_ * poisson.pmf(x[:, None], found.means_).prod(-1)
    np.testing.assert_allclose(found.score_samples(x), np.log(joint.sum(1)), rtol=1e-9)
    np.testing.assert_allclose(found.predict_proba(x), joint / joint.sum(1, keepdims=True), atol=1e-9)
    assert adjusted_rand_score(found.predict(x), np.repeat([0, 1], [60, 40])) > 0.8
    rows, labels = found.sample(5000)
    assert set(labels) == {0, 1}
    assert np.abs(rows.mean(0) - x.mean(0)).max() < 0.25
    assert (rows == rows.round()).all()


@pytest.mark.parametrize("method", ["em", "closed_form"])
def test_ppca_is_pca_with_a_density(method: str) -> None:
    """The known maximum of the likelihood; PCA's axes, and its variances, which scikit-learn divides by n - 1."""
    ours = PPCA(2, method=method, tol=1e-9 if method == "em" else None, random_state=0).fit(WINE)
    theirs = decomposition.PCA(2).fit(WINE)
    assert ours.score(WINE) * len(WINE) == pytest.approx(-2875.636260, abs=1e-5)
    assert ours.lower_bound_ == pytest.approx(ours.score(WINE))
    lengths = np.linalg.norm(ours.components_, axis=1)
    along = np.abs((ours.components_ / lengths[:, None] * theirs.components_).sum(1))
    np.testing.assert_allclose(along, 1, atol=1e-6)
    share = (len(WINE) - 1) / len(WINE)
    np.testing.assert_allclose(lengths**2 + ours.noise_variance_, share * theirs.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(ours.get_covariance(), share * theirs.get_covariance(), atol=1e-4)
    scores = theirs.transform(WINE)
    for factor, score in zip(ours.transform(WINE).T, scores.T, strict=True):
        assert abs(np.corrcoef(factor, score)[0, 1]) > 1 - 1e-6


def test_factor_analysis_is_scikit_learns() -> None:
    ours = FactorAnalysis(2, random_state=0, tol=1e-8).fit(WINE)
    theirs = decomposition.FactorAnalysis(2, tol=1e-9, max_iter=5000, svd_method="lapack").fit(WINE)
    assert ours.score(WINE) * len(WINE) == pytest.approx(-2747.191052, abs=1e-5)
    assert ours.score(WINE) == pytest.approx(theirs.score(WINE), abs=1e-6)
    np.testing.assert_allclose(ours.get_covariance(), theirs.get_covariance(), atol=1e-3)
    np.testing.assert_allclose(ours.noise_variance_, theirs.noise_variance_, atol=1e-3)
    z, other = ours.transform(WINE), theirs.transform(WINE)
    turn = np.linalg.lstsq(other, z, rcond=None)[0]
    np.testing.assert_allclose(turn @ turn.T, np.eye(2), atol=1e-3)
    np.testing.assert_allclose(other @ turn, z, atol=1e-2)


def test_topics_are_scikit_learns() -> None:
    """Topics of one corpus by both, and their perplexity on other documents, by document completion."""
    x, truth = models.lda.simulate(400, num_topics=3, num_features=12, mean_total=80.0, seed=1)
    train, test = x[:300].numpy(), x[300:]
    ours = LDA(3, doc_topic_prior=0.1, topic_word_prior=0.1, random_state=0).fit(train)
    theirs = decomposition.LatentDirichletAllocation(
        3, doc_topic_prior=0.1, topic_word_prior=0.1, max_iter=200, random_state=0
    ).fit(train)
    words = theirs.components_ / theirs.components_.sum(1, keepdims=True)
    affinity = np.sqrt(ours.components_) @ np.sqrt(words).T
    order = affinity.argmax(1)
    assert sorted(order) == [0, 1, 2]
    assert affinity.max(1).min() > 0.99
    assert (np.sqrt(ours.components_) @ np.sqrt(truth["topic_words"].numpy()).T).max(1).min() > 0.99
    weights = ours.transform(test.numpy())
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(weights, theirs.transform(test.numpy())[:, order], atol=0.05)
    expected = models.lda.perplexity(torch.tensor(words), test, alpha=0.1)
    assert ours.perplexity(test.numpy()) == pytest.approx(expected, rel=0.01)
    assert ours.perplexity(test.numpy()) == pytest.approx(models.lda.perplexity(ours._topics, test, alpha=0.1))
    _, tokens = models.lda.completion(ours._topics, test, alpha=0.1)
    assert np.exp(-ours.score(test.numpy()) / float(tokens.sum())) == pytest.approx(ours.perplexity(test.numpy()))
    assert not np.allclose(ours.set_params(doc_topic_prior=2.0).fit(train).transform(test.numpy()), weights, atol=0.05)


def test_a_mode_of_logistic_regression_is_scikit_learns() -> None:
    data = load_breast_cancer()
    x, y = scale(data.data)[:, [0, 1, 4]], data.target_names[data.target]
    mode = BayesianLogisticRegression(2.0, method="map", random_state=0).fit(x, y)
    ones = np.column_stack([np.ones(len(x)), x])
    theirs = linear_model.LogisticRegression(C=4.0, fit_intercept=False, tol=1e-10, max_iter=1000).fit(ones, y)
    np.testing.assert_allclose([*mode.intercept_, *mode.coef_[0]], theirs.coef_[0], atol=5e-3)
    np.testing.assert_allclose(mode.predict_proba(x), theirs.predict_proba(ones), atol=5e-3)
    spread = BayesianLogisticRegression(2.0, method="cavi", random_state=0).fit(x, y)
    np.testing.assert_array_equal(spread.classes_, ["benign", "malignant"])
    draws = spread.posterior_.draws["w"].flatten(0, 1).numpy()
    averaged = (1 / (1 + np.exp(-(ones @ draws.T)))).mean(1)
    np.testing.assert_allclose(spread.predict_proba(x)[:, 1], averaged, atol=0.01)
    assert np.abs(averaged - mode.predict_proba(x)[:, 1]).max() > 0.005
    assert (spread.predict(x) == theirs.predict(ones)).mean() > 0.98


def test_linear_regression_shrinks_as_ridge_does() -> None:
    """Given the noise's variance the posterior mean is ridge regression's, at columns about their means."""
    x, y = load_diabetes(return_X_y=True)
    x = scale(x)
    ours = BayesianLinearRegression(0.2).fit(x, y)
    ridge = linear_model.Ridge(alpha=1 / 0.2**2).fit(x, y)
    np.testing.assert_allclose(ours.coef_, ridge.coef_, rtol=1e-6)
    mean, sd = ours.predict(x, return_std=True)
    np.testing.assert_allclose(mean, ridge.predict(x), atol=1e-3)
    draws = {name: value.flatten(0, 1) for name, value in ours.posterior_.draws.items()}
    simulated = models.linear.posterior_predictive(draws, torch.tensor(x[:20])).numpy()
    np.testing.assert_allclose(sd[:20], simulated.std(0), rtol=0.04)
    bayes = linear_model.BayesianRidge().fit(x, y)
    np.testing.assert_allclose(ours.alpha_, bayes.alpha_, rtol=0.05)
    assert ours.score(x, y) == pytest.approx(bayes.score(x, y), abs=0.01)
    heavy = BayesianLinearRegression(0.2, noise="student", method="gibbs", options={"num_draws": 200, "thin": 1}).fit(
        x, y
    )
    assert np.abs(heavy.coef_ - ours.coef_).max() > 0.1
