"""One gradient estimate of an ELBO, guide and model included, as a graph of tensor operations without Pyro.

Pyro runs once, on stand-ins for the parameters, while every operation is recorded, those of the gradient too.
A stand-in replaces its parameter in every tensor operation, wherever the parameter is kept: in a module, in Pyro's
store or in a closure.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode

from ...optim.losses import loss_and_grads
from ..graph import CannotCompile, reason
from ..record import WritesInPlace, record
from .functionalise import UNROLLED, cumprod

# Answers to what Pyro's own modules ask of a value while a step is recorded: `warn_if_nan`, whether it is NaN (each
# loss is checked after the step instead), and `Dice`, whether all probabilities are positive (else it drops those
# that are zero, whose terms are zero anyway).
_ANSWERS = {"pyro.util": False, "pyro.infer.util": True}

# What a model asks of data that are constants: how many groups there are, say, int(group.max()) + 1.
_ASKED = {Tensor.max, Tensor.min, Tensor.amax, Tensor.unique, Tensor.sum, Tensor.any, Tensor.all, torch.max, torch.min}
_ASKED |= {torch.amax, torch.unique, torch.sum, torch.any, torch.all, Tensor.isnan, torch.isnan}
_READ = {Tensor.item, Tensor.tolist, Tensor.__int__, Tensor.__float__, Tensor.__bool__, Tensor.__index__}


def trace_step(
    loss: Any, model: Callable, guide: Callable, leaves: Sequence[Tensor], samples: Sequence[tuple], rows: list[int]
) -> GraphModule:
    """Record (unconstrained parameters …, changing arguments …) → (loss, gradients …); check it against Pyro.

    The graph is recorded at the first of the ``samples`` of arguments and checked at all of them, at the same draws: it
    draws from torch's generator as the eager step does. Arguments at positions not in ``rows`` become constants.
    """

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        values, batch = list(inputs[: len(leaves)]), list(samples[0])
        for position, value in zip(rows, inputs[len(leaves) :], strict=True):
            batch[position] = value
        inner = [value.detach().requires_grad_() for value in values]
        constants = [value for position, value in enumerate(batch) if position not in rows]
        with _StandIns(leaves, inner, constants):
            value = loss_and_grads(loss, model, guide, tuple(batch))
        if not isinstance(value, Tensor):
            raise CannotCompile("its loss does not depend on tensors alone")
        return value.detach(), *(torch.zeros_like(z) if z.grad is None else z.grad.detach() for z in inner)

    at = [leaf.detach() for leaf in leaves]
    try:
        with pyro.validation_enabled(False):
            graph = _recorded(step, [*at, *(samples[0][position] for position in rows)])
    except CannotCompile:
        raise
    except Exception as error:  # user models can fail in any way; fall back to eager
        raise CannotCompile(reason(error)) from None
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
        if not all(bool(torch.isfinite(a).all()) for a in eager):
            raise CannotCompile("its loss or a gradient is not finite at the start")
        for a, b in zip(eager, ours, strict=True):
            if not torch.allclose(a.to(b.dtype), b, rtol=tolerance, atol=tolerance * (1 + float(b.abs().max()))):
                raise CannotCompile("the recorded step disagrees with the eager one")
    return graph


def _recorded(step: Callable, inputs: list[Tensor]) -> GraphModule:
    """Return a step as a graph that draws; by `make_fx`, a second slower, if it writes to shared memory."""
    try:
        return record(step, inputs, lambda target: target not in UNROLLED, rules=UNROLLED, draws=True).module()
    except WritesInPlace:
        return make_fx(step)(*inputs)


class _StandIns(TorchFunctionMode):
    """Replace tensors by stand-ins, let Pyro's losses stay tensors, and answer what is asked of constant data."""

    def __init__(self, tensors: Sequence[Tensor], stand_ins: Sequence[Tensor], constants: Sequence[Any] = ()) -> None:
        super().__init__()
        self._constants = {id(value): value for value in constants if isinstance(value, Tensor)}
        self._of = {id(tensor): stand_in for tensor, stand_in in zip(tensors, stand_ins, strict=True)}

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if args and id(args[0]) in self._constants and (func in _ASKED or func in _READ):
            with disable_proxy_modes_tracing():
                found = func(*args, **(kwargs or {}))
            parts = found if isinstance(found, tuple) else (found,)
            self._constants |= {id(part): part for part in parts if isinstance(part, Tensor)}
            return found
        if func in (Tensor.item, Tensor.__bool__):  # only the caller tells Pyro's questions from the model's branches
            caller = sys._getframe(1).f_globals["__name__"]
            if func is Tensor.item and caller.startswith("pyro."):
                return args[0].detach()
            if func is Tensor.__bool__ and caller in _ANSWERS:
                return _ANSWERS[caller]
        if func is Tensor.register_hook:  # Pyro's search for NaN; a hook that changes a gradient fails the check
            return None

        def stand_in(value: Any) -> Any:
            return self._of.get(id(value), value)

        args, kwargs = map_aggregate(args, stand_in), map_aggregate(kwargs or {}, stand_in)  # pyright: ignore
        if func is Tensor.cumprod and (found := cumprod(*args, **kwargs)) is not NotImplemented:
            return found  # whose gradient does not ask where the zeros are, as torch's own
        return func(*args, **kwargs)
