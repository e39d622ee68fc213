"""Record what a function of tensors computes from them, as a graph of ATen operations.

As `make_fx` does, in a tenth of the time, which a model with a long loop needs: what does not depend on the inputs is
computed and not recorded, and of results only shape and dtype are kept.
"""

import operator
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from .views import VIEWS, after_write

aten = torch.ops.aten
# Operations that change a tensor's shape and none of its numbers, and the same without a write: torch's own product of
# a vector and a matrix ends in one.
RESHAPES = {
    aten.squeeze_.default: aten.squeeze.default,
    aten.squeeze_.dim: aten.squeeze.dim,
    aten.squeeze_.dims: aten.squeeze.dims,
    aten.unsqueeze_.default: aten.unsqueeze.default,
}


class WritesInPlace(Exception):  # noqa: N818 (the caller takes another way)
    """The function writes to memory that other tensors of the graph share."""


class Recorded(NamedTuple):
    """A graph, and its constants by the nodes that stand for them."""

    graph: Graph
    constants: dict[Node, Tensor]

    def module(self) -> GraphModule:
        """Return the graph as a module that computes it."""
        root = torch.nn.Module()
        for node, value in self.constants.items():
            root.register_buffer(str(node.target), value)
        return GraphModule(root, self.graph)


def record(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    known: Callable[[Any], bool] = lambda _: True,
    place: Callable[[], Any] = lambda: None,
    *,
    rules: Mapping[Any, Callable] | None = None,
    draws: bool = False,
) -> Recorded:
    """Return a function of tensors as a graph recorded at a point.

    Operations that are not ``known`` are taken apart by ``rules``, default: torch's core rules, where there is one.
    What ``place`` returns while an operation runs becomes the node's ``meta["place"]``. With ``draws``, random numbers
    are drawn anew whenever the graph runs; without, those that do not depend on the inputs are constants.
    """
    recorder, values = _Recorder(known, place, rules, draws), [value.detach().clone() for value in inputs]
    for position, value in enumerate(values):
        recorder.follow(value, recorder.graph.placeholder(f"input_{position}"))
    with recorder:
        result = function(*values)
    recorder.graph.output(map_aggregate(result, recorder.node_of))
    recorder.graph.eliminate_dead_code()
    return Recorded(recorder.graph, recorder.constants)


def count_operations(function: Callable[..., Any], *inputs: Tensor) -> int:
    """Return the number of ATen operations that a call takes."""
    counter = _Counter()
    with counter:
        function(*inputs)
    return counter.operations


class _Counter(TorchDispatchMode):
    operations = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):
    def __init__(
        self,
        known: Callable[[Any], bool],
        place: Callable[[], Any],
        rules: Mapping[Any, Callable] | None,
        draws: bool,
    ) -> None:
        super().__init__()
        self.graph = Graph()
        self.constants: dict[Node, Tensor] = {}
        self._nodes: Any = WeakTensorKeyDictionary()  # by tensor: weakly, since torch reuses a result nobody else has
        self._made: Any = WeakTensorKeyDictionary()  # views of tensors: what they are a view of, and which
        self._memory: set[int] = set()  # of constants
        self._sharing: dict[int, list[weakref.ref]] = {}  # followed tensors by their memory
        self._known, self._place, self._rules, self._draws = known, place, rules, draws
        self._likes: dict[tuple, Tensor] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch imports its compiler, which takes a second

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        inputs = list(_tensors((*args, *kwargs.values())))
        if func in RESHAPES and inputs[0] in self._nodes:
            node = self.graph.call_function(RESHAPES[func], *map_aggregate((args, kwargs), self.node_of))
            node.meta["place"] = self._place()
            result = func(*args, **kwargs)
            self.follow(result, node)
            return result
        if func._schema.is_mutable and any(value.untyped_storage().data_ptr() in self._memory for value in inputs):
            raise WritesInPlace
        is_draw = self._draws and torch.Tag.nondeterministic_seeded in func.tags
        if not is_draw and not any(value in self._nodes for value in inputs):
            return func(*args, **kwargs)
        if is_draw and func._schema.is_mutable and args[0] not in self._nodes:
            return self._drawn(func, args, kwargs)
        if func._schema.is_mutable:
            return self._written(func, args, kwargs)
        if torch.Tag.data_dependent_output in func.tags:
            raise RuntimeError(f"data-dependent: {func}")
        if not self._known(func) and func in (rules := _core_rules() if self._rules is None else self._rules):
            with self:
                found = rules[func](*args, **kwargs)
            if found is not NotImplemented:
                return found
        given = map_aggregate((args, kwargs), self.node_of)
        result = func(*args, **kwargs)
        node = self.graph.call_function(func, *given)
        node.meta["place"] = self._place()
        self.follow(result, node)
        if func in VIEWS and args[0] in self._nodes:
            self._made[result] = args[0], func, args[1:]
        return result

    def _written(self, func: Any, args: tuple, kwargs: dict) -> Tensor:
        """Record an operation that writes in place as the one that does not; nobody else may read what is written."""
        target, functional = args[0], _without_write(func)
        if functional is None or not self._known(functional) or target not in self._nodes:
            raise WritesInPlace
        given = map_aggregate((args, kwargs), self.node_of)
        result = functional(*args, **kwargs)
        if (result.dtype, result.shape) != (target.dtype, target.shape):
            raise WritesInPlace
        node = self.graph.call_function(functional, *given)
        node.meta.update(place=self._place(), val=self._like(target))
        written = [(target, node)]
        while (made := self._made.get(written[-1][0])) is not None:
            behind, view, arguments = made
            node = after_write(self.graph, view, arguments, self.node_of(behind), written[-1][1])
            if not self._known(node.target):
                raise WritesInPlace
            node.meta.update(place=self._place(), val=self._like(behind))
            written.append((behind, node))
        for reference in self._sharing[target.untyped_storage().data_ptr()]:
            if (other := reference()) is not None:
                self._nodes[other] = None  # no node has its new values yet
        for tensor, node in written:
            self._nodes[tensor] = node
        return func(*args, **kwargs)

    def _drawn(self, func: Any, args: tuple, kwargs: dict) -> Tensor:
        """Record a draw into a new tensor."""
        target = args[0]
        if target.untyped_storage().nbytes() != target.nbytes or not target.is_contiguous():
            raise WritesInPlace
        options = {"dtype": target.dtype, "device": target.device}
        empty = self.graph.call_function(aten.empty.memory_format, (list(target.shape),), options)
        empty.meta.update(place=self._place(), val=self._like(target))
        node = self.graph.call_function(func, (empty, *map_aggregate(args[1:], self.node_of)), dict(kwargs))
        node.meta["place"] = self._place()
        result = func(*args, **kwargs)
        self.follow(target, node)
        return result

    def follow(self, result: Any, node: Node) -> None:
        """Remember which node a result, or each of several, belongs to."""
        if isinstance(result, Tensor):
            node.meta["val"] = self._like(result)
            self._nodes[result] = node
            self._sharing.setdefault(result.untyped_storage().data_ptr(), []).append(weakref.ref(result))
        elif isinstance(result, (tuple, list)):
            node.meta["val"] = tuple(map(self._like, result))
            for place, part in enumerate(result):
                if isinstance(part, Tensor):
                    self.follow(part, self.graph.call_function(operator.getitem, (node, place)))

    def node_of(self, value: Any) -> Any:
        """Return the node that a tensor belongs to, that of a constant if it belongs to none."""
        if not isinstance(value, Tensor):
            return value
        if value not in self._nodes:
            self._nodes[value] = node = self.graph.get_attr(f"constant_{len(self.constants)}")
            self.constants[node] = value.detach()
            self._memory.add(value.untyped_storage().data_ptr())
            node.meta["val"] = self._like(value)
        if self._nodes[value] is None:
            if value not in self._made:
                raise WritesInPlace
            behind, view, arguments = self._made[value]
            self._nodes[value] = node = self.graph.call_function(view, (self.node_of(behind), *arguments))
            node.meta.update(place=self._place(), val=self._like(value))
        return self._nodes[value]

    def _like(self, value: Any) -> Any:
        """Return a tensor without memory, of the same shape and dtype."""
        if not isinstance(value, Tensor):
            return value
        key = value.shape, value.dtype
        if key not in self._likes:
            self._likes[key] = torch.empty(value.shape, dtype=value.dtype, device="meta")
        return self._likes[key]


@cache
def _core_rules() -> dict[Any, Callable]:
    return torch.export.default_decompositions()


def _without_write(func: Any) -> Any:
    """Return the operation that returns what this one writes to its first argument, or None."""
    namespace, _, name = func._schema.name.partition("::")
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    return getattr(packet, func._overloadname, None)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


class LogitsWithoutWrites(TorchFunctionMode):
    """Computes the density of Bernoulli variables without writes in place, and in fewer operations than torch."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Replace the one function, where entries are not weighted."""
        options = {name: value for name, value in (kwargs or {}).items() if value is not None}
        if func is not binary_cross_entropy_with_logits or len(args) != 2 or options != {"reduction": "none"}:
            return func(*args, **(kwargs or {}))
        logits, value = args
        return (1 - value) * logits - logsigmoid(logits)


class ZerosInMemory(TorchDispatchMode):
    """Gives gradients that are zero, as a sign's is, memory: torch imports its compiler to add one that has none."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Replace the one function."""
        if func is torch.ops.aten._efficientzerotensor.default:
            func = torch.ops.aten.zeros.default
        return func(*args, **(kwargs or {}))
