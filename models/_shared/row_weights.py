"""Weights of rows: a row of weight w counts as w rows like it."""

import torch
from torch import Tensor

from .blocks import Blocks, random_places


def checked_weights(name: str, row_weights: Tensor | None, num_rows: int) -> Tensor | None:
    """Return weights in float64; ValueError, which begins with ``name``, unless each row has one that a count can be.

    They are finite, none is negative, and one at least is positive.
    """
    if row_weights is None:
        return None
    if row_weights.shape != (num_rows,):
        raise ValueError(
            f"{name}: weights must be one number for each of the {num_rows} rows, got shape {tuple(row_weights.shape)}"
        )
    wrong = ~(torch.isfinite(row_weights) & (row_weights >= 0))
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"{name}: weights must be numbers from zero up, got {float(row_weights[row]):g} in row {row}")
    if not (row_weights > 0).any():
        raise ValueError(f"{name}: the weights of all rows are zero")
    return row_weights.double()


def random_rows(x: Tensor | Blocks, number: int, row_weights: Tensor | None) -> Tensor:
    """Return different rows at random, as likely as their weights."""
    if row_weights is None:
        return x[random_places(x, number)]
    return x[weighted_places(row_weights, number)]


def weighted_places(weights: Tensor, number: int) -> Tensor:
    """Return different places at random, one after the other, each as likely as its weight is among those left.

    As ``torch.multinomial`` does with up to 2²⁴ weights: an exponential time passes for each, the faster the larger it
    is, and the first ones are taken (Efraimidis and Spirakis 2006, Weighted random sampling with a reservoir,
    Information Processing Letters 97).
    """
    return (weights / torch.empty_like(weights).exponential_()).topk(number).indices
