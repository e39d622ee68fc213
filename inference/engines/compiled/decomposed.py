"""Operations that are taken apart before a graph is lowered to C++."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..record import record

aten = torch.ops.aten


def decomposed(graph: GraphModule, inputs: Sequence[Tensor]) -> GraphModule:
    """Return a graph without the operations of `_RULES`."""
    if not any(node.target in _RULES for node in graph.graph.nodes):
        return graph
    return record(graph, inputs, lambda target: target not in _RULES, rules=_RULES, draws=True).module()


def _largest(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Return the largest entries (keeping ``dim``), or zero where they are infinite."""
    largest = x.amax(dim, True)
    return torch.where(largest.abs() == torch.inf, torch.zeros_like(largest), largest)


def _logsumexp(x: Tensor, dims: Sequence[int], keepdim: bool = False) -> Tensor:
    dim = tuple(dims)
    largest = _largest(x, dim)
    total = (x - largest).exp().sum(dim, True).log() + largest
    return total if keepdim else total.squeeze(dim)


def _log_softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    shifted = x - _largest(x, dim)
    return shifted - shifted.exp().sum(dim, True).log()


def _log_softmax_backward(grad: Tensor, output: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
    return grad - output.exp() * grad.sum(dim, True)


def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    numbers = (x - _largest(x, dim)).exp()
    return numbers / numbers.sum(dim, True)


def _softmax_backward(grad: Tensor, output: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
    weighted = grad * output
    return weighted - output * weighted.sum(dim, True)


_RULES = {
    aten.logsumexp.default: _logsumexp,
    aten._log_softmax.default: _log_softmax,
    aten._log_softmax_backward_data.default: _log_softmax_backward,
    aten._softmax.default: _softmax,
    aten._softmax_backward_data.default: _softmax_backward,
}
