"""The Pyro models of a mixture of counts, and data simulated from it."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

from .._shared.init import init
from .distributions import CountMixture, Counts
from .prior import Family, Prior, check, check_prior, counts_of, remembered_prior
from .start import start_values


def model(
    x: Tensor | None = None,
    *,
    num_components: int = 4,
    family: Family = "poisson",
    prior: Prior | None = None,
    num_rows: int | None = None,
    totals: Tensor | float | None = None,
    marginal: bool = True,
) -> Tensor:
    """Pyro model of rows of counts from a mixture, the component's index summed out.

    Parameters
    ----------
    x : Tensor, shape (n, d), optional
        The counts. Default: drawn from the model, which needs ``num_rows`` and ``prior``.
    num_components : int
        K.
    family : {"poisson", "multinomial"}
        Independent Poissons, or a multinomial given the row's total.
    prior : Prior, optional
        Default: `default_prior` of the data.
    num_rows : int, optional
        How many rows to draw if there is no ``x``.
    totals : Tensor, shape (num_rows,), or float, optional
        Totals of the multinomial rows to draw; default: those of ``x``.
    marginal : bool
        Whether to sum the component's index out; else it is a site, as in `latent_model`.

    Returns
    -------
    Tensor, shape (n, d)
        The counts.

    Raises
    ------
    ValueError
        For an unknown family, more components than rows, a prior of the other family, or data that are not counts
        (which the default prior finds).
    """
    x = None if x is None else counts_of(x)
    prior, num_rows, totals = _resolve(x, num_components, family, prior, num_rows, totals)
    start = init(None if x is None else lambda: start_values(x, num_components, family, prior))

    # Globals.
    concentration = (prior.shape if x is None else x).new_full((num_components,), prior.concentration)
    weights = pyro.sample("weights", dist.Dirichlet(concentration), infer=start("weights"))
    if prior.inverse_scale is not None:  # Poisson
        rate = dist.Gamma(prior.shape, prior.inverse_scale).expand_by([num_components]).to_event(2)
        intensity = pyro.sample("rate", rate, infer=start("rate"))
    else:
        probs = dist.Dirichlet(prior.shape).expand_by([num_components]).to_event(1)
        intensity = pyro.sample("probs", probs, infer=start("probs"))

    # Locals.
    with pyro.plate("rows", num_rows, dim=-1):
        if marginal:
            return pyro.sample("x", CountMixture(weights, intensity, totals), obs=x)
        z = pyro.sample("z", dist.Categorical(weights))
        return pyro.sample("x", Counts(Vindex(intensity)[..., z, :], totals), obs=x)


latent_model = functools.partial(model, marginal=False)
"""`model` with each row's component explicit, as site ``z``, shape (n): for enumeration."""


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
    """Simulate purchases of customers from segments with different tastes; float64.

    Parameters
    ----------
    num_rows : int
        Customers.
    num_components : int
        Segments.
    num_features : int
        Products. Product d is a favourite of segment d mod K.
    mean_total : float
        Expected number of purchases per customer, at least 1; every multinomial row has at least one.
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


def _resolve(
    x: Tensor | None,
    num_components: int,
    family: Family,
    prior: Prior | None,
    num_rows: int | None,
    totals: Tensor | float | None,
) -> tuple[Prior, int, Tensor | None]:
    """The prior, the number of rows and, if they are multinomial, their totals: given, or those of the data."""
    multinomial = family == "multinomial"
    if x is not None:
        num_rows, totals = len(x), x.sum(-1)
    elif prior is None or num_rows is None or (multinomial and totals is None):
        needed = "prior=, num_rows= and totals=" if multinomial else "prior= and num_rows="
        raise ValueError(f"mixture: to draw data, give {needed}")
    check(num_components, family, num_rows)
    prior = prior or remembered_prior(x, num_components, family)
    check_prior(prior, family)
    return prior, num_rows, torch.as_tensor(totals).to(prior.shape).expand(num_rows) if multinomial else None
