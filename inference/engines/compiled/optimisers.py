"""Optimisers as functions of a vector of parameters, equal to torch's classes with their default options.

References
----------
1. Kingma and Ba (2015), Adam: a method for stochastic optimization, ICLR, algorithm 1.
2. Tieleman and Hinton (2012), RMSProp, Coursera: Neural networks for machine learning, lecture 6.5.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rule(NamedTuple):
    """One update.

    Attributes
    ----------
    states : int
        Number of vectors of memory, zero at the start.
    numbers : callable
        (step counted from 1, step size) → what ``update`` needs of them; tensors give those of many steps.
    update : callable
        (parameters, gradient, memory, numbers) → (parameters, memory).
    """

    states: int
    numbers: Callable[[Any, Any], tuple[Any, ...]]
    update: Callable[[Tensor, Tensor, list[Tensor], Tensor], tuple[Tensor, list[Tensor]]]


def _adam(p: Tensor, grad: Tensor, memory: list[Tensor], numbers: Tensor) -> tuple[Tensor, list[Tensor]]:
    mean, square = memory
    mean = mean + 0.1 * (grad - mean)
    square = 0.999 * square + 0.001 * grad * grad
    return p - numbers[0] * mean / (square.sqrt() * numbers[1] + 1e-8), [mean, square]


def _rmsprop(p: Tensor, grad: Tensor, memory: list[Tensor], numbers: Tensor) -> tuple[Tensor, list[Tensor]]:
    square = 0.99 * memory[0] + 0.01 * grad * grad
    return p - numbers[0] * grad / (square.sqrt() + 1e-8), [square]


def _sgd(p: Tensor, grad: Tensor, memory: list[Tensor], numbers: Tensor) -> tuple[Tensor, list[Tensor]]:
    return p - numbers[0] * grad, memory


RULES: dict[type[torch.optim.Optimizer], Rule] = {
    torch.optim.Adam: Rule(2, lambda t, lr: (lr / (1 - 0.9**t), (1 - 0.999**t) ** -0.5), _adam),
    torch.optim.RMSprop: Rule(1, lambda t, lr: (lr,), _rmsprop),
    torch.optim.SGD: Rule(0, lambda t, lr: (lr,), _sgd),
}
