"""A recorded step as a pure function: noise and data from outside, constants folded, nothing computed twice.

Noise is an input: one call of torch's generator draws it for many steps, which is faster than drawing inside, follows
the seed, and lets a step be repeated.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from ..graph import CannotCompile, reason

aten = torch.ops.aten
MAX_FOLDED = 10_000_000  # numbers in a constant that is computed beforehand
MAX_UNROLLED = 8  # longest cumulative sum or product that is written out, so that it fuses with its neighbours

# Operations that draw standard noise: into a new tensor, or over an old one, followed by the two parameters.
NORMAL = {aten.normal_.default, aten.randn.default, aten.randn_like.default}
UNIFORM = {aten.uniform_.default, aten.rand.default, aten.rand_like.default}
_RESHAPES = {aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.expand.default}


class PureStep(NamedTuple):
    """A step without Pyro, noise or data in it.

    The graph is (leaves …, changing data …, normal noise, uniform noise, constants …) → (loss, gradients …); ``noise``
    says how many standard normal and how many uniform numbers a step uses.
    """

    graph: GraphModule
    constants: list[Tensor]
    noise: tuple[int, int]


def functionalise(graph: GraphModule, inputs: Sequence[Tensor]) -> PureStep:
    """Rewrite a graph that `trace_step` recorded at ``inputs``; `CannotCompile` if that changes its results."""
    noise = _noise_as_input(graph.graph)
    for node in graph.graph.nodes:
        if node.target is aten.view.default:
            node.target = aten.reshape.default  # the rules below may return tensors with other strides
    graph.recompile()
    run = Interpreter(graph)

    def pure(*arguments: Tensor) -> Any:
        return run.run(*arguments, enable_io_processing=False)

    filled = sample_noise(inputs[0], noise)
    if any(isinstance(node.target, OpOverload) and node.target._schema.is_mutable for node in graph.graph.nodes):
        trace = make_fx(torch.func.functionalize(pure, remove="mutations"), decomposition_table=UNROLLED)
        try:
            with torch.no_grad():
                found = trace(*inputs, *filled)
        except RuntimeError as error:  # of an operation that writes into a tensor from outside
            raise CannotCompile(reason(error)) from None
    else:
        copy = Graph()
        copy.output(copy.graph_copy(graph.graph, {}))
        found = GraphModule(graph, copy)
    for node in list(found.graph.nodes):
        if node.target is aten._linalg_check_errors.default:
            found.graph.erase_node(node)  # a failed factorisation gives a loss that is not finite
        elif node.target is aten.detach.default or (node.target in _RESHAPES and _shape(node) == _shape(node.args[0])):
            node.replace_all_uses_with(node.args[0])
    _fold(found)
    constants = _constants_as_input(found)
    if not any(_is_random(node) for node in found.graph.nodes):
        _merge_duplicates(found.graph)
    found.recompile()
    with torch.no_grad():
        with torch.random.fork_rng():
            before = pure(*inputs, *filled)
        after = Interpreter(found).run(*inputs, *filled, *constants, enable_io_processing=False)
    if not all(close(a, b) for a, b in zip(before, after, strict=True)):
        raise CannotCompile("the step as a pure function disagrees with the recorded one")
    return PureStep(found, constants, noise)


def sample_noise(like: Tensor, noise: tuple[int, int]) -> list[Tensor]:
    """Return an example of the noise of one step, normal and uniform; torch's generator is not touched."""
    generator = torch.Generator(like.device).manual_seed(0)
    normal, uniform = (like.new_empty(size) for size in noise)
    return [normal.normal_(generator=generator), uniform.uniform_(generator=generator)]


def close(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors agree up to rounding, relative to the largest entry."""
    tolerance = 1e-8 if a.dtype == torch.float64 else 1e-3
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(a.abs().max()))


def _shape(node: Node) -> torch.Size:
    return node.meta["val"].shape


def _is_random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _noise_as_input(graph: Graph) -> tuple[int, int]:
    """Replace draws of standard noise by slices of two new inputs; returns the lengths of these."""
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    with graph.inserting_after(last):
        uniform = graph.placeholder("uniform")
        normal = graph.placeholder("normal")
    used = {normal: 0, uniform: 0}
    for node in list(graph.nodes):
        source = normal if node.target in NORMAL else uniform if node.target in UNIFORM else None
        if source is None:
            continue
        value = node.meta["val"]
        given = node.args[1:3] if node.target in (aten.normal_.default, aten.uniform_.default) else ()
        shift, second = (*given, *(0.0, 1.0)[len(given) :])  # mean and sd, or lower and upper bound
        factor = second if source is normal else second - shift
        with graph.inserting_before(node):
            start = used[source]
            used[source] = start + value.numel()
            part = graph.call_function(aten.slice.Tensor, (source, 0, start, used[source]))
            part.meta["val"] = value.reshape(-1)
            steps = [(aten.view.default, list(value.shape))]
            if (shift, factor) != (0.0, 1.0):
                steps += [(aten.mul.Tensor, factor), (aten.add.Tensor, shift)]
            for target, argument in steps:
                part = graph.call_function(target, (part, argument))
                part.meta["val"] = value
        node.replace_all_uses_with(part)
        graph.erase_node(node)
    return used[normal], used[uniform]


def _fold(graph: GraphModule) -> None:
    """Compute what depends on constants alone; transposed data become contiguous in their new order."""
    known: dict[Node, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(graph, str(node.target))
        elif node.op == "call_function" and not _is_random(node):
            sources = node.all_input_nodes
            if sources and all(source in known for source in sources):
                args, kwargs = map_arg((node.args, node.kwargs), lambda source: known[source])
                with torch.no_grad():
                    value = node.target(*args, **kwargs)  # pyright: ignore[reportCallIssue]
                if not isinstance(value, Tensor) or value.numel() <= MAX_FOLDED:
                    known[node] = value
    for position, (node, value) in enumerate(known.items()):
        if not isinstance(value, Tensor) or all(user in known for user in node.users):
            continue
        with graph.graph.inserting_before(node):
            if 0 < value.numel() <= MAX_FOLDED and bool((value == value.flatten()[0]).all()):
                number = value.flatten()[0].item()
                options = {"dtype": value.dtype, "device": value.device}
                constant = graph.graph.call_function(aten.full.default, (list(value.shape), number), options)
            else:
                name = f"folded_{position}"
                graph.register_buffer(name, value.detach().contiguous())
                constant = graph.graph.get_attr(name)
        constant.meta = dict(node.meta)
        node.replace_all_uses_with(constant)
    graph.graph.eliminate_dead_code()


def _constants_as_input(graph: GraphModule) -> list[Tensor]:
    """Turn the remaining constants into inputs, so that no compiled artefact holds data."""
    found: dict[str, tuple[Node, Tensor]] = {}
    first = next(node for node in graph.graph.nodes if node.op != "placeholder")
    for node in list(graph.graph.nodes):
        if node.op != "get_attr":
            continue
        name = str(node.target)
        if name not in found:
            with graph.graph.inserting_before(first):
                found[name] = graph.graph.placeholder(f"constant_{len(found)}"), getattr(graph, name).detach()
        node.replace_all_uses_with(found[name][0])
        if node is first:
            first = first.next
        graph.graph.erase_node(node)
    return [value for _, value in found.values()]


def _merge_duplicates(graph: Graph) -> None:
    """Let calls of the same operation on the same arguments share one result; nothing may write in place."""
    first: dict[tuple, Node] = {}
    for node in list(graph.nodes):
        if node.op == "call_function":
            same = first.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if same is not node:
                node.replace_all_uses_with(same)
                graph.erase_node(node)


def _cumsum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    return _scan(torch.add, x, dim, dtype)


def cumprod(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Return a cumulative product, written out; NotImplemented if it is long."""
    return _scan(torch.mul, x, dim, dtype)


def _scan(step: Callable[..., Tensor], x: Tensor, dim: int, dtype: torch.dtype | None) -> Tensor:
    if x.dim() == 0 or x.shape[dim] > MAX_UNROLLED:
        return NotImplemented
    if dtype is None and not x.is_floating_point():
        dtype = torch.int64
    parts = list((x if dtype is None else x.to(dtype)).unbind(dim))
    for position in range(1, len(parts)):
        parts[position] = step(parts[position - 1], parts[position])
    return torch.stack(parts, dim)


UNROLLED = {aten.cumsum.default: _cumsum, aten.cumprod.default: cumprod}
