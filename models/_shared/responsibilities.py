"""Rows shared out among the components of a mixture, in two matrix products a chunk of rows.

Where a component's log density is linear in features φ(x) of a row, as in every exponential family,

    log p(x[n], component k) = c[k] + θ[k] · φ(x[n]),

an E-step is one product, θ φ, and all that an M-step asks for is another, r φᵀ with r the softmax of the first over the
components. Rows pass by in chunks, in float64 whatever their own type: beside the data, memory holds a chunk.

References
----------
1. Bishop (2006), Pattern Recognition and Machine Learning, sections 2.4 and 9.4: the exponential family, and EM.
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

_ELEMENTS = 2**20  # numbers in a chunk's features: 8 MB
_MOST_ROWS = 2**12
_LEAST = -600.0  # exponents below count as minus infinity: exp takes fifty times as long where it ends near zero


class Shared(NamedTuple):
    """What sharing rows out gives.

    Attributes
    ----------
    log_norm : Tensor, shape (...)
        Σ_n log Σ_k p(x[n], component k), in nats.
    counts : Tensor, shape (..., k)
        Rows to each component's name: Σ_n r[n, k].
    sums : Tensor, shape (..., k, f)
        Σ_n r[n, k] φ(x[n]).
    """

    log_norm: Tensor
    counts: Tensor
    sums: Tensor


def share_out(
    constant: Float[Tensor, "*batch k"], theta: Float[Tensor, "*batch k f"], blocks: Iterable[Shaped[Tensor, "f _"]]
) -> Shared:
    """One pass over the rows.

    Parameters
    ----------
    constant : Tensor, shape (..., k)
        c, in nats.
    theta : Tensor, shape (..., k, f)
        Natural parameters.
    blocks : iterable of Tensor, shape (f, rows of a chunk)
        φ, in the type of ``theta``. A block may be overwritten once the next one is asked for.
    """
    shape = constant.shape
    flat, offset = theta.reshape(-1, theta.shape[-1]), constant.reshape(-1, 1)
    total = None
    for features in blocks:
        joint = torch.addmm(offset, flat, features)
        shares = joint.view(*shape, -1)
        part = Shared(normalise_(shares).sum(-1), shares.sum(-1), (joint @ features.mT).view(theta.shape))
        total = part if total is None else Shared(*(old.add_(new) for old, new in zip(total, part, strict=True)))
    if total is None:
        raise ValueError("products: there are no rows")
    return total


def normalise_(joint: Float[Tensor, "*batch k n"]) -> Float[Tensor, "*batch n"]:
    """Turn log joint densities into shares r, in place, and return the logarithm of what they were divided by."""
    top = joint.amax(-2, keepdim=True)
    joint.sub_(top).clamp_(min=_LEAST).exp_()
    torch.threshold_(joint, math.exp(_LEAST) * 2, 0.0)
    total = joint.sum(-2, keepdim=True)
    joint.mul_(total.reciprocal())
    return top.add_(total.log_()).squeeze(-2)


def entropy(shared: Shared, constant: Tensor, theta: Tensor) -> Tensor:
    """-Σ_nk r log r in nats, shape (...), of shares that have these natural parameters."""
    return shared.log_norm - (constant * shared.counts).sum(-1) - (theta * shared.sums).sum((-1, -2))


def chunks(x: Shaped[Tensor, "n d"], num_features: int) -> Iterator[Float[Tensor, "_ d"]]:
    """Rows in float64, as many at a time as have room with ``num_features`` features each."""
    for part in x.split(rows_at_once(num_features)):
        yield part.double()


def rows_at_once(num_features: int) -> int:
    """How many rows of so many features make a chunk."""
    return max(1, min(_MOST_ROWS, _ELEMENTS // num_features))


def moments(x: Shaped[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Mean and covariance (with 1/n) of the rows, in float64."""
    mean = torch.stack([part.sum(0) for part in chunks(x, x.shape[1])]).sum(0) / len(x)
    square = mean.new_zeros(len(mean), len(mean))
    for part in chunks(x, x.shape[1]):
        centred = part - mean
        square.addmm_(centred.mT, centred)
    return mean, square / len(x)
