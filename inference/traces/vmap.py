"""``torch.vmap`` where it works, a loop where it does not."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

# What vmap raises for code that it cannot map: a Python branch on a value, an operation without a batching rule.
UNMAPPABLE = (RuntimeError, ValueError, TypeError, NotImplementedError)


def map_rows(function: Callable[[Any], Any], rows: Any, *, chunk_size: int | None = None) -> Any:
    """Apply a function to every row of one or more tensors and stack the results.

    Parameters
    ----------
    function : callable
        Takes one row, shaped like ``rows`` without the leading dimension; returns tensors, nested in any way.
    rows : Tensor, or tensors in a dict, tuple or list
        All of the same length.
    chunk_size : int, optional
        Rows mapped at once; default: all.
    """
    try:
        return torch.vmap(function, chunk_size=chunk_size)(rows)
    except UNMAPPABLE:
        leaves, structure = pytree.tree_flatten(rows)
        results = [function(pytree.tree_unflatten(list(row), structure)) for row in zip(*leaves, strict=True)]
        return pytree.tree_map(lambda *values: torch.stack(values), *results)
