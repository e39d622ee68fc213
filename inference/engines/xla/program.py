"""A recorded graph as a function of JAX arrays, with the loops that `roll` finds in it as loops."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array, lax
from torch.fx import Node

from ..record import Recorded
from .roll import PICKS, InTurn, Part, Statement, Together, Total, leaves, roll, used_outside, with_leaves
from .translate import apply, constant

aten = torch.ops.aten
MAX_KEPT = 16  # statements in a loop's body whose results the gradient reads back; more are quicker computed again


def as_jax(recorded: Recorded, parts: list[Part] | None = None) -> tuple[Callable[..., Array], list[np.ndarray]]:
    """Return a graph as a function of its input, and the constants that the function takes after it.

    Data are such constants, so that they are not compiled into the program. ``parts`` are what `roll` makes of the
    graph.
    """
    compiler = _Compiler(recorded.constants)
    steps = [compiler.step(part) for part in (roll(recorded.graph) if parts is None else parts)]
    inputs = [node for node in recorded.graph.nodes if node.op == "placeholder"]
    (output,) = (node.args[0] for node in recorded.graph.nodes if node.op == "output")
    result = compiler.value(output)

    def run(at: Array, *given: Array) -> Array:
        memory = _Memory(given)
        memory.values |= dict.fromkeys(inputs, at)
        for step in steps:
            step(memory)
        return result(memory)

    return run, compiler.arguments


class _Memory:
    """What has been computed: results of nodes, and of statements, whose first axis counts the steps of their loop."""

    def __init__(self, given: tuple) -> None:
        self.given = given  # constants
        self.values: dict[Node, Any] = {}
        self.stacks: dict[Statement, Any] = {}


Read = Callable[[_Memory], Any]
Step = Callable[[_Memory], None]


class _Compiler:
    """Turns the parts of a graph, in their order, into functions that compute them from a memory into it."""

    def __init__(self, constants: dict[Node, torch.Tensor]) -> None:
        self.arguments: list[np.ndarray] = []
        self._fixed = constants
        self._place: dict[Node, tuple[Statement, int]] = {}  # of results in stacks
        self._alike: set[Statement] = set()  # those with the same result at every step, which is no stack
        self._known: dict[Any, Read] = {}

    def step(self, part: Part) -> Step:
        """Return a function that computes a part."""
        if isinstance(part, Together):
            return self._together(part.statement)
        if isinstance(part, Total):
            return self._total(part)
        if isinstance(part, InTurn):
            return self._in_turn(part)
        if part.target in (aten.cat.default, aten.stack.default):
            return self._concatenation(part)
        return self._single(part)

    def value(self, leaf: Any) -> Read:
        """Return how to read the result of a node; anything else is what it is."""
        if not isinstance(leaf, Node):
            return lambda memory: leaf
        if leaf in self._fixed and leaf not in self._known:
            read = constant(self._fixed[leaf], self.arguments)
            self._known[leaf] = lambda memory: read(memory.given)
        if leaf in self._known:
            return self._known[leaf]
        if leaf not in self._place:
            return lambda memory: memory.values[leaf]
        statement, step = self._place[leaf]
        if statement in self._alike:
            return lambda memory: memory.stacks[statement]
        return lambda memory: _at(memory.stacks[statement], step)

    def column(self, column: Iterable[Any]) -> Read:
        """Return how to read one result, or number, for each step, stacked."""
        key = tuple(column)
        if key not in self._known:
            reads = [self._piece(piece) for piece in self._pieces(key)]
            self._known[key] = lambda memory: jax.tree.map(_joined, *(read(memory) for read in reads))
        return self._known[key]

    def is_alike(self, column: list) -> bool:
        """Return whether a column is the same at every step."""

        def source(leaf: Any) -> Any:
            statement, _ = self._place.get(leaf, (None, 0))
            return statement if statement in self._alike else leaf

        first = source(column[0])
        return all(source(leaf) == first for leaf in column)

    def _pieces(self, column: Iterable[Any]) -> Iterator[list]:
        """Cut a column into numbers, constants, results of one statement, and single results."""

        def source(leaf: Any) -> Any:
            if not isinstance(leaf, Node):
                return None
            return _shape(leaf) if leaf in self._fixed else self._place.get(leaf, (leaf,))[0]

        for _, piece in groupby(column, source):
            yield list(piece)

    def _piece(self, piece: list) -> Read:
        first = piece[0]
        if not isinstance(first, Node):
            return lambda memory: np.array(piece)
        if first in self._fixed and len(piece) > 1:
            read = constant(torch.stack([self._fixed[node] for node in piece]), self.arguments)
            return lambda memory: read(memory.given)
        statement, _ = self._place.get(first, (None, 0))
        if statement is None or statement in self._alike:
            read, number = self.value(first), len(piece)
            return lambda memory: jax.tree.map(lambda a: jnp.broadcast_to(a, (number, *a.shape)), read(memory))
        steps = np.array([self._place[node][1] for node in piece])
        return lambda memory: jax.tree.map(lambda a: _taken(a, steps, 0), memory.stacks[statement])

    def _single(self, node: Node) -> Step:
        reads = [self.value(leaf) for leaf in leaves(node)]

        def step(memory: _Memory) -> None:
            memory.values[node] = _call(node, [read(memory) for read in reads])

        return step

    def _concatenation(self, node: Node) -> Step:
        """Compute a ``cat`` or a ``stack``: results of one statement are stacked already."""
        given: tuple[Any, ...] = (*node.args, 0)
        nodes, dim = given[:2]
        axis: int = dim % len(_shape(node))
        reads = [self._piece(piece) for piece in self._pieces(part for part in nodes if _shape(part) != (0,))]

        def step(memory: _Memory) -> None:
            parts = [jnp.moveaxis(read(memory), 0, axis) for read in reads]
            if node.target is aten.cat.default:
                parts = [part.reshape(*part.shape[:axis], -1, *part.shape[axis + 2 :]) for part in parts]
            memory.values[node] = jnp.concatenate(parts, axis)

        return step

    def _together(self, statement: Statement) -> Step:
        """Compute all steps of a statement at once."""
        node, columns = statement.nodes[0], statement.columns
        moving = [place for place, column in enumerate(columns) if not self.is_alike(column)]
        reads = [
            self.column(column) if place in moving else self.value(column[0]) for place, column in enumerate(columns)
        ]
        self._remember([statement])
        if not moving:
            self._alike.add(statement)

        def step(memory: _Memory) -> None:
            values = [read(memory) for read in reads]
            if not moving:
                memory.stacks[statement] = _call(node, values)
            elif node.target in PICKS and 0 not in moving:
                memory.stacks[statement] = _picked(node, *values[:3])
            else:

                def one(moved: list) -> Any:
                    for place, value in zip(moving, moved, strict=True):
                        values[place] = value
                    return _call(node, values)

                memory.stacks[statement] = jax.vmap(one)([values[place] for place in moving])

        return step

    def _total(self, part: Total) -> Step:
        """Compute a running total: its end alone if nothing else is used."""
        last = part.statements[-1].nodes[-1]
        like, steps = last.meta["val"], len(part.statements[0].nodes)
        start, terms = self.value(part.start), [(self._terms(column, like), sign) for column, sign in part.terms]
        only_last = used_outside(part.statements) <= {last}
        if not only_last:
            self._remember(part.statements)

        def step(memory: _Memory) -> None:
            added = jnp.stack([sign * read(memory) for read, sign in terms], 1)
            if only_last:
                memory.values[last] = start(memory) + added.sum((0, 1))
                return
            totals = start(memory) + jnp.cumsum(added.reshape(-1, *like.shape), 0)
            totals = totals.reshape(steps, len(terms), *like.shape)
            for place, statement in enumerate(part.statements):
                memory.stacks[statement] = totals[:, place]

        return step

    def _terms(self, column: list, like: torch.Tensor) -> Read:
        """Return how to read a column, each entry broadcast to the shape of the total."""
        read, dims = self.column(column), like.dim()

        def step(memory: _Memory) -> Array:
            value = jnp.asarray(read(memory), str(like.dtype).removeprefix("torch."))
            value = value.reshape(len(column), *(1,) * (dims + 1 - value.ndim), *value.shape[1:])
            return jnp.broadcast_to(value, (len(column), *like.shape))

        return step

    def _in_turn(self, part: InTurn) -> Step:
        """Go through the steps in turn."""
        used = used_outside(part.statements)
        firsts = {key: tuple(key[0].columns[key[1]][:lag]) for key, (_, lag) in part.lags.items() if lag}
        lines = list(dict.fromkeys((*part.lags[key], first) for key, first in firsts.items()))
        starts = [self.column(first) if lag > 1 else self.value(first[0]) for _, lag, first in lines]
        ends = {source.nodes[-1]: line for line, (source, lag, _) in enumerate(lines) if lag == 1}
        emitted = [statement for statement in part.statements if used.intersection(statement.nodes) - ends.keys()]
        fixed: dict[Any, Read] = {}
        moving: dict[Any, Read] = {}
        for statement in part.statements:
            for place, column in enumerate(statement.columns):
                if (statement, place) in part.lags:
                    continue
                if self.is_alike(column):
                    fixed[statement, place] = self.value(column[0])
                else:
                    moving[statement, place] = self.column(column)
        self._remember(emitted)

        def step(memory: _Memory) -> None:
            outer = {key: read(memory) for key, read in fixed.items()}

            def body(carried: list, moved: list) -> tuple[list, list]:
                known = outer | dict(zip(moving, moved, strict=True))
                new: dict[Statement, Any] = {}
                for key, first in firsts.items():
                    line = (*part.lags[key], first)
                    value = carried[lines.index(line)]
                    known[key] = value if line[1] == 1 else _at(value, 0)
                for statement in part.statements:
                    for place in range(len(statement.columns)):
                        if (statement, place) not in known:
                            known[statement, place] = new[part.lags[statement, place][0]]
                    values = [known[statement, place] for place in range(len(statement.columns))]
                    new[statement] = _call(statement.nodes[0], values)
                after = [
                    new[source] if lag == 1 else _pushed(value, new[source])
                    for value, (source, lag, _) in zip(carried, lines, strict=True)
                ]
                return after, [new[statement] for statement in emitted]

            start = [read(memory) for read in starts]
            if len(part.statements) > MAX_KEPT:
                body = jax.checkpoint(body, prevent_cse=False)
            given, length = [read(memory) for read in moving.values()], len(part.statements[0].nodes)
            carried, stacks = lax.scan(body, start, given, length)
            memory.stacks |= dict(zip(emitted, stacks, strict=True))
            memory.values |= {node: carried[line] for node, line in ends.items()}

        return step

    def _remember(self, statements: list[Statement]) -> None:
        for statement in statements:
            self._place |= {node: (statement, step) for step, node in enumerate(statement.nodes)}


def _call(node: Node, values: list[Any]) -> Any:
    """Run a node's operation on other leaves of its arguments."""
    like: Any = node.meta.get("val")
    if node.target in PICKS and not isinstance(values[2], int | None):
        base, dim, first = values[:3]
        if node.target is aten.select.int:
            return lax.dynamic_index_in_dim(base, first, dim % base.ndim, keepdims=False)
        return lax.dynamic_slice_in_dim(base, first, like.shape[dim], dim % base.ndim)
    args, kwargs = with_leaves(node, values)
    return apply(node.target, *args, like=like, **kwargs)


def _picked(node: Node, base: Array, dim: int, firsts: np.ndarray) -> Array:
    """Return one selection or slice of an array for each step."""
    axis = dim % base.ndim
    if node.target is aten.select.int:
        return jnp.moveaxis(_taken(base, firsts, axis), axis, 0)
    length = _shape(node)[axis]
    taken = _taken(base, (firsts[:, None] + np.arange(length)).reshape(-1), axis)
    taken = taken.reshape(*base.shape[:axis], len(firsts), length, *base.shape[axis + 1 :])
    return jnp.moveaxis(taken, axis, 0)


def _taken(a: Array, places: np.ndarray, axis: int) -> Array:
    """Return the entries at these places, by a slice if that will do."""
    steps = np.unique(np.diff(places))
    if len(steps) == 1 and steps[0] > 0:
        return lax.slice_in_dim(a, int(places[0]), int(places[-1]) + 1, int(steps[0]), axis)
    return jnp.take(a, places, axis)


def _joined(*parts: Any) -> Any:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _at(values: Any, step: int) -> Any:
    return jax.tree.map(lambda a: lax.index_in_dim(a, step, keepdims=False), values)


def _pushed(line: Any, value: Any) -> Any:
    """Drop the oldest of the values of several steps, and append a new one."""
    return jax.tree.map(lambda old, new: jnp.concatenate([old[1:], new[None]]), line, value)


def _shape(node: Node) -> torch.Size:
    return node.meta["val"].shape
