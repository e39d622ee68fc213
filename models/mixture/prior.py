"""The conjugate prior of a mixture of counts, and which data and options it takes."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from .._shared.blocks import Blocks, is_blocks
from .._shared.cache import remembered
from .._shared.inputs import LARGEST, as_floating, check_shape, seen_once
from .._shared.responsibilities import chunk_size, chunks

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


def default_prior(
    x: Float[Tensor, "n d"] | Blocks,
    num_components: int,
    family: Family = "poisson",
    dtype: torch.dtype | None = None,
    row_weights: Float[Tensor, " n"] | None = None,
) -> Prior:
    """Return a weakly informative prior in the data's own units.

    A rate is Gamma(2, 2 / m): its mean is the column's mean m, its standard deviation 0.7 m. Probabilities are
    Dirichlet(1 + d f), whose mode is f, the columns' shares of all counts: the prior adds d counts to a component's
    own. Both densities vanish where a rate or a probability is zero, so modes lie inside. A column without any count
    is taken to have one. The concentration of the weights is 5, so that no component starves.

    The prior's tensors have ``dtype``, default: that of ``x``. ``row_weights`` say how many times each row counts.
    ValueError if the data are no counts, or for options that no mixture of them can have.
    """
    check(num_components, family, len(x))
    check_counts(x)
    dtype = dtype or x.dtype
    if row_weights is None:
        rows, totals = len(x), torch.stack([part.sum(0) for part in chunks(x, x.shape[1])]).sum(0)
    else:
        parts = zip(chunks(x, x.shape[1]), row_weights.split(chunk_size(x.shape[1])), strict=True)
        rows, totals = row_weights.sum(), torch.stack([w @ part for part, w in parts]).sum(0)
    totals = totals.clamp(min=1)
    if family == "multinomial":
        return Prior(5.0, (1 + len(totals) * totals / totals.sum()).to(dtype), None)
    return Prior(5.0, torch.full_like(totals, 2.0, dtype=dtype), (2 * rows / totals).to(dtype))


remembered_prior = remembered(default_prior)


def counts_of(x: Any) -> Any:
    """Return rows of counts in floating point; ValueError unless every entry is a whole number from zero up.

    `Blocks` are read once for that, and returned as they are.
    """
    check_shape("mixture", x)
    if is_blocks(x):
        check_counts(x)
        return x
    return seen_once(x, ("mixture", "counts"), partial(as_floating, "mixture", "x"), check_counts)


def check_counts(x: Shaped[Tensor, "n d"] | Blocks, columns: Sequence[str] | None = None) -> None:
    """Raise ValueError, naming row and column, unless every entry is a whole number from zero up.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    columns : sequence of str, optional
        Names of the columns, for the message; default: their numbers, from 0.
    """
    if isinstance(x, Tensor) and not x.is_floating_point():
        raise ValueError(f"mixture: counts must be in a floating-point tensor, got {x.dtype}: use x.double()")
    size = chunk_size(x.shape[1])
    for start, part in enumerate(x.split(size)):
        wrong = ~((part >= 0) & (part % 1 == 0) & (part <= LARGEST))
        if wrong.any():
            row, column = wrong.nonzero()[0].tolist()
            name = column if columns is None else repr(columns[column])
            raise ValueError(
                f"mixture: row {start * size + row}, column {name} holds {float(part[row, column]):g}, "
                "but counts are whole numbers from zero up, to 2^53 at most"
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
