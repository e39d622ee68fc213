"""What rows of known components make of the conjugate prior."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Dirichlet, Distribution, Gamma

from .._shared.responsibilities import chunks
from .._shared.steps import Params
from .distributions import coefficient
from .prior import Family, Prior, check, check_prior, counts_of, default_prior


class Rows(NamedTuple):
    """Data, and all that they alone determine.

    Attributes
    ----------
    x : Tensor, shape (n, d)
        Any floating-point type.
    prior : Prior
        The one given, or the default in float64.
    log_coefficient : Tensor, scalar
        Logarithms of the factorials in the density, summed over the rows, in nats.
    """

    x: Tensor
    prior: Prior
    log_coefficient: Tensor

    def columns(self) -> Iterator[Tensor]:
        """Yield the rows as columns, a chunk at a time, in float64."""
        return (part.mT for part in chunks(self.x, self.x.shape[1]))


def prepare(x: Tensor | Rows, num_components: int, family: Family, prior: Prior | None) -> Rows:
    """Return data with what they alone determine; unchanged if it is there already.

    Raises
    ------
    ValueError
        If the data are no counts, or for options or a prior that no mixture of them can have.
    """
    if isinstance(x, Rows):
        return x
    x = counts_of(x)
    check(num_components, family, len(x))
    prior = prior or default_prior(x, num_components, family, torch.float64)
    check_prior(prior, family)
    parts = [coefficient(part, family == "multinomial").sum() for part in chunks(x, x.shape[1])]
    return Rows(x, prior, torch.stack(parts).sum())


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
