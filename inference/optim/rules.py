"""Optimisers as functions of a vector of parameters, equal to torch's classes with the same arguments.

Both kinds of SVI steps take them, compiled and eager: torch's own classes load its compiler, which takes a second.

Kingma and Ba (2015), Adam: a method for stochastic optimization, ICLR, algorithm 1; Tieleman and Hinton (2012),
RMSProp, Coursera: Neural networks for machine learning, lecture 6.5; Sutskever, Martens, Dahl and Hinton (2013), On the
importance of initialization and momentum in deep learning, ICML: momentum, and Nesterov's, in torch's form.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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


def adam(betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> Rule:
    """Return the rule of `torch.optim.Adam`."""
    first, second = (_fraction("betas", beta) for beta in betas)

    def update(p: Tensor, grad: Tensor, memory: list[Tensor], numbers: Any) -> tuple[Tensor, list[Tensor]]:
        mean, square = memory
        mean = mean + (1 - first) * (grad - mean)
        square = second * square + (1 - second) * grad * grad
        return p - numbers[0] * mean / (square.sqrt() * numbers[1] + eps), [mean, square]

    return Rule(2, lambda t, lr: (lr / (1 - first**t), (1 - second**t) ** -0.5), update)


def rmsprop(alpha: float = 0.99, eps: float = 1e-8) -> Rule:
    """Return the rule of `torch.optim.RMSprop`."""
    _fraction("alpha", alpha)

    def update(p: Tensor, grad: Tensor, memory: list[Tensor], numbers: Any) -> tuple[Tensor, list[Tensor]]:
        square = alpha * memory[0] + (1 - alpha) * grad * grad
        return p - numbers[0] * grad / (square.sqrt() + eps), [square]

    return Rule(1, lambda t, lr: (lr,), update)


def sgd(momentum: float = 0.0, nesterov: bool = False) -> Rule:
    """Return the rule of `torch.optim.SGD`."""
    _fraction("momentum", momentum)

    def update(p: Tensor, grad: Tensor, memory: list[Tensor], numbers: Any) -> tuple[Tensor, list[Tensor]]:
        if not momentum:
            return p - numbers[0] * grad, memory
        velocity = momentum * memory[0] + grad
        return p - numbers[0] * (grad + momentum * velocity if nesterov else velocity), [velocity]

    return Rule(1 if momentum else 0, lambda t, lr: (lr,), update)


def _fraction(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"svi: {name} in optim must lie in [0, 1), got {value}")
    return value


RULES: dict[Callable[..., Any], Callable[..., Rule]] = {
    torch.optim.Adam: adam,
    torch.optim.RMSprop: rmsprop,
    torch.optim.SGD: sgd,
}


def rule_of(optim: Callable[..., Any]) -> Rule | None:
    """Return the rule of an optimiser as `as_optim` returns it; None if there is none that knows its arguments."""
    function, arguments = _parts(optim)
    make = RULES.get(function)
    if make is None or not arguments.keys() <= inspect.signature(make).parameters.keys():
        return None
    return make(**arguments)


class Optimiser:
    """A rule as an optimiser of leaves; those without a gradient are left alone."""

    def __init__(self, rule: Rule, params: Sequence[Tensor], lr: float) -> None:
        self._rule, self._params, self.param_groups = rule, params, [{"lr": lr}]
        self._memory = [[torch.zeros_like(p) for _ in range(rule.states)] for p in params]
        self._steps = [0] * len(params)

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers of the steps so far."""
        return {"memory": self._memory, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember other steps."""
        self._memory = [[v.to(p) for v in memory] for p, memory in zip(self._params, state["memory"], strict=True)]
        self._steps = state["steps"]

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


def as_optim(method: str, optim: Any) -> Callable[..., Any] | None:
    """Return ``optim`` as one of torch's classes, perhaps with arguments bound; None stays None.

    A ValueError, in the method's name, says if it is none, or has arguments that its class does not take.
    """
    if optim is None:
        return None
    if isinstance(optim, PyroOptim):
        name = getattr(optim.pt_optim_constructor, "__name__", "Adam")
        raise ValueError(
            f"{method}: optim is an optimiser of Pyro's: give torch's class, optim=torch.optim.{name}, and lr"
        )
    if isinstance(optim, Mapping):
        optim = partial(torch.optim.Adam, **optim)
    if not callable(optim):
        raise ValueError(f"{method}: optim must be a class such as torch.optim.Adam, got {type(optim).__name__}")
    function, arguments = _parts(optim)
    if "lr" in arguments:
        raise ValueError(f"{method}: the step size is an argument of its own: lr={arguments['lr']}, not in optim")
    try:
        inspect.signature(function).bind([], lr=0.01, **arguments)
    except TypeError as error:
        raise ValueError(f"{method}: optim {optim_name(optim)}: {error}") from None
    rule_of(optim)
    return optim


def optim_name(optim: Callable[..., Any]) -> str:
    """Return an optimiser as one writes it: "Adam(betas=(0.95, 0.999))"."""
    function, arguments = _parts(optim)
    name = getattr(function, "__name__", type(function).__name__)
    return f"{name}({', '.join(f'{key}={value}' for key, value in arguments.items())})" if arguments else name


def not_compiled(optim: Callable[..., Any]) -> str:
    """Return a clause that says which optimisers can be compiled, of which this is none."""
    known = ", ".join(
        f"{function.__name__} ({', '.join(inspect.signature(make).parameters)})" for function, make in RULES.items()
    )
    return f"{optim_name(optim)} is none of the optimisers that are compiled, {known}"


def make_optimiser(optim: Callable[..., Any], params: Sequence[Tensor], lr: float) -> Any:
    """Return an optimiser of the class ``optim``: by its rule if there is one, else torch's own."""
    rule = rule_of(optim)
    return optim(params, lr=lr) if rule is None else Optimiser(rule, params, lr)


def _parts(optim: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return an optimiser's class, and the arguments bound to it."""
    arguments: dict[str, Any] = {}
    while isinstance(optim, partial):
        arguments = optim.keywords | arguments
        optim = optim.func
    return optim, arguments
