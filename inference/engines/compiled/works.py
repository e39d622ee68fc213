"""What a node of a graph computes, as a loop over entries: read, compute, and store or sum up."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node

from . import pointwise

TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int",
    torch.bool: "bool",
}


class Operand(NamedTuple):
    """An argument of an expression: a node's entries, ``strides`` apart along each dimension, or a number."""

    value: Any
    strides: tuple[int, ...]
    kind: str  # the C++ type in which it is computed with


class Work(NamedTuple):
    """A loop over entries.

    Attributes
    ----------
    shape : tuple of int
        Of the loop, without dimensions of size 1.
    expression : str
        C++ with fields in braces, to be filled with the operands.
    operands : dict of Operand
        By field.
    kind : str
        C++ type of the result.
    strides : tuple of int
        Of the result along the loop; 0 where it is summed over.
    reduction : str
        How entries are reduced, "+" or "max"; empty if they are not.
    divisor : int
        What a sum is divided by.
    """

    shape: tuple[int, ...]
    expression: str
    operands: dict[str, Operand]
    kind: str
    strides: tuple[int, ...]
    reduction: str = ""
    divisor: int = 1


def work_of(node: Node, value: Callable[[Any], Tensor]) -> Work | None:
    """Return a node's loop, or None if it is no such loop; ``value`` gives an example of a node's result."""
    name, arguments = named_arguments(node)
    if name in ("sum", "mean", "amax") or (name == "max" and "other" not in arguments):
        return _reduction(name, arguments, node, value)
    if name in ("mv", "dot", "mm"):
        return _products(name, arguments, node, value)
    expression = pointwise.template(name, arguments)
    out = value(node)
    if expression is None or out.dtype not in TYPES:
        return None
    kind = TYPES[out.dtype]
    names = pointwise.fields(expression)
    if name in pointwise.COMPARISONS:
        examples = [
            value(arguments[field]) if isinstance(arguments[field], Node) else arguments[field] for field in names
        ]
        common = examples[0].dtype if len(examples) == 1 else torch.result_type(*examples)
        inner = TYPES.get(common)
    elif name == "bitwise_not" and kind != "bool":
        return None
    else:
        inner = kind
    if inner is None:
        return None
    operands = {}
    for field in names:
        of = "bool" if field in pointwise.TRUTH else inner
        operands[field] = _operand(arguments[field], out.shape, of, value)
    return Work(kept(out.shape), expression, operands, kind, _strides(out, out.shape))


def named_arguments(node: Node) -> tuple[str, dict[str, Any]]:
    """Return an operation's name and its arguments by their names, defaults included."""
    schema = node.target._schema  # pyright: ignore
    found = {}
    for place, argument in enumerate(schema.arguments):
        if place < len(node.args):
            found[argument.name] = node.args[place]
        else:
            found[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return schema.name.partition("::")[2], found


def kept(shape: torch.Size | tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without dimensions of size 1."""
    return tuple(size for size in shape if size != 1)


def literal(number: Any) -> str:
    """Return a number as C++."""
    if isinstance(number, bool):
        return str(int(number))
    if isinstance(number, float) and not math.isfinite(number):
        return '__builtin_nan("")' if math.isnan(number) else ("-" * (number < 0) + "__builtin_inf()")
    return f"({number!r})"


def _strides(tensor: Tensor, shape: torch.Size) -> tuple[int, ...]:
    spread = tensor.expand(shape).stride()
    return tuple(stride for stride, size in zip(spread, shape, strict=True) if size != 1)


def _operand(argument: Any, shape: torch.Size, kind: str, value: Callable[[Any], Tensor]) -> Operand:
    return Operand(argument, _strides(value(argument), shape) if isinstance(argument, Node) else (), kind)


def _reduction(name: str, arguments: dict[str, Any], node: Node, value: Callable[[Any], Tensor]) -> Work | None:
    source, out = value(arguments["self"]), value(node)
    given = arguments.get("dim")
    dims = range(source.dim()) if given is None or given == [] else [given] if isinstance(given, int) else given
    reduced = {dim % max(1, source.dim()) for dim in dims}
    spread = (
        out if arguments.get("keepdim") else out.reshape([1 if d in reduced else n for d, n in enumerate(source.shape)])
    )
    if out.dtype not in TYPES or not out.is_contiguous() or not source.numel():
        return None
    operands = {"self": _operand(arguments["self"], source.shape, TYPES[out.dtype], value)}
    divisor = source.numel() // out.numel() if name == "mean" else 1
    how = "+" if name in ("sum", "mean") else "max"
    strides = _strides(spread, source.shape)
    return Work(kept(source.shape), "{self}", operands, TYPES[out.dtype], strides, how, divisor)


def _products(name: str, arguments: dict[str, Any], node: Node, value: Callable[[Any], Tensor]) -> Work | None:
    """Return products with a vector as sums of products."""
    first, second = list(arguments.values())[:2]
    a, b, out = value(first), value(second), value(node)
    rows, inner, columns = (a.shape[0] if a.dim() == 2 else 1), a.shape[-1], (b.shape[1] if b.dim() == 2 else 1)
    if min(rows, columns) > 1 or out.dtype not in TYPES or not out.is_contiguous():
        return None
    shape = torch.Size([rows, columns, inner])
    kind = TYPES[out.dtype]
    left = a.reshape(rows, 1, inner) if a.dim() == 2 else a.view(1, 1, inner)
    right = b.T.unsqueeze(0) if b.dim() == 2 else b.view(1, 1, inner)
    operands = {
        "left": Operand(first, _strides(left, shape), kind),
        "right": Operand(second, _strides(right, shape), kind),
    }
    strides = _strides(out.view(rows, columns, 1), shape)
    return Work(kept(shape), "{left} * {right}", operands, kind, strides, "+")
