"""A potential, its gradient and products with its Hessian at many points at once.

For methods that work with a batch of draws or of chains. The graph that is recorded has a fixed number of rows, so that
a few sizes serve all: fewer points are padded, more are taken in turn. Where graphs serve many data sets, or thousands
of points, a wider one pays, whose operations cost less per row.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial

import torch
from torch import Tensor

from ..traces.recurring import Recurring
from ..traces.validation import unvalidated
from ..traces.vectors import Sites, as_sites, as_vector
from . import xla
from .graph import CannotCompile, Potential, recorded
from .record import LogitsWithoutWrites, ZerosInMemory, count_operations
from .signals import signals_held

ROWS, WIDE_ROWS = 64, 256  # points at once, and where a graph serves many data sets or thousands of points
LONG_LOOP = 300  # operations of one call from which compiling (a second) pays
MAX_NUMBERS = 2_000_000  # entries of the data, times the points, that are worked on at once: arrays beyond 32 MB are
# mapped and unmapped by the C library, operation after operation, which takes several times as long as the arithmetic

Function = Callable[..., tuple[Tensor, ...]]


class Batched:
    """A potential (nats) over vectors: the unconstrained values of all sites, one after another.

    Parameters
    ----------
    potential : callable
        Unconstrained values by site → a scalar; it draws no random numbers.
    at : dict of Tensor
        Values at which it is finite.
    size : int
        Numbers in the data, by which fewer points are taken at once.
    recurring : Recurring, optional
        Where to keep graphs in which the data of ``potential.joint`` are inputs, for the next data of the same shape.
    kept : dict, optional
        Graphs of this potential that were recorded before, as `graphs_of` returns them; what is recorded is added.

    Attributes
    ----------
    start : Tensor, shape (d)
        The vector of ``at``.
    gradients : int
        Points at which a gradient was taken so far; a product with the Hessian counts as two.
    is_recorded : bool
        Whether a recorded graph is run, and not the model itself at one point after another.
    """

    def __init__(
        self,
        potential: Potential,
        at: Sites,
        size: int = 0,
        recurring: Recurring | None = None,
        kept: dict[Hashable, Function] | None = None,
    ) -> None:
        self._recurring, self._recorded = recurring, {} if kept is None else kept
        self.start, self.gradients, self.is_recorded = as_vector(at), 0, True
        self._potential, self._shapes = potential, {name: value.shape for name, value in at.items()}
        self._most = max(1, MAX_NUMBERS // max(1, size))
        self._rows = min(ROWS, self._most)
        self._wide_rows = min(WIDE_ROWS, self._most) if recurring else self._rows
        self._checked: dict[bool, tuple[Tensor, ...]] = {}  # what the model itself gives, by `second`
        self._graphs: dict[tuple[bool, int], Function] = {}

    @property
    def dim(self) -> int:
        """Number of unconstrained latent numbers."""
        return len(self.start)

    def sites(self, vectors: Tensor) -> Sites:
        """Return unconstrained values by name, shape (…, *site), from vectors (…, d)."""
        return as_sites(vectors, self._shapes)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (n) and gradients (n, d) at points (n, d): infinity and zero where they are not finite."""
        self.gradients += len(points)
        energy, gradient = self._mapped(False, points)
        finite = torch.isfinite(energy) & torch.isfinite(gradient).all(1)
        return torch.where(finite, energy, torch.inf), torch.where(finite[:, None], gradient, 0.0)

    def products(self, points: Tensor, directions: Tensor) -> Tensor:
        """Return the Hessian at each point (n, d) times a direction (n, d), shape (n, d); nan if it is not finite."""
        self.gradients += 2 * len(points)
        return self._mapped(True, points, directions)[0]

    def hessian(self, point: Tensor) -> Tensor:
        """Return the second derivatives at a point (d), shape (d, d)."""
        rows = self.products(point.expand(self.dim, -1), torch.eye(self.dim).to(point))
        return (rows + rows.T) / 2

    def hessians(self, points: Tensor) -> Tensor:
        """Return the second derivatives at each of points (n, d), shape (n, d, d)."""
        count, eye = len(points), torch.eye(self.dim).to(points)
        rows = self.products(points.repeat_interleave(self.dim, 0), eye.repeat(count, 1)).unflatten(0, (count, -1))
        return (rows + rows.mT) / 2

    @contextmanager
    def widened(self) -> Iterator[None]:
        """Take more points per call of a graph for a while, which costs less per point where there are thousands."""
        before, self._wide_rows = self._wide_rows, min(WIDE_ROWS, self._most)
        try:
            yield
        finally:
            self._wide_rows = before

    def _mapped(self, second: bool, *inputs: Tensor) -> list[Tensor]:
        count = len(inputs[0])
        rows = 1 if count == 1 else self._wide_rows if count >= self._wide_rows else self._rows
        run = self._graph(second, rows)
        parts: list[tuple[Tensor, ...]] = []
        for begin in range(0, count, rows):
            parts.append(self._run(run, rows, [value[begin : begin + rows] for value in inputs]))
        return [torch.cat(values) for values in zip(*parts, strict=True)]

    def _run(self, run: Function, rows: int, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        count = len(inputs[0])
        padded = (torch.cat([value, value[-1:].expand(rows - count, -1)]) for value in inputs)
        return tuple(value[:count] for value in run(*padded))

    def _graph(self, second: bool, rows: int) -> Function:
        if (second, rows) not in self._graphs:
            self._graphs[second, rows] = self._made(second, rows)
        return self._graphs[second, rows]

    def _made(self, second: bool, rows: int) -> Function:
        function: Function = self._products if second else self._gradients
        eagerly = _one_by_one(self._product_eagerly if second else self._gradient_eagerly)
        if not self.is_recorded:
            return eagerly
        points = self._nearby[torch.arange(rows) % len(self._nearby)]
        inputs = (points, torch.ones_like(points)) if second else (points,)
        key = second, rows
        try:
            if second not in self._checked:
                with ZerosInMemory():
                    self._checked[second] = eagerly(*(value[:1] for value in inputs))
            checked = self._checked[second]
            for make in (self._recorded.get, lambda _: self._new(function, inputs)):
                graph = make(key)
                if graph and all(_agree(a[:1], b) for a, b in zip(graph(*inputs), checked, strict=True)):
                    self._recorded[key] = graph
                    return graph
        except Exception:  # user models can fail in any way; take one point after another
            pass
        self.is_recorded = second  # gradients may be had from a graph though second derivatives are not
        return eagerly

    @cached_property
    def _nearby(self) -> Tensor:
        """Points around the start, (ROWS, d), at which graphs are recorded; at the first they are compared."""
        return self.start + 0.01 * torch.linspace(-1, 1, ROWS * self.dim).to(self.start).reshape(ROWS, -1)

    def _new(self, function: Function, inputs: tuple[Tensor, ...]) -> Function:
        graph = self._with_data(function, inputs) or self._xla
        return graph or recorded(function, inputs, without_writes=partial(function, without_writes=True))

    def _with_data(self, function: Function, inputs: tuple[Tensor, ...]) -> Function | None:
        """Return a graph of which the data are inputs, with these data; None if they do not recur."""
        if self._recurring is None:
            return None
        joint, graphs = self._potential.joint, self._recurring.graphs  # pyright: ignore[reportFunctionMemberAccess]
        places = [place for place in self._recurring.varying if isinstance(joint.data[place], Tensor)]
        data = tuple(joint.data[place] for place in places)
        key = function.__name__, *((value.shape, value.dtype) for value in (*inputs, *data))

        def with_data(*points_and_data: Tensor, without_writes: bool = False) -> tuple[Tensor, ...]:
            points, values = points_and_data[: len(inputs)], points_and_data[len(inputs) :]
            with joint.on(dict(zip(places, values, strict=True))):
                return function(*points, without_writes=without_writes)

        if key not in graphs:
            try:
                graphs[key] = recorded(
                    with_data, (*inputs, *data), without_writes=partial(with_data, without_writes=True)
                )
            except Exception:  # what a model computes from data may depend on their values
                graphs[key] = None
        graph = graphs[key]
        return graph and (lambda *points: graph(*points, *data))

    @cached_property
    def _xla(self) -> Function | None:
        """The function in compiled code, where that pays and is there: all loops of a model as one program."""
        with torch.no_grad(), unvalidated():
            if count_operations(self._energy, self.start) <= LONG_LOOP:
                return None
        if self.start.device.type != "cpu" or not xla.installed():
            return None
        try:
            with signals_held():
                from .xla.batched import compile_batched  # imports JAX

            return compile_batched(self._energy, self.start)
        except (CannotCompile, ImportError, AttributeError):
            return None

    def _energy(self, vector: Tensor) -> Tensor:
        return self._potential(self.sites(vector))

    def _gradients(self, points: Tensor, *, without_writes: bool = False) -> tuple[Tensor, ...]:
        energies, gradients = self._differentiated(points.detach().requires_grad_(), without_writes)
        return energies.detach(), gradients.detach()

    def _products(self, points: Tensor, directions: Tensor, *, without_writes: bool = False) -> tuple[Tensor, ...]:
        leaves = points.detach().requires_grad_()
        gradients = self._differentiated(leaves, without_writes)[1]
        with torch.enable_grad(), ZerosInMemory():
            (products,) = torch.autograd.grad((gradients * directions).sum(), leaves, create_graph=True)
        return (products.detach(),)

    def _differentiated(self, leaves: Tensor, without_writes: bool) -> tuple[Tensor, Tensor]:
        """Return energies (n) and gradients (n, d), each of its own row; ``without_writes`` to tensors in place.

        ``torch.func.grad`` would import torch's compiler, which takes most of a second; ``create_graph`` keeps
        gradients from being added up in place, which cannot be recorded.
        """
        energy = torch.func.functionalize(self._energy, remove="mutations") if without_writes else self._energy
        with torch.enable_grad(), LogitsWithoutWrites():
            energies = torch.vmap(energy, randomness="same")(leaves)
            (gradients,) = torch.autograd.grad(energies.sum(), leaves, create_graph=True)
        return energies, gradients

    def _gradient_eagerly(self, point: Tensor) -> tuple[Tensor, ...]:
        leaf = point.detach().requires_grad_()
        energy = self._energy(leaf)
        return energy.detach(), *torch.autograd.grad(energy, leaf)

    def _product_eagerly(self, point: Tensor, direction: Tensor) -> tuple[Tensor, ...]:
        leaf = point.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self._energy(leaf), leaf, create_graph=True)
        return torch.autograd.grad(gradient @ direction, leaf)


def _one_by_one(function: Function) -> Function:
    def row(*inputs: Tensor) -> tuple[Tensor, ...]:
        try:
            return function(*inputs)
        except (RuntimeError, ValueError):  # a matrix without a factorisation, say
            nothing = torch.full_like(inputs[0], torch.nan)
            return (nothing[0], nothing) if len(inputs) == 1 else (nothing,)

    def mapped(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad(), unvalidated():
            rows = [row(*each) for each in zip(*inputs, strict=True)]
        return tuple(torch.stack(values) for values in zip(*rows, strict=True))

    return mapped


def _agree(a: Tensor, b: Tensor) -> bool:
    tolerance = 1e-9 if a.dtype == torch.float64 else 1e-3
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * (1 + float(b.abs().max())))
