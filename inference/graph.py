"""A potential and its gradient as one traced graph of tensor operations, without Pyro's overhead at every call.

The graph is recorded once by ``make_fx``, gradient included, and run by TorchScript's interpreter. It is trusted only
after it has agreed with the eager potential at several points.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

Params = dict[str, Tensor]
Potential = Callable[[Params], Tensor]


def traced(potential: Potential, at: Params, num_checks: int = 3, *, gradient: bool = True) -> Potential | None:
    """The same potential on a graph, differentiable as the eager one; None where it cannot be traced.

    Parameters
    ----------
    potential : callable
        Unconstrained parameters by site → negative log density, a scalar; draws no random numbers.
    at : dict of Tensor
        A point of finite density, where the graph is recorded.
    num_checks : int
        Points, ``at`` and ones near it, at which value and gradient must equal the eager ones.
    gradient : bool
        Whether the graph has the gradient, too. Without it a call costs less than half and cannot be differentiated.

    Returns
    -------
    callable or None
        None if the model branches on a drawn value, or the graph does not agree.
    """
    names = list(at)

    def value_and_grads(*values: Tensor) -> tuple[Tensor, ...]:
        if not gradient:
            return (potential(dict(zip(names, values, strict=True))),)
        grads, value = torch.func.grad_and_value(lambda inner: potential(dict(zip(names, inner, strict=True))))(values)
        return value, *grads

    values = tuple(at[name].detach() for name in names)
    with warnings.catch_warnings(), pyro.validation_enabled(False):
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated, and nothing as quick to start replaces it
        try:
            graph = make_fx(value_and_grads)(*values)
            graph.graph.eliminate_dead_code()  # safe: nothing in a potential draws or writes
            graph.recompile()
            run = torch.jit.freeze(torch.jit.trace(graph, values).eval())  # pyright: ignore[reportAttributeAccessIssue]
            agree = all(_agrees(run, potential, names, _near(values, step), gradient) for step in range(num_checks))
        except Exception:  # whatever the tracer meets in a stranger's model, the eager potential still serves
            return None
    if not agree:
        return None

    def run_or_nan(*inputs: Tensor) -> tuple[Tensor, ...]:
        try:
            return run(*inputs)
        except RuntimeError as error:
            if "linalg" not in str(error):
                raise
            return inputs[0].new_tensor(float("nan")), *(torch.zeros_like(z) for z in inputs)

    if not gradient:
        return lambda params: run_or_nan(*(params[name] for name in names))[0]

    class Traced(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            value, *grads = run_or_nan(*inputs)
            ctx.save_for_backward(*grads)
            return value

        @staticmethod
        def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, ...]:
            return tuple(upstream[0] * grad for grad in ctx.saved_tensors)

    return lambda params: Traced.apply(*(params[name] for name in names))  # pyright: ignore[reportReturnType]


def _near(values: tuple[Tensor, ...], step: int) -> tuple[Tensor, ...]:
    return tuple(value + 0.1 * step * torch.randn_like(value) for value in values)


def _agrees(run: Callable, potential: Potential, names: list[str], values: tuple[Tensor, ...], gradient: bool) -> bool:
    leaves = [value.clone().requires_grad_(gradient) for value in values]
    eager = potential(dict(zip(names, leaves, strict=True)))
    ours = run(*values)
    tolerance = 1e-9 if ours[0].dtype == torch.float64 else 1e-3
    pairs = zip(ours, (eager.detach(), *(torch.autograd.grad(eager, leaves) if gradient else ())), strict=True)
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)
