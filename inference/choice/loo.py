"""Leave-one-out cross-validation of a fit of any model, by any method."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..info import CheckInfo, FitInfo
from ..log_likelihood import log_likelihood
from ..options import options_by_name
from ..posterior import Posterior
from .score import Score, psis_loo


@options_by_name
def loo(
    model: Callable,
    posterior: Posterior,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    site: str | None = None,
) -> Score:
    """Return how well a fitted model predicts each row from all others, by PSIS-LOO.

    Draws of `svi` and `dadvi` are weighted by the posterior's density over the guide's, so that the score is that of
    the posterior, as far as k̂ allows (Magnusson et al. 2019). Those that `check` has moved (`Check.improved`, or what
    `fit` chose of them) are draws of the posterior once their chains have settled, and have no weights.

    Parameters
    ----------
    model : callable
        The model that was fitted.
    posterior : Posterior
        With 100 draws or more.
    *data
        The data that were fitted.
    model_kwargs : mapping, optional
        Further arguments of the model, by name: data or options.
    site : str, optional
        The observed site whose rows are left out, by its name in `log_likelihood`. Default: all, if they have the same
        rows, whose densities are then added.

    Returns
    -------
    Score
        As `psis_loo` gives it; `choose` takes several. Rows that a mask hides are left out.

    Raises
    ------
    ValueError
        If observed sites have different rows and ``site`` is not given, there are fewer than two rows, or
        `log_likelihood` or `psis_loo` refuse.

    Warns
    -----
    UserWarning
        If the draws are of an approximation without weights, or of chains that have not settled, and are taken as the
        posterior's own.
    """
    found = log_likelihood(model, posterior, *data)
    if site is not None:
        if site not in found:
            raise ValueError(f"loo: the model observes no site {site!r}: it has {', '.join(found)}")
        found = {site: found[site]}
    rows = rows_of("loo", found)
    is_hidden = (rows == 0).flatten(0, 1).all(0)
    rows = rows[:, :, ~is_hidden]
    if rows.shape[2] < 2:
        raise ValueError(f"loo: {', '.join(found)} has one density for all rows, so that none can be left out")
    info, weights = posterior.info, posterior.log_weights
    if isinstance(info, CheckInfo) and not info.converged:
        warnings.warn(
            f"loo: draws that check has moved are taken as the posterior's own, and have not settled there: "
            f"{info.message}",
            stacklevel=3,
        )
    elif weights is None and (info.guide is not None or info.elbo is not None):
        warnings.warn(
            f"loo: draws of {info.method} are taken as the posterior's own, since their weights are not known",
            stacklevel=3,
        )
    score = psis_loo(rows, weights)
    are_moved = isinstance(info, CheckInfo | FitInfo) and info.r_hat is None  # by short chains, which need not agree
    return replace(score, r_hat=None, chains_disagree=False) if are_moved else score


def rows_of(method: str, found: Mapping[str, Tensor]) -> Tensor:
    """Return the log likelihoods of all sites as rows, (chain, draw, row); ValueError if sites have different rows."""
    shapes = {name: tuple(value.shape[2:]) for name, value in found.items()}
    if len(set(shapes.values())) > 1:
        words = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{method}: observed sites have different rows ({words}): say by site= which are left out")
    if () in shapes.values():
        return torch.stack(list(found.values()), 2)  # one site per row
    return torch.stack(list(found.values())).sum(0).flatten(2)
