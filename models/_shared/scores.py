"""Linear scores of rows, bias included, for regressions."""

import torch
from jaxtyping import Float
from torch import Tensor


def scores(w: Float[Tensor, "... p"], x: Float[Tensor, "n d"]) -> Float[Tensor, "... n"]:
    """Return w[0] + x · w[1:] for each row.

    A batch of weights needs a dimension of size one for the rows, as draws under a plate to the left of "rows" have:
    shape (…, 1, d + 1) gives (…, n).
    """
    if w.dim() == 1:
        return w[0] + x @ w[1:]
    return w[..., 0] + (x * w[..., 1:]).sum(-1)  # `x @ w` would contract the wrong dimension of a batch


def scores_of_draws(sites: dict[str, Tensor], x: Float[Tensor, "n d"]) -> Float[Tensor, "... n"]:
    """Return scores, (…, n), of weights ``w`` with any dimensions on the left, (…, d + 1)."""
    w = sites["w"]
    return w[..., :1] + w[..., 1:] @ x.to(w).mT


def design(x: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
    """Return the design matrix: a column of ones, then the features."""
    return torch.cat([x.new_ones(len(x), 1), x], 1)
