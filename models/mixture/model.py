"""The Pyro models of a mixture of counts, and data simulated from it."""

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.ops.indexing import Vindex
from pyro.poutine.runtime import InferDict
from torch import Tensor

from .._shared.steps import Params
from .distributions import CountMixture, Counts, draw_rows
from .prior import Family, Prior, check, check_prior, cluster, distributions, factors, posterior, prior_of, site_name


def model(
    x: Tensor | None = None,
    *,
    num_components: int = 4,
    family: Family = "poisson",
    prior: Prior | None = None,
    num_rows: int | None = None,
    totals: Tensor | float | None = None,
) -> Tensor:
    """Pyro model of rows of counts from a mixture, the component's index summed out.

    Parameters
    ----------
    x : Tensor, shape (n, d), optional
        The counts. Drawn from the model where left out; ``num_rows`` and ``prior`` must be given then.
    num_components : int
        K.
    family : {"poisson", "multinomial"}
        Independent Poissons, or a multinomial of the row's own total.
    prior : Prior, optional
        `default_prior` of the data where left out.
    num_rows : int, optional
        How many rows to draw where ``x`` is left out.
    totals : Tensor, shape (num_rows,), or float, optional
        Totals of the multinomial rows to draw; those of ``x`` where it is given.

    Returns
    -------
    Tensor, shape (n, d)
        The counts.

    Raises
    ------
    ValueError
        For an unknown family, more components than rows, a prior of the other family, or data that are no counts
        (which the default prior finds).
    """
    prior, rows, totals = _read(x, num_components, family, prior, num_rows, totals)
    weights, intensity = _sample_globals(x, num_components, family, prior)
    with pyro.plate("rows", rows, dim=-1):
        return pyro.sample("x", CountMixture(weights, intensity, totals), obs=x)


def latent_model(
    x: Tensor | None = None,
    *,
    num_components: int = 4,
    family: Family = "poisson",
    prior: Prior | None = None,
    num_rows: int | None = None,
    totals: Tensor | float | None = None,
) -> Tensor:
    """The same with the component of each row as a site, ``z``; arguments, result and errors as for `model`."""
    prior, rows, totals = _read(x, num_components, family, prior, num_rows, totals)
    weights, intensity = _sample_globals(x, num_components, family, prior)
    with pyro.plate("rows", rows, dim=-1):
        z = pyro.sample("z", dist.Categorical(weights))
        return pyro.sample("x", Counts(Vindex(intensity)[..., z, :], totals), obs=x)


def posterior_predictive(
    sites: Params, rows: int | Float[Tensor, "n d"], *, totals: Tensor | None = None, seed: int = 0
) -> Float[Tensor, "*batch n d"]:
    """One simulated data set for each draw of the sites.

    Parameters
    ----------
    sites : dict
        ``weights`` and ``rate`` or ``probs``, with any dimensions on the left.
    rows : int or Tensor
        How many rows, or the data themselves, whose rows (and totals) the simulated ones share.
    totals : Tensor, shape (n,), optional
        Totals of multinomial rows where ``rows`` is a number.
    seed : int

    Raises
    ------
    ValueError
        If multinomial rows are asked for without totals.
    """
    weights, intensity = sites["weights"], sites["rate"] if "rate" in sites else sites["probs"]
    num_rows = rows if isinstance(rows, int) else len(rows)
    if "rate" in sites:
        totals = None
    elif not isinstance(rows, int):
        totals = rows.sum(-1).to(weights.device)
    elif totals is None:
        raise ValueError("mixture: multinomial rows need their totals: give the data, or totals=")
    generator = torch.Generator(weights.device).manual_seed(seed)
    shape = torch.Size([*weights.shape[:-1], num_rows])
    return draw_rows(weights.unsqueeze(-2), intensity.unsqueeze(-3), totals, shape, generator)


def simulate(
    num_rows: int = 300,
    *,
    num_components: int = 4,
    num_features: int = 8,
    family: Family = "poisson",
    mean_total: float = 20.0,
    contrast: float = 6.0,
    seed: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Purchases of customers from segments with tastes of their own; float64.

    Parameters
    ----------
    num_rows : int
        Customers.
    num_components : int
        Segments.
    num_features : int
        Products. Product d is a favourite of segment d mod K.
    mean_total : float
        Expected number of purchases of a customer, at least 1; every multinomial row has one at least.
    contrast : float
        How many times more often a segment buys its favourites.

    Returns
    -------
    x : Tensor, shape (num_rows, num_features)
    truth : dict
        ``weights``, ``rate`` or ``probs``, and ``component``, the true segment of each row.
    """
    check(num_components, family, num_rows)
    if not mean_total >= 1 or not contrast > 0 or num_features < 1:
        raise ValueError("mixture: simulate needs mean_total >= 1, contrast > 0 and num_features >= 1")
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(num_components, 5.0))
    favourite = np.arange(num_features) % num_components == np.arange(num_components)[:, None]
    profile = rng.gamma(5.0, size=(num_components, num_features)) * np.where(favourite, contrast, 1.0)
    profile /= profile.sum(1, keepdims=True)
    component = rng.choice(num_components, size=num_rows, p=weights)
    if family == "poisson":
        name, value = "rate", mean_total * profile
        x = rng.poisson(value[component])
    else:
        name, value = "probs", profile
        x = rng.multinomial(1 + rng.poisson(mean_total - 1, size=num_rows), profile[component])
    truth = {"weights": weights, name: value, "component": component}
    return torch.tensor(x, dtype=torch.float64), {key: torch.tensor(array) for key, array in truth.items()}


def _read(
    x: Tensor | None,
    num_components: int,
    family: Family,
    prior: Prior | None,
    num_rows: int | None,
    totals: Tensor | float | None,
) -> tuple[Prior, int, Tensor | None]:
    """The prior, the number of rows and, if they are multinomial, their totals."""
    if x is not None:
        totals = x.sum(-1) if family == "multinomial" else None
        return prior_of(x, num_components, family, prior), len(x), totals
    if prior is None or num_rows is None or (family == "multinomial" and totals is None):
        needed = "prior=, num_rows= and totals=" if family == "multinomial" else "prior= and num_rows="
        raise ValueError(f"mixture: to draw data, give {needed}")
    check(num_components, family, num_rows)
    check_prior(prior, family)
    if family == "poisson":
        return prior, num_rows, None
    return prior, num_rows, torch.as_tensor(totals).to(prior.shape).expand(num_rows)


def _sample_globals(x: Tensor | None, num_components: int, family: Family, prior: Prior) -> tuple[Tensor, Tensor]:
    of_weights, of_components = distributions(prior, num_components, prior.shape if x is None else x)
    even: Any = {"init": lambda: torch.full_like(of_weights.mean, 1 / num_components)}
    weights = pyro.sample("weights", of_weights, infer=even)  # a start with few rows to one component may lose it
    start = _start(x, num_components, family, prior)
    return weights, pyro.sample(site_name(prior), of_components, infer=start)


def _start(x: Tensor | None, num_components: int, family: Family, prior: Prior) -> InferDict:
    """Where a fit to data may start, as a site's ``infer``: the posterior mean where rows are clustered by k-means."""
    if x is None:
        return {}

    def value() -> Tensor:
        counts, sums = (found.to(x) for found in cluster(x, num_components, family, tries=10))
        return factors(posterior(prior, counts, sums))[site_name(prior)].mean

    return {"init": value}  # pyright: ignore[reportReturnType] (Pyro passes keys on that InferDict does not list)
