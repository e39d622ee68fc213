"""Find the steps of Python loops in a recorded graph, so that they are compiled once, not step by step.

A loop over time is recorded as the same operations again and again, a period apart. `roll` finds such runs and takes
each apart: what does not depend on the step before is computed for all steps together, a running total is a sum, and
only the rest must go through the steps in turn. That is exact: operations are grouped if they are the same, on operands
of the same shapes, and no order is changed in which one depends on another.

Allen and Kennedy (1987), Automatic translation of Fortran programs to vector form, ACM TOPLAS 9(4): the strongly
connected parts of a loop's dependences are what must go in turn.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.node import map_aggregate

aten = torch.ops.aten
MIN_STEPS = 8  # shortest loop that is rolled
MIN_SAVED = 50  # operations that rolling a loop must save
MAX_TRIED = 8  # periods that are tried for a stretch of the graph

# Arguments that may differ from step to step though they are no tensors, by their place among all arguments.
PICKS = (aten.select.int, aten.slice.Tensor)
_NUMBERS = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)
_VARYING: dict[Any, tuple[int, ...]] = {**dict.fromkeys(PICKS, (2, 3)), **dict.fromkeys(_NUMBERS, (1,))}


class Statement:
    """An operation in a loop's body.

    ``nodes`` has one node per step. ``columns`` has a list for every leaf of the arguments, with one entry per step.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.columns = [list(column) for column in zip(*map(leaves, nodes), strict=True)]
        if nodes[0].target in PICKS and len(set(self.columns[2])) > 1:
            args: tuple[Any, ...] = nodes[0].args
            size = args[0].meta["val"].shape[args[1]]
            self.columns[2] = [max(at + size, 0) if at < 0 else at for at in (at or 0 for at in self.columns[2])]
            self.columns[3:] = [[None] * len(nodes) for _ in self.columns[3:]]  # a slice ends at its length


class Together(NamedTuple):
    """A statement whose steps do not depend on each other."""

    statement: Statement


class Total(NamedTuple):
    """Statements that add to, or subtract from, a running total, in turn.

    ``terms`` are the columns of what each adds, with its sign.
    """

    statements: list[Statement]
    terms: list[tuple[list, int]]
    start: Node


class InTurn(NamedTuple):
    """Statements of which each step needs the step before.

    ``lags`` says of the columns that hold results of these statements whose results, and of how many steps before.
    """

    statements: list[Statement]
    lags: dict[tuple[Statement, int], tuple[Statement, int]]


Part = Node | Together | Total | InTurn


def roll(graph: Graph) -> list[Part]:
    """Return what the graph computes from its input, in an order in which it can be computed."""
    _unpack(graph)
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    known: dict[Any, int] = {}
    symbols = np.array([known.setdefault(_symbol(node), len(known)) for node in nodes], np.int32)
    return list(_parts(nodes, symbols))


def size(parts: list[Part]) -> int:
    """Return the number of operations that are compiled."""
    return sum(len(part.statements) if isinstance(part, InTurn) else 1 for part in parts)


def leaves(node: Node) -> list[Any]:
    """Return the arguments of a node, lists among them taken apart."""
    found: list[Any] = []
    map_aggregate((node.args, node.kwargs), found.append)
    return found


def with_leaves(node: Node, values: list[Any]) -> tuple[tuple, dict[str, Any]]:
    """Return the arguments of a node with other leaves."""
    rest = iter(values)
    return map_aggregate((node.args, node.kwargs), lambda _: next(rest))  # pyright: ignore[reportReturnType]


def used_outside(statements: list[Statement]) -> set[Node]:
    """Return the results of some statements that others use, too."""
    inside = {node for statement in statements for node in statement.nodes}
    return {node for node in inside if not inside.issuperset(node.users)}


def _unpack(graph: Graph) -> None:
    """Replace the parts of a split tensor by slices of it, which can be told from each other by their place."""
    for node in list(graph.nodes):
        if node.target is aten.unbind.int:
            _, dim, *_ = (*node.args, 0)
            for part in list(node.users):
                _replace(graph, part, aten.select.int, (node.args[0], dim, part.args[1]))
        elif node.target in (aten.split.Tensor, aten.split_with_sizes.default):
            source, sizes, dim, *_ = (*node.args, 0)
            for part in list(node.users):
                place = part.args[1]
                start = place * sizes if isinstance(sizes, int) else sum(sizes[:place])
                end = start + part.meta["val"].shape[dim]
                _replace(graph, part, aten.slice.Tensor, (source, dim, start, end))
    graph.eliminate_dead_code()


def _replace(graph: Graph, node: Node, operation: Any, args: tuple) -> None:
    with graph.inserting_before(node):
        new = graph.call_function(operation, args)
    new.meta = node.meta
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _symbol(node: Node) -> Any:
    """Return what two nodes must have in common to be one statement."""
    if node.target in (aten.index.Tensor, aten.index_put.default) and any(
        _kind(leaf)[1:] == (torch.bool,) for leaf in leaves(node) if isinstance(leaf, Node)
    ):
        return node  # the shape of the result depends on the mask
    varying = _VARYING.get(node.target, ())
    if node.target is aten.slice.Tensor and len(node.args) != 4:
        varying = ()  # it has a stride

    def key(value: Any) -> Any:
        if isinstance(value, Node):
            return ("tensor", *_kind(value))
        if isinstance(value, (list, tuple)):
            return tuple(map(key, value))
        if isinstance(value, dict):
            return tuple((name, key(item)) for name, item in value.items())
        return type(value), str(value)

    args = tuple(
        "varies" if place in varying and not isinstance(value, Node) else key(value)
        for place, value in enumerate(node.args)
    )
    return node.target, args, key(node.kwargs), _kind(node)


def _kind(node: Node) -> tuple:
    """Return the shape and dtype of a node's result, or of each of its results."""
    value = node.meta.get("val")

    def kind(value: Any) -> Any:
        if isinstance(value, Tensor):
            return tuple(value.shape), value.dtype
        return tuple(map(kind, value)) if isinstance(value, (list, tuple)) else (type(value),)

    return kind(value)


def _parts(nodes: list[Node], symbols: np.ndarray) -> Iterator[Part]:
    """Yield the parts of a stretch of the graph: the loop that saves most, and what lies before and after it."""
    found = next(_loops(nodes, symbols), None)
    if found is None:
        yield from nodes
        return
    start, end, parts = found
    yield from _parts(nodes[:start], symbols[:start])
    yield from parts
    yield from _parts(nodes[end:], symbols[end:])


def _loops(nodes: list[Node], symbols: np.ndarray) -> Iterator[tuple[int, int, list[Part]]]:
    """Yield loops with their first node and the one after their last, those that save most first."""
    for start, period, steps in _runs(symbols)[:MAX_TRIED]:
        while steps >= MIN_STEPS and (steps - 1) * period >= MIN_SAVED:
            end = start + period * steps
            statements = [Statement(nodes[start + place : end : period]) for place in range(period)]
            parts, odd = _distributed(statements)
            if not odd.any():
                yield start, end, parts
                break
            first, steps = _longest(~odd)
            start += first * period


def _runs(symbols: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the longest run of repeated symbols of each period: start, period, repetitions; best first."""
    found = []
    for period in range(1, len(symbols) // MIN_STEPS + 1):
        same = symbols[period:] == symbols[:-period]
        if np.count_nonzero(same) >= (MIN_STEPS - 1) * period:
            start, length = _longest(same)
            found.append((start, period, (length + period) // period))
    return sorted(found, key=lambda run: (run[1] * (1 - run[2]), run[1]))


def _longest(flags: np.ndarray) -> tuple[int, int]:
    """Return start and length of the longest stretch of true flags."""
    ends = np.concatenate([[-1], np.flatnonzero(~flags), [len(flags)]])
    lengths = np.diff(ends) - 1
    best = int(lengths.argmax())
    return int(ends[best]) + 1, int(lengths[best])


def _distributed(statements: list[Statement]) -> tuple[list[Part], np.ndarray]:
    """Take a loop apart; also return at which steps it depends on other earlier steps than it usually does."""
    place = {node: (at, step) for at, one in enumerate(statements) for step, node in enumerate(one.nodes)}
    needs = nx.DiGraph()
    needs.add_nodes_from(range(len(statements)))
    for at, statement in enumerate(statements):
        for column in statement.columns:
            needs.add_edges_from((place[node][0], at) for node in set(column).intersection(place))
    groups = nx.condensation(needs)
    parts: list[Part] = []
    odd = np.zeros(len(statements[0].nodes), bool)
    for group in nx.lexicographical_topological_sort(groups, key=lambda group: min(groups.nodes[group]["members"])):
        members = sorted(groups.nodes[group]["members"])
        if len(members) == 1 and not needs.has_edge(members[0], members[0]):
            parts.append(Together(statements[members[0]]))
            continue
        lags: dict[tuple[Statement, int], tuple[Statement, int]] = {}
        for at in members:
            for position, column in enumerate(statements[at].columns):
                source, lag, strange = _lag(column, place, set(members))
                odd |= strange
                if lag is not None:
                    lags[statements[at], position] = statements[source], lag
        inside = [statements[at] for at in members]
        parts.append(_as_total(inside, lags) or InTurn(inside, lags))
    return parts, odd


def _lag(column: list, place: dict[Node, tuple[int, int]], members: set[int]) -> tuple[int, int | None, np.ndarray]:
    """Return which of the members a column holds, of how many steps before (None if of none), and where it does not."""
    found = [place.get(node) for node in column]
    codes = [(at[0], step - at[1]) if at and at[0] in members else None for step, at in enumerate(found)]
    usual = codes[len(codes) // 2]
    source, lag = usual or (0, None)
    first = lag or 0  # at the first steps, what was before the loop takes the place of earlier steps
    strange = [code != usual and not (code is None and step < first) for step, code in enumerate(codes)]
    return source, lag, np.array(strange)


def _as_total(statements: list[Statement], lags: dict[tuple[Statement, int], tuple[Statement, int]]) -> Total | None:
    """Return statements as a running total if they are one."""
    if len(lags) != len(statements) or sum(lag for _, lag in lags.values()) != 1:
        return None
    terms = []
    for statement, position in sorted(lags, key=lambda pair: statements.index(pair[0])):
        node = statement.nodes[0]
        if len(statement.columns) != 2 or _kind(node) != _kind(statements[0].nodes[0]):
            return None
        if node.target is aten.add.Tensor:
            terms.append((statement.columns[1 - position], 1))
        elif node.target is aten.sub.Tensor and position == 0:
            terms.append((statement.columns[1], -1))
        else:
            return None
    first, position = next(iter(pair for pair, (_, lag) in lags.items() if lag))
    start = first.columns[position][0]
    return Total(statements, terms, start) if _kind(start) == _kind(first.nodes[0]) else None
