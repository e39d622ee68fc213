"""One gradient estimate of an ELBO, model and guide and all, as a graph of tensor operations without Pyro in it.

Pyro runs once, on stand-ins for the parameters, while ``make_fx`` writes down every operation, those of the gradient
too. A stand-in takes its parameter's place in every tensor operation, wherever the parameter was kept: in a module, in
Pyro's store or in a closure.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ...optim.losses import loss_and_grads
from ..graph import CannotCompile, words

# What Pyro asks of values while a step is recorded: warn_if_nan, whether one is NaN (which is seen when the graph has
# run), and Dice, whether all probabilities are positive (else it leaves some out, of which 0 times the cost is left).
_ANSWERS = {"pyro.util": False, "pyro.infer.util": True}


def record(
    loss: Any, model: Callable, guide: Callable, leaves: Sequence[Tensor], samples: Sequence[tuple], rows: list[int]
) -> GraphModule:
    """Record loss and gradient as a graph, and check it against Pyro at the same draws.

    Parameters
    ----------
    loss : pyro.infer.ELBO or callable
        As for `svi`; gradient and all are recorded.
    model, guide : callable
        With their parameters made.
    leaves : sequence of Tensor
        Unconstrained parameters of both.
    samples : sequence of tuple
        Arguments of model and guide: the graph is recorded at the first and checked at all of them.
    rows : list of int
        Positions among the arguments of what changes from step to step; the rest become constants.

    Returns
    -------
    GraphModule
        (leaves …, changing arguments …) → (loss, gradients …). It draws from torch's generator as the eager step does.

    Raises
    ------
    CannotCompile
        If the model or the guide branches on a value, or the graph does not give what the eager step gives.
    """

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        values, batch = list(inputs[: len(leaves)]), list(samples[0])
        for position, value in zip(rows, inputs[len(leaves) :], strict=True):
            batch[position] = value
        inner = [value.detach().requires_grad_() for value in values]
        with _StandIns(leaves, inner):
            value = loss_and_grads(loss, model, guide, tuple(batch))
        if not isinstance(value, Tensor):
            raise CannotCompile("its loss does not depend on tensors alone")
        return value.detach(), *(torch.zeros_like(z) if z.grad is None else z.grad.detach() for z in inner)

    at = [leaf.detach() for leaf in leaves]
    try:
        with pyro.validation_enabled(False):
            graph = make_fx(step)(*at, *(samples[0][position] for position in rows))
    except CannotCompile:
        raise
    except Exception as error:  # whatever the tracer meets in a stranger's model, the eager step still serves
        raise CannotCompile(words(error)) from None
    run = Interpreter(graph)
    for data in samples:
        with torch.random.fork_rng():
            value = torch.as_tensor(loss_and_grads(loss, model, guide, data), dtype=torch.float64)
        eager = [value, *(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves)]
        for leaf in leaves:
            leaf.grad = None
        with torch.no_grad():
            ours = run.run(*at, *(data[position] for position in rows), enable_io_processing=False)
        tolerance = 1e-9 if at[0].dtype == torch.float64 else 1e-4
        for a, b in zip(eager, ours, strict=True):
            if not torch.allclose(a.to(b.dtype), b, rtol=tolerance, atol=tolerance * (1 + float(b.abs().max()))):
                raise CannotCompile("recorded, it does not give what it gives step by step")
    return graph


class _StandIns(TorchFunctionMode):
    """Puts stand-ins in the place of tensors, and lets Pyro's losses stay tensors."""

    def __init__(self, tensors: Sequence[Tensor], stand_ins: Sequence[Tensor]) -> None:
        super().__init__()
        self._of = {id(tensor): stand_in for tensor, stand_in in zip(tensors, stand_ins, strict=True)}

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is Tensor.item and sys._getframe(1).f_globals["__name__"].startswith("pyro."):
            return args[0].detach()
        if func is Tensor.__bool__ and sys._getframe(1).f_globals["__name__"] in _ANSWERS:
            return _ANSWERS[sys._getframe(1).f_globals["__name__"]]
        if func is Tensor.register_hook:  # pyro's look for NaN; what changes a gradient is found by the check
            return None
        given = pytree.tree_map_only(Tensor, lambda value: self._of.get(id(value), value), (args, kwargs or {}))
        return func(*given[0], **given[1])
