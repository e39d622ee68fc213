"""Mixtures: clusters of rows, soft or hard, and their density."""

from functools import partial
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, check_non_negative
from torch import Tensor

from guidebook.catalog.outcomes import memberships, thinned
from guidebook.inference import Posterior, online
from guidebook.models import OnlineSteps, gmm, mixture

from .fitting import (
    as_tensor,
    at_each,
    check_counts,
    mean_over_draws,
    method_of,
    named,
    run,
    seed_of,
    validated_with_gaps,
    weights_of,
)

COVARIANCES = {"full": "full", "tied": "tied", "diag": "diagonal", "spherical": "isotropic"}


class _Mixture(DensityMixin, BaseEstimator):
    """What both mixtures do with rows once they are fitted."""

    _module: ClassVar[ModuleType]
    n_components: int
    method: str
    max_iter: int | None
    n_init: int | None
    learning_decay: float
    learning_offset: float
    random_state: Any
    posterior_: Posterior

    def fit_predict(self, X: Any, y: Any = None, **params: Any) -> np.ndarray:
        """Fit, and return the most probable component of each row, shape (n_samples,)."""
        return self.fit(X, y, **params).predict(X)  # pyright: ignore[reportAttributeAccessIssue]

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable component of each row, shape (n_samples,)."""
        return self.predict_proba(X).argmax(1)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return each row's probability to come from each component, shape (n_samples, n_components)."""
        return self._memberships(X)[0].numpy()

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log density of each row, in nats, shape (n_samples,)."""
        return self._memberships(X)[1].numpy()

    def score(self, X: Any, y: Any = None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the mean log density of a row, in nats."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows, (n_samples, n_features), and the components that they come from, (n_samples,).

        Each row has its own draw of the posterior.
        """
        check_is_fitted(self)
        check_counts(type(self).__name__, n_samples=n_samples)
        rng = check_random_state(self.random_state)
        length = len(self._sites["weights"])
        rows, labels = [], []
        for sites, count in zip(
            at_each(self._sites), rng.multinomial(n_samples, np.full(length, 1 / length)), strict=True
        ):
            if count:
                x = self._module.posterior_predictive(sites, int(count), seed=rng.randint(2**31 - 1))
                cumulative = self._module.responsibilities(sites, x).cumsum(-1)[:, :-1].numpy()
                labels.append((rng.uniform(size=(count, 1)) > cumulative).sum(1))
                rows.append(x.numpy())
        return np.concatenate(rows), np.concatenate(labels)

    def bic(self, X: Any) -> float:
        """Return the Bayesian information criterion at the maximum of the likelihood: lower is better."""
        x, sites = self._checked(X), self._point("bic")
        return -2 * float(self._module.bic(sites, x))

    def aic(self, X: Any) -> float:
        """Return Akaike's information criterion at the maximum of the likelihood: lower is better."""
        x, sites = self._checked(X), self._point("aic")
        return 2 * self._module.exact.num_parameters(sites) - 2 * float(self._module.log_likelihood(sites, x).sum())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = method_of(self) == "em"
        return tags

    def _fit(self, model: str, options: dict[str, Any], x: Tensor, sample_weight: Any) -> dict[str, Tensor]:
        """Fit, and return draws with their components matched."""
        what = type(self).__name__
        weights = weights_of(self, sample_weight, len(x), ("em",))
        check_counts(what, n_components=self.n_components, max_iter=self.max_iter, n_init=self.n_init)
        if self.n_components > len(x):
            raise ValueError(f"{what}: n_components={self.n_components} is more than the {len(x)} rows")
        steps = {"em": partial(self._module.em_steps, missing=True)} if x.isnan().any() else {}
        options = {"num_components": int(self.n_components), **options}
        posterior, self.n_batch_iter_ = run(self, model, options, x, steps=steps, weights=weights), 0
        return self._keep(posterior)

    def _partial_fit(self, steps: OnlineSteps, X: Any) -> dict[str, Tensor]:
        """Go on with a batch, from a fit by EM or the batches before; return the estimate as a draw."""
        what, init = type(self).__name__, getattr(self, "posterior_", None)
        x = as_tensor(self._validated(X, reset=init is None))
        check_counts(what, n_components=self.n_components)
        if x.isnan().any():
            raise ValueError(f"{what}: partial_fit takes no missing values (NaN)")
        if init is not None and not init.info.is_point:
            raise ValueError(f"{what}: partial_fit goes on from method='em', and method is {self.method!r}")
        how = {"decay": self.learning_decay, "offset": self.learning_offset, "seed": seed_of(self.random_state)}
        with named(what):
            self.posterior_ = online(steps, x, batch_size=len(x), init=init, progress=False, **how)
        info = self.posterior_.info
        self.n_batch_iter_ = self.n_iter_ = info.num_batches
        self.converged_, self.lower_bound_ = True, float(info.scores[-1])
        return self._keep(self.posterior_)

    def _keep(self, posterior: Posterior) -> dict[str, Tensor]:
        draws = self._module.identify(dict(posterior.draws))
        self._sites = thinned(draws)
        self.weights_ = mean_over_draws(draws, "weights")
        return draws

    def _memberships(self, X: Any) -> tuple[Tensor, Tensor]:
        x = self._checked(X)
        return memberships(self._observed if x.isnan().any() else self._module.log_joint, self._sites, x)

    def _observed(self, draws: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.stack([self._module.observed_log_joint(at, x) for at in at_each(draws)])

    def _checked(self, X: Any) -> Tensor:
        check_is_fitted(self)
        return as_tensor(self._validated(X, reset=False))

    def _validated(self, X: Any, *, reset: bool) -> np.ndarray:
        return validated_with_gaps(self, X, reset=reset)

    def _point(self, criterion: str) -> dict[str, Tensor]:
        if not self.posterior_.info.is_point:
            raise ValueError(f"{type(self).__name__}: {criterion} is for method='em', and method is {self.method!r}")
        return next(at_each(self._sites))


class GaussianMixture(_Mixture):
    """Gaussian mixture, as scikit-learn's of that name.

    Parameters
    ----------
    n_components : int
    covariance_type : {"full", "tied", "diag", "spherical"}
    method : str
        "em" (maximum likelihood), "cavi", "gibbs", "nuts", "dadvi", "svi:full_rank", …: see ``guidebook list``.
    tol : float, optional
        EM and coordinate ascent: distance to the limit, in nats, at which a start stops. Default: the method's, 1e-6.
    max_iter, n_init : int, optional
        Iterations at most, and starts, of which the best wins. Default: the method's own.
    learning_decay, learning_offset : float
        Of `partial_fit`: step t has size (offset + t)^-decay.
    options : dict, optional
        Further options of the method, such as ``{"map": True}`` or ``{"num_draws": 500, "num_chains": 2}``.
    random_state : int, RandomState or None
        A whole number is the method's ``seed``.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    covariances_ : ndarray
        (n_components, n_features, n_features); tied (n_features, n_features); diag (n_components, n_features);
        spherical (n_components,). All three are means over the posterior's draws, components matched.
    posterior_ : Posterior
    converged_ : bool
    n_iter_ : int
        Iterations of the best start; draws per chain of a sampler.
    lower_bound_ : float
        Log likelihood at the estimate, or the ELBO, in nats per row; nan for samplers.
    n_batch_iter_ : int
        Batches that `partial_fit` has seen.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        If ``X`` has names.
    """

    _module = gmm

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        method: str = "em",
        tol: float | None = None,
        max_iter: int | None = None,
        n_init: int | None = None,
        learning_decay: float = 0.7,
        learning_offset: float = 10.0,
        options: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.method = method
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit to rows ``X``, (n_samples, n_features); ``y`` is not used.

        EM takes weights, (n_samples,), of which w says that a row counts as w rows like it, and NaN for missing values.

        Raises
        ------
        ValueError
            For an option out of range, columns that are constant or linearly dependent, or if every start degenerates.
        """
        covariance, x = self._covariance(), as_tensor(self._validated(X, reset=True))
        return self._set(self._fit("gmm", {"covariance": covariance}, x, sample_weight))

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Go on with a batch of rows, which is then forgotten: online EM, Cappé and Moulines (2009).

        The first batch chooses where components start, unless there is a fit by EM to go on from; it should have many
        rows per component. The estimate may be used at any time.
        """
        return self._set(self._partial_fit(gmm.online_steps(int(self.n_components), self._covariance()), X))

    def _covariance(self) -> Any:
        if self.covariance_type not in COVARIANCES:
            there = ", ".join(COVARIANCES)
            raise ValueError(f"GaussianMixture: covariance_type must be one of {there}, got {self.covariance_type!r}")
        return COVARIANCES[self.covariance_type]

    def _set(self, draws: dict[str, Tensor]) -> Self:
        self.means_, covariances = mean_over_draws(draws, "loc"), mean_over_draws(draws, "covariance")
        self.covariances_ = covariances[0] if self.covariance_type == "tied" else covariances
        return self


class PoissonMixture(_Mixture):
    """Mixture of independent Poissons, for rows of counts: customers by what they buy, cells by their genes.

    Parameters
    ----------
    n_components, method, tol, max_iter, n_init, learning_decay, learning_offset, options, random_state
        As for `GaussianMixture`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
        Expected counts.
    posterior_, converged_, n_iter_, lower_bound_, n_batch_iter_, n_features_in_, feature_names_in_
        As for `GaussianMixture`.
    """

    _module = mixture

    def __init__(
        self,
        n_components: int = 1,
        *,
        method: str = "em",
        tol: float | None = None,
        max_iter: int | None = None,
        n_init: int | None = None,
        learning_decay: float = 0.7,
        learning_offset: float = 10.0,
        options: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit to rows of whole numbers ``X``, (n_samples, n_features); ``y`` is not used.

        EM takes weights and missing values, as `GaussianMixture.fit` says.

        Raises
        ------
        ValueError
            For an option out of range, or what is no count.
        """
        x = as_tensor(self._validated(X, reset=True))
        self.means_ = mean_over_draws(self._fit("mixture", {"family": "poisson"}, x, sample_weight), "rate")
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Go on with a batch of rows, as `GaussianMixture.partial_fit` does."""
        self.means_ = mean_over_draws(self._partial_fit(mixture.online_steps(int(self.n_components)), X), "rate")
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.categorical = True  # whole numbers; there is no tag for counts
        return tags

    def _validated(self, X: Any, *, reset: bool) -> np.ndarray:
        x = super()._validated(X, reset=reset)
        counts = np.nan_to_num(x)
        check_non_negative(counts, "PoissonMixture")
        with named("PoissonMixture"):
            mixture.check_counts(as_tensor(counts))
        return x
