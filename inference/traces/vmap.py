"""``torch.vmap`` where it works, a loop where it does not."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

# What vmap raises for code that it cannot map: a Python branch on a value, an operation without a batching rule.
UNMAPPABLE = (RuntimeError, ValueError, TypeError, NotImplementedError)


def map_rows(function: Callable[[Any], Any], rows: Any, *, chunk_size: int | None = None) -> Any:
    """Apply a function to every row of a tensor, or of several of the same length in a dict, and stack the results.

    The function takes one row and returns tensors, nested in any way; what it draws at random differs between rows.
    ``chunk_size`` rows are mapped at once.
    """
    try:
        return torch.vmap(function, chunk_size=chunk_size, randomness="different")(rows)
    except UNMAPPABLE:
        leaves, structure = pytree.tree_flatten(rows)
        results = [function(pytree.tree_unflatten(list(row), structure)) for row in zip(*leaves, strict=True)]
        return pytree.tree_map(lambda *values: torch.stack(values), *results)
