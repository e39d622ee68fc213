"""Missing values filled in by the model that is to be fitted: where its EM begins."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from guidebook.inference import em
from guidebook.models import gmm, linear_gaussian

ROWS_PER_COMPONENT = 10  # complete rows from which on a mixture's EM begins at a fit to them


def impute_mixture(x: Tensor, options: Mapping[str, Any]) -> Tensor:
    """Return rows with each NaN replaced by its mean under the Gaussian mixture of largest likelihood."""
    num_components, covariance = options["num_components"], options["covariance"]
    whole = x[~x.isnan().any(1)]
    least = num_components * max(ROWS_PER_COMPONENT, 2 * x.shape[1] if covariance in ("full", "tied") else 0)
    rows = whole if len(whole) >= least else _with_means(x)
    start = em(gmm.em_steps(num_components, covariance), rows, seed=0).params
    return gmm.impute(dict(start), x, covariance)


def impute_factors(shared_noise: bool) -> Callable[[Tensor, Mapping[str, Any]], Tensor]:
    """Return a function as `impute_mixture`, of a model with one noise variance or with one per column."""

    def impute(x: Tensor, options: Mapping[str, Any]) -> Tensor:
        start = linear_gaussian.starting_sites(_with_means(x), options["latent_dim"], shared_noise=shared_noise)
        return linear_gaussian.impute(start, x, shared_noise=shared_noise)

    return impute


def _with_means(x: Tensor) -> Tensor:
    return torch.where(x.isnan(), x.nanmean(0), x)
