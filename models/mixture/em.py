"""Expectation maximisation of a mixture of counts: of its likelihood, or of its joint density with the prior."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._shared.blocks import Blocks
from .._shared.responsibilities import weighted_sums
from .._shared.steps import Params, Steps
from .conjugate import Rows, factors, posterior, prepare, prior_factors, sum_over_sites, with_means
from .distributions import IMPOSSIBLE, finite_log
from .prior import Family, Prior
from .start import cluster, pick


class Expectations(NamedTuple):
    """Result of the E-step.

    Attributes
    ----------
    counts : Tensor, shape (..., k)
        N_k: expected number of rows per component.
    sums : Tensor, shape (..., k, d)
        Their expected sums.
    column_counts : Tensor, shape (..., k, d) or (..., k, 1)
        N_k of the rows that have a column.
    objective : Tensor, shape (...)
        log p(x | sites), plus log p(sites) if ``map``, in nats.
    """

    counts: Tensor
    sums: Tensor
    column_counts: Tensor
    objective: Tensor


def em_steps(
    num_components: int = 4,
    family: Family = "poisson",
    map: bool = False,
    prior: Prior | None = None,
    missing: bool = False,
) -> Steps:
    """Expectation maximisation, McLachlan and Peel (2000), section 2.8.

    Parameters
    ----------
    num_components : int
        K.
    family : {"poisson", "multinomial"}
    map : bool
        Whether to maximise the log joint density of `model`, prior included, rather than the likelihood.
    prior : Prior, optional
        Default: `default_prior` of the data. Its shape and concentration must be at least 1 if ``map``.
    missing : bool
        Whether NaN in the data are missing values, missing at random: then the likelihood is that of the other entries.
        Only for Poissons, which are independent. Otherwise they are refused.

    Returns
    -------
    Steps
        For data ``(x,)`` or ``(x, row_weights)``; a row of weight w counts as w rows like it. Even restarts begin at
        k-means (k-means++ seeds), odd ones at random rows, shrunk towards the prior so that nothing is impossible.
        Parameters are ``weights`` and ``rate`` or ``probs``. If two components share one segment, plain EM crawls for
        thousands of iterations; the loop therefore accelerates it by default.
    """
    site = "rate" if family == "poisson" else "probs"

    def rows_of(x: Tensor | Blocks | Rows, row_weights: Any = None) -> Rows:
        return prepare(x, num_components, family, prior, row_weights, missing=missing and family == "poisson")

    def init(restart: int, *data: Tensor | Blocks | Rows) -> Params:
        rows = rows_of(*data)
        if map and (rows.prior.concentration < 1 or not (rows.prior.shape >= 1).all()):
            raise ValueError("mixture: with a shape or concentration below 1 the posterior has no mode: map needs more")
        x = rows.x if rows.seen is None else with_means(torch.where(rows.seen, rows.x, torch.nan))
        if restart % 2 == 0:
            start = cluster(x, num_components, family, row_weights=rows.row_weights)
        else:
            start = pick(x, num_components, rows.row_weights)
        weights = start[0].new_full((num_components,), 1 / num_components)
        return {"weights": weights, site: factors(posterior(rows.prior, *start))[site].mean}

    def e_step(params: Params, *data: Tensor | Blocks | Rows) -> Expectations:
        rows, constant, theta = rows_of(*data), params["weights"].log(), finite_log(params[site])
        if rows.seen is not None:
            theta = torch.cat([theta, -params["rate"]], -1)
        elif family == "poisson":
            constant = constant - params["rate"].sum(-1)
        found = weighted_sums(constant, theta, rows.columns(), rows.row_weights)
        sums, column_counts = found.sums, found.counts.unsqueeze(-1)
        if rows.seen is not None:
            sums, column_counts = sums.chunk(2, -1)
        log_density = torch.where(found.log_norm < IMPOSSIBLE, -math.inf, found.log_norm) + rows.log_coefficient
        if map:
            log_density = log_density + _log_prior(rows.prior, params, site)
        return Expectations(found.counts, sums, column_counts, log_density)

    def m_step(expectations: Expectations, *data: Tensor | Blocks | Rows) -> Params:
        given = rows_of(*data).prior
        return _mode(given if map else _flat(given), *expectations[:3])

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return expectations.objective

    def degenerate(params: Params, expectations: Expectations, *data: Tensor | Blocks | Rows) -> str | None:
        fewest = float(expectations.counts.min())
        return None if fewest > 1e-6 else f"a component holds no row ({fewest:.1e} of one)"

    return Steps(
        init,
        e_step,
        m_step,
        objective,
        degenerate,
        lambda *data: (rows_of(*data),),
        batched=True,
        accelerate=True,
        by_blocks=True,
    )


def _flat(prior: Prior) -> Prior:
    """The improper prior under which the posterior's mode is the maximum of the likelihood."""
    none = None if prior.inverse_scale is None else torch.zeros_like(prior.inverse_scale)
    return Prior(1.0, torch.ones_like(prior.shape), none)


def _log_prior(prior: Prior, params: Params, site: str) -> Tensor:
    """Log density of the prior; nan outside its support, where a jump may step."""
    weights = params["weights"]
    of = prior_factors(prior, weights, params[site])
    of_weights = of["weights"].log_prob(weights)
    return of_weights + sum_over_sites(of[site].log_prob(params[site]), of_weights)


def _mode(prior: Prior, counts: Tensor, sums: Tensor, column_counts: Tensor) -> Params:
    """Mode of the posterior given `Expectations`."""
    weights = counts + prior.concentration - 1
    weights = weights / weights.sum(-1, keepdim=True)
    sums = sums + prior.shape - 1
    if prior.inverse_scale is not None:
        rows = column_counts + prior.inverse_scale
        return {"weights": weights, "rate": sums / rows.clamp(min=torch.finfo(rows.dtype).tiny)}
    total = sums.sum(-1, keepdim=True)
    return {"weights": weights, "probs": torch.where(total > 0, sums / total, 1 / sums.shape[-1])}
