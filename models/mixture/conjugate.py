"""What rows of known components make of the conjugate prior."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Dirichlet, Distribution, Gamma

from .._shared.blocks import is_blocks
from .._shared.responsibilities import chunks
from .._shared.row_weights import checked_weights
from .._shared.steps import Params
from .distributions import coefficient
from .prior import Family, Prior, check, check_prior, counts_of, default_prior


class Rows(NamedTuple):
    """Data, and all that they alone determine.

    Attributes
    ----------
    x : Tensor, shape (n, d)
        Any floating-point type; or blocks of them.
    prior : Prior
        The one given, or the default in float64.
    log_coefficient : Tensor, scalar
        Logarithms of the factorials in the density, summed over the rows, in nats.
    row_weights : Tensor, shape (n,), or None
        How many times each row counts; None for once.
    seen : Tensor of bool, shape (n, d), or None
        Which entries are not missing; the others are zero in ``x``.
    """

    x: Any  # Tensor or Blocks
    prior: Prior
    log_coefficient: Tensor
    row_weights: Tensor | None = None
    seen: Tensor | None = None

    def columns(self) -> Iterator[Tensor]:
        """Yield the rows as columns, a chunk at a time, in float64; below them, if any are missing, which are seen."""
        width = self.x.shape[1]
        if self.seen is None:
            return (part.mT for part in chunks(self.x, width))
        pairs = zip(chunks(self.x, width), chunks(self.seen, width), strict=True)
        return (torch.cat([part, seen], 1).mT for part, seen in pairs)


def prepare(
    x: Any,
    num_components: int,
    family: Family,
    prior: Prior | None,
    row_weights: Tensor | None = None,
    *,
    missing: bool = False,
) -> Rows:
    """Return data with what they alone determine; unchanged if it is there already. ``missing`` says what NaN are.

    ``x`` is a tensor, `Blocks`, or the result.

    Raises
    ------
    ValueError
        If the data are no counts, or for options, a prior or weights that no mixture of them can have.
    """
    if isinstance(x, Rows):
        return x
    if missing and is_blocks(x):
        raise ValueError("mixture: missing values need all rows in memory, and these come in blocks")
    seen = ~x.isnan() if missing and x.isnan().any() else None
    filled = counts_of(x if seen is None else with_means(x))
    row_weights = checked_weights("mixture", row_weights, len(filled))
    check(num_components, family, len(filled) if row_weights is None else int((row_weights > 0).sum()))
    prior = prior or default_prior(filled, num_components, family, torch.float64, row_weights)
    x = filled if seen is None else torch.where(seen, filled, 0.0)
    check_prior(prior, family)
    total, start = torch.zeros((), dtype=torch.float64, device=x.device), 0
    for part in chunks(x, x.shape[1]):
        logs = coefficient(part, family == "multinomial")
        total += logs.sum() if row_weights is None else logs @ row_weights[start : start + len(part)]
        start += len(part)
    return Rows(x, prior, total, row_weights, seen)


def with_means(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return rows with each NaN replaced by its column's mean, rounded to a count; ValueError if a column has none."""
    if (column := x.isnan().all(0).nonzero()).numel():
        raise ValueError(f"mixture: column {int(column[0])} has no value")
    return torch.where(x.isnan(), x.nanmean(0).round(), x)


def posterior(prior: Prior, counts: Float[Tensor, "*batch k"], sums: Float[Tensor, "*batch k d"]) -> Params:
    """Return the posterior's parameters, given the (effective) number of rows per component and their sums.

    These are ``weights.concentration``, shape (…, k), and, shape (…, k, d), ``probs.concentration``, or
    ``rate.concentration`` and ``rate.rate``: of Dirichlet and gamma distributions.
    """
    weights = {"weights.concentration": prior.concentration + counts}
    if prior.inverse_scale is None:
        return weights | {"probs.concentration": prior.shape + sums}
    rate = (prior.inverse_scale + counts.unsqueeze(-1)).expand_as(sums)
    return weights | {"rate.concentration": prior.shape + sums, "rate.rate": rate}


def factors(params: Params) -> dict[str, Distribution]:
    """Return the distributions whose parameters `posterior` returns, by name of the site."""
    weights = Dirichlet(params["weights.concentration"], validate_args=False)
    if "rate.rate" in params:
        return {"weights": weights, "rate": Gamma(params["rate.concentration"], params["rate.rate"], False)}
    return {"weights": weights, "probs": Dirichlet(params["probs.concentration"], validate_args=False)}


def prior_factors(prior: Prior, counts: Tensor, sums: Tensor) -> dict[str, Distribution]:
    """Return the prior's own distributions, in the shapes that `factors` has for such counts and sums."""
    return factors(posterior(prior, torch.zeros_like(counts), torch.zeros_like(sums)))


def sum_over_sites(value: Tensor, like: Tensor) -> Tensor:
    """Sum over the dimensions that ``like`` does not have."""
    return value.reshape(*like.shape, -1).sum(-1)
