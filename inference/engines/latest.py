"""The graphs of the model that was fitted last, for the method that goes on with it: `check` after `dadvi`, say.

Only the latest are kept. Who takes them compares them with the model once more, at a point, before use.
"""

import weakref
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

MAX_NUMBERS = 2_000_000  # entries of the data beyond which nothing is kept: the graphs hold the data


class _Latest(NamedTuple):
    model: weakref.ref
    data: tuple
    shapes: dict[str, torch.Size]
    graphs: dict[Hashable, Callable]


_latest: _Latest | None = None


def graphs_of(model: Callable, data: tuple, shapes: Mapping[str, torch.Size]) -> dict[Hashable, Callable]:
    """Return the graphs by key that were kept for this model, on these data, with sites of these shapes; or none yet.

    What is added to them is kept until another model, or other data, are asked for.
    """
    global _latest
    kept, graphs = _latest, {}
    if kept and kept.model() is model and kept.shapes == shapes and _same(kept.data, data):
        return kept.graphs
    size = sum(value.numel() for value in data if isinstance(value, Tensor))
    try:
        _latest = _Latest(weakref.ref(model), data, dict(shapes), graphs) if size <= MAX_NUMBERS else None
    except TypeError:  # such as an object with slots
        _latest = None
    return graphs


def _same(kept: tuple, data: tuple) -> bool:
    return len(kept) == len(data) and all(_equal(a, b) for a, b in zip(kept, data, strict=True))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (a.dtype, a.device, a.shape) == (b.dtype, b.device, b.shape) and torch.equal(a, b)
    return a is b or (type(a) is type(b) and isinstance(a, int | float | str) and a == b)
