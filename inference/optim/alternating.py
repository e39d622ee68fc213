"""Gradient steps on the parameters of the guide and of the model in turn: E-steps and M-steps by gradient."""

from collections.abc import Callable
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
    return _HalfGradients(loss_and_grads, every, of_model, of_guide)


class _HalfGradients:
    def __init__(self, estimate: Callable[..., Any], every: int, *halves: list[Tensor]) -> None:
        self._estimate, self._every, (self._of_model, self._of_guide) = estimate, every, halves
        self.calls = 0  # so far, which a checkpoint keeps

    def __call__(self, *data: Any) -> Any:
        loss = self._estimate(*data)
        for p in self._of_guide if self.calls // self._every % 2 else self._of_model:
            p.grad = None  # the optimiser skips it
        self.calls += 1
        return loss
