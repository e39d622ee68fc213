"""The loss of any reparameterised guide at fixed noise: a recorded step of which the noise is an input, at many draws.

Giordano, Ingram and Broderick (2024), JMLR 25; Burroni, Domke and Sheldon (2024), UAI.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..engines.graph import CannotCompile, recorded
from .balanced import balanced_normals
from .losses import loss_and_grads

Estimate = Callable[[], float]


class FixedNoise:
    """Makes losses that are the same function at every call.

    Noise is balanced where the step can be recorded; otherwise the guide draws one after another, from a fixed seed.
    """

    def __init__(self, loss: Any, model: Callable, guide: Callable, leaves: Sequence[Tensor], data: tuple) -> None:
        self._loss, self._model, self._guide, self._leaves, self._data = loss, model, guide, leaves, data
        self._step = self._recorded_step()

    def estimate(self, count: int, seed: int) -> Estimate:
        """Return a function that returns the mean loss over ``count`` draws and adds its gradient to the leaves'."""
        if self._step is None:
            return lambda: self._seeded(count, seed)
        run = self._averaged(count, seed)

        def estimate() -> float:
            with torch.no_grad():
                value, *gradients = run(*(leaf.detach() for leaf in self._leaves))
            for leaf, gradient in zip(self._leaves, gradients, strict=True):
                leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
            return float(value)

        return estimate

    def _recorded_step(self) -> Any:
        from ..engines.compiled.functionalise import functionalise  # imported where used: imports torch.fx
        from ..engines.compiled.trace_step import trace_step

        try:
            graph = trace_step(self._loss, self._model, self._guide, self._leaves, [self._data], [])
            step = functionalise(graph, [leaf.detach() for leaf in self._leaves])
        except CannotCompile:
            return None
        _without_copies(step.graph)
        return step

    def _averaged(self, count: int, seed: int) -> Callable[..., tuple[Tensor, ...]]:
        step, like = self._step, self._leaves[0].detach()
        normals, uniforms = step.noise
        generator = torch.Generator().manual_seed(seed)
        half = torch.rand(count // 2, uniforms, generator=generator, dtype=torch.float64)
        normal = balanced_normals(count, normals, seed) if normals else torch.zeros(2 * len(half), 0)
        noise = [value.to(like) for value in (normal, torch.cat([half, 1 - half]))]

        def one(*inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(torch.fx.Interpreter(step.graph).run(*inputs, *step.constants))

        def averaged(*leaves: Tensor) -> tuple[Tensor, ...]:
            found = torch.vmap(one, in_dims=(*[None] * len(leaves), 0, 0))(*leaves, *noise)
            return tuple(value.mean(0) for value in found)

        leaves = tuple(leaf.detach() for leaf in self._leaves)
        try:
            return recorded(averaged, leaves)
        except (RuntimeError, ValueError, NotImplementedError):  # an operation that cannot be batched
            run = recorded(one, (*leaves, *(value[0] for value in noise)))

        def in_turn(*leaves: Tensor) -> tuple[Tensor, ...]:
            found = [run(*leaves, *row) for row in zip(*noise, strict=True)]
            return tuple(torch.stack(values).mean(0) for values in zip(*found, strict=True))

        return in_turn

    def _seeded(self, count: int, seed: int) -> float:
        before = [None if leaf.grad is None else leaf.grad.clone() for leaf in self._leaves]
        for leaf in self._leaves:
            leaf.grad = None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            total = sum(float(loss_and_grads(self._loss, self._model, self._guide, self._data)) for _ in range(count))
        for leaf, old in zip(self._leaves, before, strict=True):
            if leaf.grad is not None:
                leaf.grad = leaf.grad / count if old is None else old + leaf.grad / count
        return total / count


def _without_copies(graph: GraphModule) -> None:
    """Replace copies, of which torch cannot take many at once, by what they copy."""
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.copy.default:
            over, source = node.args[:2]
            if over.meta["val"].dtype == source.meta["val"].dtype:
                with graph.graph.inserting_before(node):
                    shape = list(over.meta["val"].shape)
                    same = graph.graph.call_function(torch.ops.aten.expand.default, (source, shape))
                same.meta = dict(node.meta)
                node.replace_all_uses_with(same)
                graph.graph.erase_node(node)
    graph.recompile()
