"""The conjugate prior of a mixture of counts, what it makes of counted rows, and which data it takes."""

import functools
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import pyro.distributions as dist
import torch
from jaxtyping import Float, Shaped
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from .._shared.responsibilities import chunks, rows_at_once
from .._shared.steps import Params

MOST_ROWS = 100_000  # among which k-means looks for clusters

Family = Literal["poisson", "multinomial"]


class Prior(NamedTuple):
    """Conjugate prior of a mixture of counts.

    Attributes
    ----------
    concentration : float
        c: of the symmetric Dirichlet over the weights.
    shape : Tensor, shape (d,)
        a: of the gamma distribution of a rate, or of the Dirichlet over a component's probabilities; in counts.
    inverse_scale : Tensor, shape (d,), or None
        b: of the gamma distribution of a rate, in rows; None for the multinomial family.
    """

    concentration: float
    shape: Tensor
    inverse_scale: Tensor | None


def default_prior(x: Float[Tensor, "n d"], num_components: int, family: Family = "poisson") -> Prior:
    """Weakly informative prior in the data's own units.

    A rate is Gamma(2, 2 / m): its mean is the column's own mean m, its standard deviation .7 m. Probabilities are
    Dirichlet(1 + d f), the mode of which is f, the columns' shares of all counts: d counts on top of a component's
    own move it there. Both densities are zero where a rate or a probability is, so that modes lie inside. A column
    without any count is taken to have one. The concentration of the weights is 5, so that no component starves.

    Raises
    ------
    ValueError
        If the data are no counts, or for options that no mixture of them can have.
    """
    return _default_prior(x, num_components, family, x.dtype)


def _default_prior(x: Tensor, num_components: int, family: Family, dtype: torch.dtype) -> Prior:
    check(num_components, family, len(x))
    check_counts(x)
    totals = torch.stack([part.sum(0) for part in chunks(x, x.shape[1])]).sum(0).clamp(min=1)
    if family == "multinomial":
        return Prior(5.0, (1 + len(totals) * totals / totals.sum()).to(dtype), None)
    return Prior(5.0, torch.full_like(totals, 2.0, dtype=dtype), (2 * len(x) / totals).to(dtype))


def check_counts(x: Shaped[Tensor, "n d"], columns: Sequence[str] | None = None) -> None:
    """Raise ValueError, naming row and column, unless every entry is a whole number from zero up.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    columns : sequence of str, optional
        Names of the columns, for the message; their numbers, from 0, where left out.
    """
    if not x.is_floating_point():
        raise ValueError(f"mixture: counts must be in a floating-point tensor, got {x.dtype}: use x.double()")
    size = rows_at_once(x.shape[1])
    for start, part in enumerate(x.split(size)):
        wrong = ~((part >= 0) & (part % 1 == 0) & torch.isfinite(part))
        if wrong.any():
            row, column = wrong.nonzero()[0].tolist()
            name = column if columns is None else repr(columns[column])
            raise ValueError(
                f"mixture: row {start * size + row}, column {name} holds {float(part[row, column]):g}, "
                "but counts are whole numbers from zero up"
            )


def check(num_components: int, family: str, rows: int) -> None:
    """Raise ValueError for options that no mixture of this many rows can have."""
    if family not in get_args(Family):
        raise ValueError(f"mixture: family must be one of {', '.join(get_args(Family))}, got {family!r}")
    if not 1 <= num_components <= rows:
        raise ValueError(
            f"mixture: num_components must lie between 1 and the number of rows, {rows}; got {num_components}"
        )


def check_prior(prior: Prior, family: Family) -> None:
    """Raise ValueError for a prior of the other family."""
    if (prior.inverse_scale is None) != (family == "multinomial"):
        raise ValueError(f"mixture: the prior given is not one of family={family!r}: see default_prior")


@functools.lru_cache(maxsize=4)
def remembered_prior(x: Tensor, version: int, num_components: int, family: Family, dtype: torch.dtype) -> Prior:
    """`default_prior`, worked out once for a tensor, as a model runs often; ``version`` counts the tensor's changes."""
    return _default_prior(x, num_components, family, dtype)


def prior_of(
    x: Tensor, num_components: int, family: Family, prior: Prior | None, dtype: torch.dtype | None = None
) -> Prior:
    """The prior given, or the default, in ``dtype`` or x's own; ValueError if it does not suit the options."""
    check(num_components, family, len(x))
    prior = prior or remembered_prior(x, x._version, num_components, family, dtype or x.dtype)
    check_prior(prior, family)
    return prior


def site_name(prior: Prior) -> str:
    """Name of the site of the components' parameters."""
    return "probs" if prior.inverse_scale is None else "rate"


def distributions(
    prior: Prior, num_components: int, like: Tensor, validate_args: bool | None = None
) -> tuple[Any, Any]:
    """Pyro's distributions of the weights, and of the components' rates or probabilities, under the prior."""
    concentration = like.new_full((num_components,), prior.concentration)
    weights = dist.Dirichlet(concentration, validate_args=validate_args)
    if prior.inverse_scale is None:
        return weights, dist.Dirichlet(prior.shape, validate_args=validate_args).expand_by([num_components]).to_event(1)
    gamma = dist.Gamma(prior.shape, prior.inverse_scale, validate_args=validate_args)
    return weights, gamma.expand_by([num_components]).to_event(2)


def posterior(prior: Prior, counts: Float[Tensor, "*batch k"], sums: Float[Tensor, "*batch k d"]) -> Params:
    """Parameters of the posterior once every row has its component.

    Parameters
    ----------
    prior : Prior
    counts : Tensor, shape (…, k)
        How many rows each component has.
    sums : Tensor, shape (…, k, d)
        Their sums.

    Returns
    -------
    dict
        ``weights.concentration``, shape (…, k), and, shape (…, k, d), ``probs.concentration``, or
        ``rate.concentration`` and ``rate.rate``: of Dirichlet and gamma distributions.
    """
    weights = {"weights.concentration": prior.concentration + counts}
    if prior.inverse_scale is None:
        return weights | {"probs.concentration": prior.shape + sums}
    rate = (prior.inverse_scale + counts.unsqueeze(-1)).expand_as(sums)
    return weights | {"rate.concentration": prior.shape + sums, "rate.rate": rate}


def factors(params: Params) -> dict[str, torch.distributions.Distribution]:
    """The distributions whose parameters `posterior` returns, by name of the site."""
    found: dict[str, torch.distributions.Distribution] = {
        name: torch.distributions.Dirichlet(params[f"{name}.concentration"], validate_args=False)
        for name in ("weights", "probs")
        if f"{name}.concentration" in params
    }
    if "rate.rate" in params:
        found["rate"] = torch.distributions.Gamma(params["rate.concentration"], params["rate.rate"], False)
    return found


def cluster(x: Float[Tensor, "n d"], num_components: int, family: Family, tries: int = 1) -> tuple[Tensor, Tensor]:
    """How many rows each cluster of k-means has, shape (k,), and their sums, shape (k, d); the randomness is torch's.

    Distances are between square roots, of counts or of a row's proportions, whose variance hardly depends on the mean.
    One try in five ends in clusters that halve a segment and join two others: of ``tries`` the best is returned. Of
    more than 100,000 rows as many at random are looked at. Both results are in float64.
    """
    if len(x) > MOST_ROWS:
        x = x[torch.randint(len(x), (MOST_ROWS,), device=x.device)]
    x = x.detach().double()
    scaled = x / x.sum(-1, keepdim=True).clamp(min=1) if family == "multinomial" else x
    seed = int(torch.randint(2**31 - 1, ()))
    k_means = KMeans(num_components, n_init=tries, random_state=seed)  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: some stay empty
        labels = k_means.fit(scaled.sqrt().cpu().numpy()).labels_
    member = torch.nn.functional.one_hot(torch.as_tensor(labels, device=x.device).long(), num_components).to(x)
    return member.sum(0), member.mT @ x


def pick(x: Float[Tensor, "n d"], num_components: int) -> tuple[Tensor, Tensor]:
    """Clusters of one random row each, as `cluster` has them."""
    chosen = x[torch.randperm(len(x), device=x.device)[:num_components]].double()
    return chosen.new_ones(num_components), chosen
