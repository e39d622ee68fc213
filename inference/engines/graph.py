"""A potential and its gradient as one traced graph of tensor operations, without Pyro's overhead at every call.

Recorded once and run by TorchScript's interpreter, gradient included, it serves the samplers that are written in torch
(`traced`); without writes in place, it is what `xla` translates (`functional`). It is trusted only after it has agreed
with the eager potential at several points.
"""

import gc
import linecache
import math
import operator
import sys
import sysconfig
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from ..traces.validation import unvalidated
from .record import Recorded, WritesInPlace, record

Params = dict[str, Tensor]
Potential = Callable[[Params], Tensor]
LONG = 1500  # operations from which TorchScript takes longer to prepare a graph than it saves
aten = torch.ops.aten
_OPERATION = type(torch.ops.aten.add.Tensor)
_FOREIGN = tuple(path for package in (torch, pyro) for path in package.__path__)
_STANDARD, _HERE = sysconfig.get_paths()["stdlib"], str(Path(__file__).parent)


class CannotCompile(Exception):  # noqa: N818 (the caller takes another way)
    """Why a potential or a step has no graph that can be used, as a clause that ends a sentence."""


def traced(potential: Potential, at: Params, num_checks: int = 3, *, gradient: bool = True) -> Potential | None:
    """Return the same potential on a graph, differentiable as the eager one; None if it cannot be traced.

    The potential maps unconstrained parameters by site to a negative log density, a scalar; it draws no random numbers.
    It is recorded at a point of finite density; there, and at points near it, value and gradient must equal the eager
    ones. Without the gradient a call costs less than half and cannot be differentiated.
    """
    names = list(at)

    def value_and_grads(*values: Tensor) -> tuple[Tensor, ...]:
        if not gradient:
            return (potential(dict(zip(names, values, strict=True))),)
        grads, value = torch.func.grad_and_value(lambda inner: potential(dict(zip(names, inner, strict=True))))(values)
        return value, *grads

    values = tuple(at[name].detach() for name in names)
    with _quietly(), without_garbage_collection():
        try:
            graph = _graph(value_and_grads, values)
            run = torch.jit.freeze(torch.jit.trace(graph, values).eval())  # pyright: ignore[reportAttributeAccessIssue]
            agree = all(_agrees(run, potential, names, _near(values, step), gradient) for step in range(num_checks))
        except Exception:  # user models can fail in any way; fall back to eager
            return None
    if not agree:
        return None

    if not gradient:
        return lambda params: run(*(params[name] for name in names))[0]

    class Traced(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            value, *grads = run(*inputs)
            ctx.save_for_backward(*grads)
            return value

        @staticmethod
        def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, ...]:
            return tuple(upstream[0] * grad for grad in ctx.saved_tensors)

    return lambda params: Traced.apply(*(params[name] for name in names))  # pyright: ignore[reportReturnType]


def recorded(function: Callable, values: tuple[Tensor, ...], *, without_writes: Callable | None = None) -> Callable:
    """Return a function of tensors as a graph, recorded at a point: run by TorchScript, or by Python if it is long.

    ``without_writes`` is the same function where it does not write to tensors in place; default: as torch can tell.
    """
    with _quietly(), without_garbage_collection():
        graph = _graph(function, values, without_writes)
        if len(graph.graph.nodes) > LONG:
            return graph
        return torch.jit.freeze(torch.jit.trace(graph, values, check_trace=False).eval())  # pyright: ignore


def _graph(function: Callable, values: tuple[Tensor, ...], without_writes: Callable | None = None) -> GraphModule:
    try:
        module = record(function, values).module()
    except WritesInPlace:
        without_writes = without_writes or torch.func.functionalize(function, remove="mutations")
        module = _without_writes(function, values, without_writes)
    _leave_out_detached(module.graph)
    _fail_by_nan(module.graph)
    _fill_anew(module.graph)
    module.recompile()
    return module


def _without_writes(function: Callable, values: tuple[Tensor, ...], without_writes: Callable) -> GraphModule:
    try:
        return record(without_writes, values).module()
    except Exception:  # what functionalize does not know, `make_fx` may
        return make_fx(lambda *inputs: function(*inputs))(*values)  # which reads the arguments' number off its code


def _leave_out_detached(graph: Graph) -> None:
    for node in graph.nodes:
        if node.target is aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _fail_by_nan(graph: Graph) -> None:
    """Let factors and inverses of matrices that have none be nan, each by itself, where the model raises an error.

    A graph may drop the check of an operation whose result nobody reads, and goes on with numbers that mean nothing.
    """
    for node in graph.nodes:
        if node.target is aten._linalg_check_errors.default:
            graph.erase_node(node)
        if node.target not in (aten.linalg_cholesky_ex.default, aten.linalg_inv_ex.default):
            continue
        found = next((user for user in node.users if user.args[1] == 0), None)
        if found is not None:
            with graph.inserting_after(found):
                info = graph.call_function(operator.getitem, (node, 1))
            with graph.inserting_after(info):
                failed = graph.call_function(aten.ne.Scalar, (info, 0))
            for _ in range(2):
                with graph.inserting_after(failed):
                    failed = graph.call_function(aten.unsqueeze.default, (failed, -1))
            with graph.inserting_after(failed):
                result = graph.call_function(aten.masked_fill.Scalar, (found, failed, math.nan))
            found.replace_all_uses_with(result, lambda user, result=result: user is not result)


def _fill_anew(graph: Graph) -> None:
    """Make filled tensors in one operation: TorchScript makes one that it does not know of two."""
    for node in graph.nodes:
        if node.target is aten.fill.Scalar and "val" in node.meta:
            like, value = node.args
            node.target, node.args = aten.new_full.default, (like, list(node.meta["val"].shape), value)


def functional(function: Callable[[Tensor], Tensor], at: Tensor, known: Callable[[Any], bool]) -> Recorded:
    """Return a function of one tensor, which draws no random numbers, as a graph that writes nothing in place.

    Operations that are not ``known`` are decomposed by torch's core rules; `CannotCompile` if that is not enough, or if
    the function branches on a value.
    """
    try:
        recorded = _functional(function, at, known)
    except Exception as error:  # user models can fail in any way; fall back to eager
        raise CannotCompile(reason(error)) from error
    for node in recorded.graph.nodes:
        if is_operation(node.target) and not known(node.target):
            where = called_most(function, at, known, lambda other, node=node: other.target is node.target)
            raise CannotCompile(f"there is no translation of the operation {node.target}{where}")
    return recorded


def called_most(
    function: Callable[[Tensor], Tensor], at: Tensor, known: Callable[[Any], bool], wanted: Callable[[Node], bool]
) -> str:
    """Return the line of the model that calls most of the ``wanted`` nodes, in brackets; empty if the model calls none.

    The function is recorded again, which names its nodes as before.
    """
    recorded = _functional(function, at, known, lambda: _place(_outward(sys._getframe(1))))
    places = Counter(node.meta.get("place") for node in recorded.graph.nodes if wanted(node))
    del places[None]
    return "".join(_words(*place) for place, _ in places.most_common(1))


def _functional(
    function: Callable[[Tensor], Tensor],
    at: Tensor,
    known: Callable[[Any], bool],
    place: Callable[[], Any] = lambda: None,
) -> Recorded:
    with _quietly(), without_garbage_collection():
        try:
            return record(function, [at], known, place)
        except WritesInPlace:
            return record(torch.func.functionalize(function, remove="mutations"), [at], known, place)


def is_operation(target: Any) -> bool:
    """Return whether a node calls an ATen operation, rather than selects one of several results."""
    return isinstance(target, _OPERATION)


@contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings(), unvalidated():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated, but nothing else starts as fast
        yield


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Recording makes many small objects that all live to its end; scanning them would take a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def reason(error: Exception) -> str:
    """Return why something could not be recorded, and at which line of the model, as a clause."""
    where = _line([frame for frame, _ in traceback.walk_tb(error.__traceback__)][::-1])
    if "_local_scalar_dense" in str(error) or "data-dependent" in str(error).lower():
        return f"the model takes a number out of a drawn tensor, as a branch on its value does{where}"
    first = str(error).strip().split("\n")[0][:200]
    return f"it cannot be recorded: {type(error).__name__}: {first}{where}"


def _line(frames: Iterable[Any]) -> str:
    """Return the innermost of these frames that is a model's, in brackets; frames run from the inside out."""
    found = _place(frames)
    return "" if found is None else _words(*found)


def _place(frames: Iterable[Any]) -> tuple[str, int] | None:
    """Return file and line of the innermost of these frames that is a model's."""
    for frame in frames:
        file = frame.f_code.co_filename
        if file.startswith(_HERE):
            if frame.f_code.co_name in ("__torch_function__", "__torch_dispatch__"):  # between the model and torch
                continue
            return None
        if not file.startswith("<") and not file.startswith(_FOREIGN):
            is_standard = file.startswith(_STANDARD) and "site-packages" not in file
            if not is_standard:
                return file, frame.f_lineno
    return None


def _outward(frame: Any) -> Iterator[Any]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _words(file: str, line: int) -> str:
    return f" ({Path(file).name}, line {line}: {linecache.getline(file, line).strip()[:80]})"


def _near(values: tuple[Tensor, ...], step: int) -> tuple[Tensor, ...]:
    return tuple(value + 0.1 * step * torch.randn_like(value) for value in values)


def _agrees(run: Callable, potential: Potential, names: list[str], values: tuple[Tensor, ...], gradient: bool) -> bool:
    leaves = [value.clone().requires_grad_(gradient) for value in values]
    eager = potential(dict(zip(names, leaves, strict=True)))
    ours = run(*values)
    tolerance = 1e-9 if ours[0].dtype == torch.float64 else 1e-3
    pairs = zip(ours, (eager.detach(), *(torch.autograd.grad(eager, leaves) if gradient else ())), strict=True)
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)
