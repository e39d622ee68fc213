"""Gradient steps on the parameters of the guide and of the model in turn: E-steps and M-steps by gradient."""

from collections.abc import Callable
from itertools import count
from typing import Any

from pyro.poutine import Trace
from torch import Tensor

from ..traces.params import model_leaves


def alternating_gradients(
    loss_and_grads: Callable[..., Any], every: int, model: Callable, model_trace: Trace, params: list[Tensor]
) -> Callable[..., Any]:
    """Return ``loss_and_grads`` with gradients for the guide ``every`` times, then for the model ``every`` times."""
    of_model = model_leaves(model, model_trace, params)
    known = {id(p) for p in of_model}
    of_guide = [p for p in params if id(p) not in known]
    if not of_model or not of_guide:
        owner = "guide" if of_model else "model"
        raise ValueError(f"svi: alternate needs parameters of the guide and of the model, and the {owner} has none")
    calls = count()

    def half_of_the_gradients(*data: Any) -> Any:
        loss = loss_and_grads(*data)
        for p in of_guide if next(calls) // every % 2 else of_model:
            p.grad = None  # the optimiser skips it
        return loss

    return half_of_the_gradients
