"""Factor models: fewer columns that keep what the rows have in common, and a density."""

import warnings
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from guidebook.catalog.outcomes import along_axes
from guidebook.inference import Posterior
from guidebook.models import factor_analysis, linear_gaussian, ppca

from .fitting import as_tensor, at_each, check_counts, mean_over_draws, method_of, run, validated_with_gaps, weights_of


class _Factors(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):
    """What both factor models do with rows once they are fitted."""

    _weighing: ClassVar[tuple[str, ...]] = ("em",)  # methods that take weights

    def __init__(
        self,
        n_components: int | None = None,
        *,
        method: str = "em",
        tol: float | None = None,
        max_iter: int | None = None,
        n_init: int | None = None,
        options: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit to rows ``X``, (n_samples, n_features); ``y`` is not used.

        Maximum likelihood takes weights, (n_samples,), of which w says that a row counts as w rows like it; EM takes
        NaN for missing values.

        Raises
        ------
        ValueError
            For an option out of range, or rows that the model cannot have.
        """
        x = as_tensor(validated_with_gaps(self, X, reset=True))
        self._fit(x, sample_weight)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the expected factors of each row, shape (n_samples, n_components)."""
        x = self._checked(X)
        if x.isnan().any():
            means = [linear_gaussian.given_seen(at, x)[0] for at in at_each(self._sites)]
        else:
            means = [linear_gaussian.transform(at, x) for at in at_each(self._sites)]
        return torch.stack(means).mean(0).numpy()

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the expected rows of given factors, (n_samples, n_components); shape (n_samples, n_features)."""
        check_is_fitted(self)
        return np.asarray(X) @ self.components_ + self.mean_

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log density of each row, in nats, shape (n_samples,)."""
        x = self._checked(X)
        if x.isnan().any():
            density = torch.stack([linear_gaussian.given_seen(at, x)[2] for at in at_each(self._sites)])
        else:
            density = torch.stack([linear_gaussian.log_likelihood(at, x) for at in at_each(self._sites)])
        return (density.logsumexp(0) - np.log(len(density))).numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log density of a row, in nats."""
        return float(self.score_samples(X).mean())

    def get_covariance(self) -> np.ndarray:
        """Return the covariance of a row, W Wᵀ + Ψ, shape (n_features, n_features)."""
        check_is_fitted(self)
        return linear_gaussian.identify(self._sites)["covariance"].mean(0).numpy()

    def get_precision(self) -> np.ndarray:
        """Return the inverse of `get_covariance`."""
        return np.linalg.inv(self.get_covariance())

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = method_of(self) == "em"
        return tags

    def _fit(self, x: Tensor, sample_weight: Any) -> None:
        what, columns = type(self).__name__, x.shape[1]
        check_counts(what, n_components=self.n_components, max_iter=self.max_iter, n_init=self.n_init)
        if columns < 2:
            raise ValueError(f"{what}: X has 1 feature(s), and factors need two or more columns to share")
        latent_dim = min(2, columns - 1) if self.n_components is None else int(self.n_components)
        posterior = self._run({"latent_dim": latent_dim}, x, weights_of(self, sample_weight, len(x), self._weighing))
        self._sites = along_axes(posterior)
        self.components_ = self._sites["W"].mean(0).mT.numpy()
        self.mean_ = mean_over_draws(posterior.draws, "loc")
        self.noise_variance_ = mean_over_draws(posterior.draws, "noise_variance")

    @abstractmethod
    def _run(self, options: dict[str, Any], x: Tensor, weights: Tensor | None) -> Posterior:
        """Fit by the method that is set."""

    def _checked(self, X: Any) -> Tensor:
        check_is_fitted(self)
        return as_tensor(validated_with_gaps(self, X, reset=False))


class PPCA(_Factors):
    """Probabilistic PCA: `sklearn.decomposition.PCA` with a density, in any of the ways in which it can be fitted.

    Parameters
    ----------
    n_components : int, optional
        Factors, fewer than columns. Default: two, or one of two columns.
    method : str
        "em" or "closed_form" (maximum likelihood), "nuts", "dadvi", "svi:full_rank", …; see ``guidebook list``. Priors
        of all but the first two are meant for standardised columns.
    tol, max_iter, n_init, options, random_state
        As for `GaussianMixture`, but ``n_init`` is 1 by default: the likelihood has one maximum.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Loadings along the principal axes, largest first; the mean over draws that are turned towards each other. Unlike
        PCA's they are not of length one: their squared lengths are the variance explained less the noise's.
    mean_ : ndarray of shape (n_features,)
    noise_variance_ : ndarray, scalar
    posterior_, converged_, n_iter_, lower_bound_, n_features_in_, feature_names_in_
        As for `GaussianMixture`.

    Notes
    -----
    `transform` returns E[z | x], as `FactorAnalysis` does: PCA's scores in units of their own spread, and shrunk.
    """

    _weighing = ("em", "closed_form")

    def _run(self, options: dict[str, Any], x: Tensor, weights: Tensor | None) -> Posterior:
        steps: dict[str, Any] = {"em": partial(ppca.em_steps, missing=True)} if x.isnan().any() else {}
        given = weights if method_of(self) == "em" else None
        if method_of(self) == "closed_form":
            steps["closed_form"] = partial(ppca.maximum_likelihood, row_weights=weights)
        posterior = run(self, "ppca", options, x, steps=steps, weights=given, defaults={"num_restarts": 1})
        if weights is not None and given is None:
            self.lower_bound_ *= len(x) / float(weights.sum())
        return posterior


class FactorAnalysis(_Factors):
    """Factor analysis, as scikit-learn's of that name.

    Parameters
    ----------
    n_components : int, optional
        Factors, fewer than columns. Default: two, or one of two columns.
    method, tol, max_iter, n_init, options, random_state
        As for `PPCA`; there is no closed form. The first start is at the principal axes of standardised columns.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        As for `PPCA`. scikit-learn's differ by a rotation, which changes nothing else.
    mean_, noise_variance_ : ndarray of shape (n_features,)
    posterior_, converged_, n_iter_, lower_bound_, n_features_in_, feature_names_in_
        As for `GaussianMixture`.
    """

    def _run(self, options: dict[str, Any], x: Tensor, weights: Tensor | None) -> Posterior:
        gaps = bool(x.isnan().any())
        # A Heywood case is not refused here, as a fit in a pipeline had better not fail, but said.
        em = partial(factor_analysis.em_steps, missing=True) if gaps else partial(factor_analysis.em_steps, floor=0.0)
        given: dict[str, Any] = {"steps": {"em": em}, "defaults": {"num_restarts": 1}}
        posterior = run(self, "factor_analysis", options, x, weights=weights, **given)
        if method_of(self) == "em" and not gaps:
            steps = factor_analysis.em_steps(map=bool((self.options or {}).get("map")))
            data = (x,) if weights is None else (x, weights)
            if heywood := steps.degenerate(dict(posterior.params), None, *data):
                advice = "take fewer factors or options={'map': True}"
                warnings.warn(f"FactorAnalysis: {heywood}; {advice}", ConvergenceWarning, stacklevel=4)
        return posterior
