"""Optimisers as functions of a vector of parameters, equal to torch's classes with their default options.

Both kinds of SVI steps take them, compiled and eager: torch's own classes load its compiler, which takes a second.

Kingma and Ba (2015), Adam: a method for stochastic optimization, ICLR, algorithm 1; Tieleman and Hinton (2012),
RMSProp, Coursera: Neural networks for machine learning, lecture 6.5.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from pyro.optim import PyroOptim
from torch import Tensor


class Rule(NamedTuple):
    """One update: (parameters, gradient, memory, numbers) → (parameters, memory).

    The numbers are what it needs of (step counted from 1, step size); tensors give those of many steps.
    """

    states: int  # vectors of memory, zero at the start
    numbers: Callable[[Any, Any], tuple[Any, ...]]
    update: Callable[[Tensor, Tensor, list[Tensor], Any], tuple[Tensor, list[Tensor]]]


def _adam(p: Tensor, grad: Tensor, memory: list[Tensor], numbers: Any) -> tuple[Tensor, list[Tensor]]:
    mean, square = memory
    mean = mean + 0.1 * (grad - mean)
    square = 0.999 * square + 0.001 * grad * grad
    return p - numbers[0] * mean / (square.sqrt() * numbers[1] + 1e-8), [mean, square]


def _rmsprop(p: Tensor, grad: Tensor, memory: list[Tensor], numbers: Any) -> tuple[Tensor, list[Tensor]]:
    square = 0.99 * memory[0] + 0.01 * grad * grad
    return p - numbers[0] * grad / (square.sqrt() + 1e-8), [square]


def _sgd(p: Tensor, grad: Tensor, memory: list[Tensor], numbers: Any) -> tuple[Tensor, list[Tensor]]:
    return p - numbers[0] * grad, memory


RULES: dict[Callable[..., Any], Rule] = {
    torch.optim.Adam: Rule(2, lambda t, lr: (lr / (1 - 0.9**t), (1 - 0.999**t) ** -0.5), _adam),
    torch.optim.RMSprop: Rule(1, lambda t, lr: (lr,), _rmsprop),
    torch.optim.SGD: Rule(0, lambda t, lr: (lr,), _sgd),
}


class Optimiser:
    """A rule as an optimiser of leaves; those without a gradient are left alone."""

    def __init__(self, rule: Rule, params: Sequence[Tensor], lr: float) -> None:
        self._rule, self._params, self.param_groups = rule, params, [{"lr": lr}]
        self._memory = [[torch.zeros_like(p) for _ in range(rule.states)] for p in params]
        self._steps = [0] * len(params)

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for p in self._params:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step of size ``param_groups[0]["lr"]``."""
        for i, p in enumerate(self._params):
            if p.grad is not None:
                self._steps[i] += 1
                numbers = self._rule.numbers(self._steps[i], self.param_groups[0]["lr"])
                value, self._memory[i] = self._rule.update(p, p.grad, self._memory[i], numbers)
                p.copy_(value)


def check_optim(optim: Any) -> None:
    """Raise ValueError for what is no class of torch's, nor a function like one."""
    if isinstance(optim, PyroOptim):
        name = getattr(optim.pt_optim_constructor, "__name__", "Adam")
        raise ValueError(f"svi: optim is an optimiser of Pyro's: give torch's class, optim=torch.optim.{name}, and lr")
    if optim is not None and not callable(optim):
        raise ValueError(f"svi: optim must be a class such as torch.optim.Adam, got {type(optim).__name__}")


def make_optimiser(optim: Callable[..., Any], params: Sequence[Tensor], lr: float) -> Any:
    """Return an optimiser of the class ``optim``: by its rule if there is one, else torch's own."""
    return Optimiser(RULES[optim], params, lr) if optim in RULES else optim(params, lr=lr)
