"""Bayesian regressions: predictions averaged over the posterior of the weights."""

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from guidebook.catalog.outcomes import thinned
from guidebook.models import logistic

from .fitting import as_tensor, check_counts, mean_over_draws, method_of, run, validated

MOST_DRAWS = 1000  # that probabilities are averaged over


class BayesianLogisticRegression(ClassifierMixin, BaseEstimator):
    """Bayesian logistic regression of two classes, with the methods of `sklearn.linear_model.LogisticRegression`.

    Weights and intercept are Normal(0, ``prior_scale``²): standardise the features. A penalised estimate, which
    ``method="map"`` is, is scikit-learn's with ``C = prior_scale ** 2``, but for the intercept, which it leaves free.

    Parameters
    ----------
    prior_scale : float
        Prior standard deviation of every weight.
    method : str
        "dadvi", "laplace", "cavi", "gibbs", "nuts", "map", "svi:full_rank", …; see ``guidebook list``.
    tol, max_iter, n_init, options, random_state
        As for `GaussianMixture`.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
    coef_ : ndarray of shape (1, n_features)
        Posterior means, and ``coef_sd_`` standard deviations.
    intercept_ : ndarray of shape (1,)
    posterior_, converged_, n_iter_, lower_bound_, n_features_in_, feature_names_in_
        As for `GaussianMixture`.
    """

    def __init__(
        self,
        prior_scale: float = 1.0,
        *,
        method: str = "dadvi",
        tol: float | None = None,
        max_iter: int | None = None,
        n_init: int | None = None,
        options: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.prior_scale = prior_scale
        self.method = method
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to features ``X``, (n_samples, n_features), and labels ``y`` of two classes, (n_samples,).

        Raises
        ------
        ValueError
            For an option out of range, or if there are not two classes.
        """
        X, y = validated(self, X, y)
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise ValueError(f"Only binary classification is supported. The type of the target is {kind}.")
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"BayesianLogisticRegression: y has one class, {self.classes_[0]!r}, and needs two")
        check_counts("BayesianLogisticRegression", max_iter=self.max_iter, n_init=self.n_init)
        target = as_tensor(labels.astype(np.float64))
        posterior = run(self, "logistic", {"prior_scale": self.prior_scale}, as_tensor(X), target)
        self._sites = thinned({"w": posterior.draws["w"]}, MOST_DRAWS)
        w = mean_over_draws(posterior.draws, "w")
        self.coef_, self.intercept_ = w[None, 1:], w[:1]
        self.coef_sd_ = posterior.draws["w"].double().flatten(0, 1).std(0, correction=0)[None, 1:].numpy()
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the log odds of `predict_proba`, shape (n_samples,): of averaged probabilities."""
        zero, one = self._log_proba(X)
        return (one - zero).numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return logarithms of `predict_proba`."""
        return torch.stack(self._log_proba(X), 1).numpy()

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return each row's probability of both classes, shape (n_samples, 2), averaged over draws."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """Return the more probable class of each row, shape (n_samples,)."""
        likelier = (self.decision_function(X) > 0).astype(int)
        return self.classes_[likelier]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _log_proba(self, X: Any) -> tuple[Tensor, Tensor]:
        check_is_fitted(self)
        x = as_tensor(validated(self, X, reset=False))
        found = []
        for label in (0.0, 1.0):
            parts = [logistic.log_likelihood(self._sites, p, p.new_full((len(p),), label)) for p in x.split(4096)]
            found.append(torch.cat([part.logsumexp(0) for part in parts]) - np.log(len(self._sites["w"])))
        return found[0], found[1]


class BayesianLinearRegression(RegressorMixin, BaseEstimator):
    """Bayesian linear regression with an unknown noise variance, in place of `sklearn.linear_model.BayesianRidge`.

    The prior stands in the target's own units; weights share one scale, so standardise the features.

    Parameters
    ----------
    prior_scale : float
        Prior standard deviation of every weight, in that of the noise.
    noise : {"normal", "student"}
        Student's t has heavy tails, so that rows far off have little influence.
    prior : {"normal", "horseshoe"}
        The latter is for many features of which few matter; take "nuts", "dadvi" or "svi".
    method : str
        "closed_form" (the exact posterior; normal noise and prior), "cavi", "gibbs", "nuts", …: see ``guidebook list``.
    tol, max_iter, n_init, options, random_state
        As for `GaussianMixture`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,)
        Posterior means.
    intercept_ : float
    alpha_ : float
        Precision of the noise: one over the posterior mean of its variance.
    sigma_ : ndarray of shape (n_features + 1, n_features + 1)
        Posterior covariance of the weights, the intercept first.
    posterior_, converged_, n_iter_, lower_bound_, n_features_in_, feature_names_in_
        As for `GaussianMixture`; the bound of the closed form is the log evidence.
    """

    def __init__(
        self,
        prior_scale: float = 1.0,
        *,
        noise: str = "normal",
        prior: str = "normal",
        method: str = "closed_form",
        tol: float | None = None,
        max_iter: int | None = None,
        n_init: int | None = None,
        options: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.prior_scale = prior_scale
        self.noise = noise
        self.prior = prior
        self.method = method
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to features ``X``, (n_samples, n_features), and a target ``y``, (n_samples,).

        Raises
        ------
        ValueError
            For an option out of range, or a target that does not vary.
        """
        X, y = validated(self, X, y, y_numeric=True, ensure_min_samples=2)
        check_counts("BayesianLinearRegression", max_iter=self.max_iter, n_init=self.n_init)
        options = {"prior_scale": self.prior_scale, "noise": self.noise, "prior": self.prior}
        posterior = run(self, "linear", options, as_tensor(X), as_tensor(y.astype(np.float64)))
        draws = posterior.draws["w"].double().flatten(0, 1)
        w = posterior.params["mean"].numpy() if method_of(self) == "closed_form" else draws.mean(0).numpy()
        self.coef_, self.intercept_ = w[1:], float(w[0])
        self.sigma_ = (draws.mT.cov() if len(draws) > 1 else torch.zeros(len(w), len(w))).numpy()
        self.alpha_ = 1 / float(mean_over_draws(posterior.draws, "noise_variance"))
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the expected target of each row, (n_samples,), and with ``return_std`` its sd, noise included.

        Of Student noise, the scale stands for the sd.
        """
        check_is_fitted(self)
        x = validated(self, X, reset=False)
        mean = x @ self.coef_ + self.intercept_
        if not return_std:
            return mean
        columns = np.column_stack([np.ones(len(x)), x])
        return mean, np.sqrt(((columns @ self.sigma_) * columns).sum(1) + 1 / self.alpha_)
