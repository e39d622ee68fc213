"""Responsibilities of a mixture's components for rows, and sums weighted by them, in two matrix products per chunk.

If a component's log density is linear in features φ(x) of a row, as in every exponential family,

    log p(x[n], component k) = c[k] + θ[k] · φ(x[n]),

the E-step is one product, θ φ, and all that the M-step needs is another, r φᵀ with r, the responsibilities, the softmax
of the first over the components. Rows are read in chunks, in float64 whatever their own type: beside the data, memory
holds one chunk.

Bishop (2006), Pattern Recognition and Machine Learning, sections 2.4 and 9.4: the exponential family, and EM.
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from .blocks import Blocks

_ELEMENTS = 2**20  # of a chunk's features: 8 MB
_MAX_ROWS = 2**12
_MIN_EXPONENT = -600.0  # below, exp gives 0 at once: near the smallest numbers it is fifty times slower


class WeightedSums(NamedTuple):
    """Sums over rows n, r the responsibilities."""

    log_norm: Tensor  # (...): Σ_n log Σ_k p(x[n], component k), in nats
    counts: Tensor  # (..., k): Σ_n r[n, k], the (effective) number of rows per component
    sums: Tensor  # (..., k, f): Σ_n r[n, k] φ(x[n])


def weighted_sums(
    constant: Float[Tensor, "*batch k"],
    theta: Float[Tensor, "*batch k f"],
    blocks: Iterable[Shaped[Tensor, "f _"]],
    row_weights: Float[Tensor, " n"] | None = None,
) -> WeightedSums:
    """Return sums weighted by responsibilities, in one pass over the rows.

    ``constant`` (..., k) is c, in nats; ``theta`` (..., k, f) are natural parameters; ``blocks`` are φ, each of shape
    (f, rows of a chunk) and in the dtype of ``theta``. One may be overwritten when the next is asked for.
    ``row_weights`` (n) say how many times each row counts; default: once.
    """
    shape, start = constant.shape, 0
    flat, offset = theta.reshape(-1, theta.shape[-1]), constant.reshape(-1, 1)
    total = None
    for features in blocks:
        joint = torch.addmm(offset, flat, features)
        r = joint.view(*shape, -1)
        log_norm = normalise_(r)
        if row_weights is not None:
            times = row_weights[start : (start := start + features.shape[1])]
            log_norm, joint = log_norm * times, joint.mul_(times)
        part = WeightedSums(log_norm.sum(-1), r.sum(-1), (joint @ features.mT).view(theta.shape))
        total = part if total is None else WeightedSums(*(old.add_(new) for old, new in zip(total, part, strict=True)))
    if total is None:
        raise ValueError("mixture: there are no rows")
    return total


def normalise_(joint: Float[Tensor, "*batch k n"]) -> Float[Tensor, "*batch n"]:
    """Replace log joint densities by responsibilities, and return the logarithms of their normalisers."""
    top = joint.amax(-2, keepdim=True)
    joint.sub_(top).clamp_(min=_MIN_EXPONENT).exp_()
    torch.threshold_(joint, math.exp(_MIN_EXPONENT) * 2, 0.0)
    total = joint.sum(-2, keepdim=True)
    joint.mul_(total.reciprocal())
    return top.add_(total.log_()).squeeze(-2)


def entropy(found: WeightedSums, constant: Tensor, theta: Tensor) -> Tensor:
    """Return -Σ_nk r log r in nats, shape (...), given the parameters from which `weighted_sums` found r."""
    return found.log_norm - (constant * found.counts).sum(-1) - (theta * found.sums).sum((-1, -2))


def chunks(x: Shaped[Tensor, "n d"] | Blocks, num_features: int) -> Iterator[Float[Tensor, "_ d"]]:
    """Yield the rows in float64, in chunks that hold ``num_features`` features per row."""
    for part in x.split(chunk_size(num_features)):
        yield part.double()


def chunk_size(num_features: int) -> int:
    """Return the number of rows in a chunk with so many features per row."""
    return max(1, min(_MAX_ROWS, _ELEMENTS // num_features))


def moments(
    x: Shaped[Tensor, "n d"] | Blocks, row_weights: Float[Tensor, " n"] | None = None
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Return mean and covariance (with 1/n) of the rows, in float64; ``row_weights`` as for `weighted_sums`."""
    size = chunk_size(x.shape[1])
    if row_weights is None:
        times, total = [None] * -(-len(x) // size), len(x)
    else:
        times, total = row_weights.unsqueeze(-1).split(size), row_weights.sum()
    parts = zip(chunks(x, x.shape[1]), times, strict=True)
    mean = torch.stack([(part if w is None else w * part).sum(0) for part, w in parts]).sum(0) / total
    square = mean.new_zeros(len(mean), len(mean))
    for part, w in zip(chunks(x, x.shape[1]), times, strict=True):
        centred = part - mean
        square.addmm_(centred.mT, centred if w is None else w * centred)
    return mean, square / total
