"""Views of tensors in a graph: what a write through a view makes of the tensor behind it."""

from typing import Any

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten
_SAME_NUMBERS = {
    aten.view.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.detach.default,
    aten.alias.default,
}
_TRANSPOSES = {aten.t.default, aten.transpose.int}
_SCATTERS = {
    aten.slice.Tensor: aten.slice_scatter.default,
    aten.select.int: aten.select_scatter.default,
    aten.diagonal.default: aten.diagonal_scatter.default,
    aten.as_strided.default: aten.as_strided_scatter.default,
}
VIEWS = _SAME_NUMBERS | _TRANSPOSES | set(_SCATTERS)


def after_write(graph: Graph, view: Any, arguments: tuple, viewed: Node, written: Node) -> Node:
    """Return the tensor ``viewed`` as it is once its ``view(viewed, *arguments)`` has become ``written``."""
    if view in _SCATTERS:
        return graph.call_function(_SCATTERS[view], (viewed, written, *arguments))
    if view in _TRANSPOSES:
        return graph.call_function(view, (written, *arguments))
    return graph.call_function(aten.reshape.default, (written, list(viewed.meta["val"].shape)))
