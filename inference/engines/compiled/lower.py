"""A graph of small tensors as C++ that reads no header, in as few loops as go through each shape once.

The graph runs once, and its tensors stay: the C++ computes the same numbers in the same memory, so that views cost
nothing. Whatever is not known here is `Unsupported`, and Inductor compiles the graph.
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from . import small_matrices
from .build import build, vector_library
from .decomposed import decomposed
from .nests import Entry, Line, nest
from .places import Places
from .pointwise import declarations
from .small_matrices import Unsupported
from .whole import WHOLE, whole
from .works import Operand, Work, kept, literal, work_of

MAX_NUMBERS = 32_768  # in a tensor; Inductor works on larger ones with several threads
MAX_NODES = 1_000
_PRELUDE = """
typedef long long int64_t;
#define memcpy __builtin_memcpy
"""
_RUN = """
extern "C" int run(
    int64_t count, void* const* at, char* const* rows, const int64_t* index, number* losses, char*) {
  take(count, at, rows, index, losses);
  return 0;
}
"""
# Results that depend on the shapes of their arguments alone.
_FILLED = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}
_FILLED |= {"empty_like", "new_empty", "new_empty_strided"}
_TRANSPOSES = {"t", "transpose", "permute", "alias", "detach"}
_SAME_ENTRIES = {"view", "reshape", "unsqueeze", "squeeze", "expand", "alias", "detach", "_unsafe_view"}


class Lowered:
    """A graph's C++: ``lines`` and ``addresses`` as `CppCalls` has them, and its ``results``."""

    def __init__(self, graph: GraphModule, inputs: Sequence[Tensor], streams: Sequence[Tensor], changing: int) -> None:
        self._places = Places(streams)
        self.lines: list[str] = []
        graph = decomposed(graph, inputs)
        inputs = [*inputs[:changing], *_by_columns(graph, inputs)[changing:]]
        self._values = _Values(graph)
        self.results: Sequence[Tensor] = self._values.run(*inputs, enable_io_processing=False)
        nodes = list(graph.graph.nodes)
        if len(nodes) > MAX_NODES:
            raise Unsupported("it has many operations")
        self._varying: set[Node] = set([node for node in nodes if node.op == "placeholder"][:changing])
        self._works: dict[Node, Work | None] = {}
        self._unknown: set[Node] = set()
        for node in nodes:
            if node.op != "call_function" or _name(node) in _FILLED:
                continue
            if any(source in self._varying for source in node.all_input_nodes):
                self._varying.add(node)
                if self._is_second(node):
                    self._unknown.add(node)
                elif self._tensor(node).numel() and self._source(node) is None:
                    self._works[node] = self._checked(node)
        self._readers: dict[Node, set[Node]] = {node: set() for node in self._works}
        self._sources = {node: list(self._sources_of(node)) for node in [*self._works, nodes[-1]]}
        for node, sources in self._sources.items():
            for source, _ in sources:
                self._readers[source].add(node)
        self._emit()

    @property
    def declarations(self) -> list[str]:
        """C++ that declares what `place` returns."""
        return list(self._places.pointers.values())

    @property
    def addresses(self) -> list[int]:
        """Memory behind ``at``."""
        return self._places.addresses

    def place(self, tensor: Tensor) -> str:
        """Return a pointer to a tensor's first entry, in C++."""
        return self._places.pointer(tensor)

    def library(self, number: str, loop: str) -> Any:
        """Compile a loop that has the lines; returns a library with its function ``run``."""
        source = [_PRELUDE, declarations(vector_library()), number, small_matrices.SOURCE, loop, _RUN]
        return build("\n".join(source))

    def _tensor(self, node: Any) -> Tensor:
        found = self._values.by_node[node]
        found = found[0] if isinstance(found, (tuple, list)) else found
        if not isinstance(found, Tensor):
            raise Unsupported(f"{node.target} gives no tensor")
        return found

    def _checked(self, node: Node) -> Work | None:
        if self._tensor(node).numel() > MAX_NUMBERS:
            raise Unsupported("it has large tensors")
        name = _name(node)
        if torch.Tag.nondeterministic_seeded in node.target.tags:  # pyright: ignore
            raise Unsupported(f"it draws by {name}")
        work = work_of(node, self._tensor)
        if work is None and name not in WHOLE:
            raise Unsupported(f"it has {node.target}")
        return work

    def _source(self, node: Node) -> Node | None:
        """Return the node that this one is a view or a part of; None if it has memory of its own."""
        if node.target is operator.getitem:
            return node.args[0]  # pyright: ignore
        first = node.args[0] if node.args else None
        if not isinstance(first, Node):
            return None
        memory = self._tensor(first).untyped_storage().data_ptr()
        return first if self._tensor(node).untyped_storage().data_ptr() == memory else None

    def _is_second(self, node: Node) -> bool:
        """Return whether a node is another than the first of several results, and no view."""
        return node.target is operator.getitem and node.args[1] != 0 and self._source(node.args[0]) is None  # pyright: ignore

    def _behind(self, node: Node) -> tuple[Node, bool]:
        """Return the node that computed these entries, and whether they are all of its entries in the same order."""
        same = True
        while node.op == "call_function" and node not in self._unknown and (source := self._source(node)) is not None:
            all_of_it = node.target is operator.getitem or _name(node) in _SAME_ENTRIES
            all_of_it = all_of_it and self._tensor(node).numel() == self._tensor(source).numel()
            same = same and all_of_it and kept(self._tensor(node).shape) == kept(self._tensor(source).shape)
            node = source
        return node, same

    def _sources_of(self, node: Node) -> Iterable[tuple[Node, bool]]:
        """Return the computed nodes that one reads, and whether it reads entry by entry as its loop goes."""
        work = self._works.get(node)
        read = (
            node.all_input_nodes
            if work is None
            else [o.value for o in work.operands.values() if isinstance(o.value, Node)]
        )
        for argument in read:
            behind, same = self._behind(argument)
            if behind in self._unknown:
                raise Unsupported("it uses a second result")
            if behind in self._works:
                yield behind, work is not None and same and kept(self._tensor(argument).shape) == work.shape

    def _emit(self) -> None:
        pending, done = list(self._works), set()

        def ready(node: Node, group: Sequence[Node] = ()) -> bool:
            return all(
                source in done or (same and source in group and not self._works[source].reduction)  # pyright: ignore
                for source, same in self._sources[node]
            )

        while pending:
            alone = [node for node in pending if self._works[node] is None and ready(node)]
            if alone:
                self.lines += [line for node in alone for line in whole(node, self._tensor, self.place, self._varying)]
                best = alone
            else:
                groups: dict[tuple[int, ...], list[Node]] = {}
                for node in pending:
                    if (work := self._works[node]) is not None:
                        group = groups.setdefault(work.shape, [])
                        if ready(node, group):
                            group.append(node)
                best = max(groups.values(), key=len)
                self.lines += nest([self._line(node, work, best) for node in best if (work := self._works[node])])
            done.update(best)
            pending = [node for node in pending if node not in done]

    def _line(self, node: Node, work: Work, group: Sequence[Node]) -> Line:
        entries = {field: self._entry(operand, group, work.shape) for field, operand in work.operands.items()}
        readers = self._readers[node]
        stored = work.reduction or not readers or not readers.issubset(group)
        out = self._tensor(node)
        return Line(_local(node, group), work, entries, self.place(out) if stored else "", out.numel())

    def _entry(self, operand: Operand, group: Sequence[Node], shape: tuple[int, ...]) -> Entry:
        if not isinstance(operand.value, Node):
            return Entry(literal(operand.value))
        behind, same = self._behind(operand.value)
        if behind in group and same and kept(self._tensor(operand.value).shape) == shape:
            return Entry(_local(behind, group))
        if (number := self._constant(operand.value)) is not None:
            return Entry(number)
        return Entry(self.place(self._tensor(operand.value)), operand.strides)

    def _constant(self, node: Node) -> str | None:
        """Return the number that all entries of a node always have, if there is one."""
        if node in self._varying or node.op == "placeholder":
            return None
        value = self._tensor(node)
        first = value.flatten()[0]
        return literal(first.item()) if bool((value == first).all()) else None


class _Values(Interpreter):
    """Runs a graph and keeps the results of all nodes."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.by_node: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        self.by_node[n] = super().run_node(n)
        return self.by_node[n]


def _name(node: Node) -> str:
    """Return the name of a node's operation, empty if it calls none."""
    schema = getattr(node.target, "_schema", None)
    return "" if schema is None else schema.name.partition("::")[2]


def _by_columns(graph: GraphModule, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return inputs with the columns in turn of tall matrices that only multiply vectors: inner loops become long."""
    found = []
    for node, value in zip(graph.graph.nodes, inputs, strict=False):
        users = [user for first in node.users for user in (first.users if _name(first) in _TRANSPOSES else [first])]
        is_tall = value.dim() == 2 and value.shape[0] > value.shape[1]
        found.append(value.T.contiguous().T if is_tall and all(_name(user) == "mv" for user in users) else value)
    return found


def _local(node: Node, group: Sequence[Node]) -> str:
    return f"v{group.index(node)}"
