"""Operations that are no loops over entries, as C++: products of matrices, and what moves or adds up entries."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from . import moves, small_matrices
from .small_matrices import Unsupported
from .works import literal, named_arguments

aten = torch.ops.aten


def whole(node: Node, value: Callable[[Any], Tensor], place: Callable[[Tensor], str], varying: set[Node]) -> list[str]:
    """Return a node's C++.

    ``value`` gives an example of a node's result and ``place`` a pointer to it; the results of nodes that are not
    ``varying`` never change.
    """
    name, arguments = named_arguments(node)
    out = value(node)
    if name in _MATRICES:
        given = {
            key: value(argument) if isinstance(argument, Node) else argument for key, argument in arguments.items()
        }
        function, tensors, scalars = _MATRICES[name](out, given)
        if len({tensor.dtype for tensor in tensors}) > 1:
            raise Unsupported("it has matrices of several types")
        return [f"{function}({', '.join(map(place, tensors))}{scalars});"]
    if any(source in varying and not value(source).is_floating_point() for source in node.all_input_nodes):
        raise Unsupported("it looks up what it computes")
    return _added(name, arguments, out, value, place) if name in moves.ADDITIONS else _moved(node, out, value, place)


def _moved(node: Node, out: Tensor, value: Callable[[Any], Tensor], place: Callable[[Tensor], str]) -> list[str]:
    sources: list[Tensor] = []

    def example(argument: Any) -> Any:
        if isinstance(argument, Node):
            return value(argument)
        return type(argument)(map(example, argument)) if isinstance(argument, (list, tuple)) else argument

    def is_source(tensor: Tensor) -> bool:
        if tensor.is_floating_point():
            sources.append(tensor)
        return tensor.is_floating_point()

    if not out.is_floating_point():
        raise Unsupported(f"{node.target} moves no numbers")
    args, rest = tuple(map(example, node.args)), "0"
    if node.target is aten.constant_pad_nd.default and len(args) == 3:
        args, rest = args[:2], literal(args[2])
    found, begins = moves.origins(node.target, args, dict(node.kwargs), is_source)  # pyright: ignore
    codes = (found[0] if isinstance(found, (tuple, list)) else found).reshape(-1)
    which = torch.bucketize(codes, torch.tensor(begins), right=True) - 1
    origin = torch.zeros_like(codes)
    for number, source in enumerate(sources):
        chosen = which == number
        origin[chosen] = torch.from_numpy(moves.offsets(source))[codes[chosen] - begins[number]]
    pointers = [place(source) for source in sources]
    return moves.copies(place(out), moves.offsets(out), pointers, which.numpy(), origin.numpy(), rest)


def _added(
    name: str, arguments: dict[str, Any], out: Tensor, value: Callable[[Any], Tensor], place: Callable[[Tensor], str]
) -> list[str]:
    if arguments.get("alpha", 1) != 1:
        raise Unsupported("it adds multiples")
    base = value(arguments["self"])
    entries = torch.arange(base.numel()).reshape(base.shape)
    source = value(next(arguments[key] for key in ("source", "src", "values") if key in arguments))
    if name == "index_put":
        to = entries[tuple(slice(None) if index is None else value(index) for index in arguments["indices"])]
        source = source.expand(to.shape)
    else:
        pick = torch.gather if name == "scatter_add" else torch.index_select
        to = pick(entries, arguments["dim"], value(arguments["index"]))
    from_base = np.zeros(base.numel(), dtype=np.int64)
    start = moves.copies(place(out), moves.offsets(out), [place(base)], from_base, moves.offsets(base))
    into = moves.offsets(out)[to.reshape(-1).numpy()]
    replace = name == "index_put" and not arguments["accumulate"]
    return [*start, *moves.additions(place(out), into, place(source), moves.offsets(source), replace=replace)]


def _product(out: Tensor, given: dict[str, Any]) -> small_matrices.Call:
    return small_matrices.product(out, given["self"], given["mat2"], out, 1, 0)


def _addmm(out: Tensor, given: dict[str, Any]) -> small_matrices.Call:
    return small_matrices.product(given["self"], given["mat1"], given["mat2"], out, given["alpha"], given["beta"])


def _solution(out: Tensor, given: dict[str, Any]) -> small_matrices.Call:
    how = {name: given[name] for name in ("upper", "left", "unitriangular")}
    return small_matrices.solution(given["self"], given["B"], out, **how)


def _factor(out: Tensor, given: dict[str, Any]) -> small_matrices.Call:
    if given["upper"]:
        raise Unsupported("it has upper factors")
    return small_matrices.factor(given["self"], out)


_MATRICES = {
    "mm": _product,
    "bmm": _product,
    "addmm": _addmm,
    "linalg_solve_triangular": _solution,
    "linalg_cholesky_ex": _factor,
}
WHOLE = {*_MATRICES, *moves.MOVES, *moves.ADDITIONS}
