"""Densities of a mixture of counts at given parameters, and counts drawn at them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared import information
from .._shared.steps import Params
from .distributions import IMPOSSIBLE, CountMixture, coefficient, draw_rows, finite_log


def log_joint(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "*batch n k"]:
    """Return log p(x[n], component k | sites) for every row and component, in nats.

    Parameters
    ----------
    sites : dict
        ``weights`` (…, k), and ``rate`` (…, k, d) of a Poisson mixture or ``probs`` (…, k, d) of a multinomial one,
        with any dimensions on the left.
    x : Tensor, shape (n, d)
    """
    weights, intensity = sites["weights"], sites["rate"] if "rate" in sites else sites["probs"]
    if x.dtype != weights.dtype or x.device != weights.device:
        x = x.to(weights)
    totals = None if "rate" in sites else x.sum(-1)
    return CountMixture(weights.unsqueeze(-2), intensity.unsqueeze(-3), totals, validate_args=False).log_joint(x)


def observed_log_joint(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "*batch n k"]:
    """Return log p(entries of x[n] that are not NaN, component k | sites), in nats, of a Poisson mixture.

    Arguments as for `log_joint`.
    """
    seen = ~x.isnan()
    counts, rate = torch.where(seen, x, 0.0).to(sites["rate"]), sites["rate"]
    exponents = torch.cat([counts, seen.to(counts)], -1)
    theta = torch.cat([finite_log(rate), -rate], -1)
    product = exponents @ theta.mT
    product = torch.where(product < IMPOSSIBLE, -math.inf, product)
    return product + sites["weights"].log().unsqueeze(-2) + coefficient(counts, multinomial=False).unsqueeze(-1)


def log_likelihood(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "*batch n"]:
    """Return log p(x[n] | sites) for every row, in nats, the component summed out; arguments as for `log_joint`."""
    return log_joint(sites, x).logsumexp(-1)


def responsibilities(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "*batch n k"]:
    """Return p(component | row, sites); nan if no component can have the row. Arguments as for `log_joint`."""
    return log_joint(sites, x).softmax(-1)


def num_parameters(sites: Params) -> int:
    """Return the number of free parameters of the mixture with these sites, as `log_joint` takes them."""
    num_components, columns = (sites["rate"] if "rate" in sites else sites["probs"]).shape[-2:]
    return num_components - 1 + num_components * (columns if "rate" in sites else columns - 1)


def bic(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "*batch"]:
    """Return the Bayesian information criterion in nats, higher is better: Schwarz (1978).

    ``sites`` (as for `log_joint`) should be the maximum of the likelihood that `em` finds.
    """
    return information.bic(log_likelihood(sites, x), num_parameters(sites))


def icl(sites: Params, x: Float[Tensor, "n d"]) -> Float[Tensor, "*batch"]:
    """Return the integrated completed likelihood in nats, higher is better: Biernacki, Celeux and Govaert (2000).

    `bic` less the entropy of the rows' components; arguments as there.
    """
    return information.icl(log_joint(sites, x), num_parameters(sites))


def posterior_predictive(
    sites: Params, rows: int | Float[Tensor, "n d"], *, totals: Tensor | None = None, seed: int = 0
) -> Float[Tensor, "*batch n d"]:
    """Draw one data set for each draw of the sites.

    Parameters
    ----------
    sites : dict
        ``weights`` and ``rate`` or ``probs``, with any dimensions on the left.
    rows : int or Tensor
        How many rows, or data whose number of rows (and totals) to adopt.
    totals : Tensor, shape (n,), optional
        Totals of multinomial rows if ``rows`` is a number.
    seed : int

    Raises
    ------
    ValueError
        If totals of multinomial rows are missing.
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
