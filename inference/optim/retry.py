"""Gradient steps that go on, smaller, from the best parameters so far where the loss stops being a finite number."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from ..checkpoints import NOT_KEPT, Checkpoint
from ..traces.moments import flat, put
from .callback import WatchedPlan
from .plan import Block
from .stopping import AnyPlan

SHRINK = 0.1  # sizes of steps, relative to those before
RETRIES = 2

T = TypeVar("T")


class GuardedPlan:
    """A plan that keeps ``best``, the position after the block of steps of least mean loss; at first, a start."""

    def __init__(self, plan: AnyPlan | WatchedPlan, start: Tensor) -> None:
        self._plan, self.best, self._least = plan, start, math.inf

    @property
    def ended(self) -> bool:
        """Whether a callback ended the steps."""
        return isinstance(self._plan, WatchedPlan) and self._plan.ended

    def next(self, most: int) -> Block | None:
        """Return the next block, of at most so many steps; None after the last."""
        return self._plan.next(most)

    def note(self, position: Tensor, losses: Tensor) -> None:
        """Note where the block has led and its losses, shape (step,)."""
        if (mean := float(losses.double().mean())) < self._least:
            self.best, self._least = position.detach().clone(), mean
        self._plan.note(position, losses)

    def state(self) -> Any:
        """Return how far it is."""
        return {"plan": self._plan.state(), "best": self.best, "least": self._least}

    def restore(self, state: Any) -> None:
        """Go back to where it was."""
        self._plan.restore(state["plan"])
        self.best, self._least = state["best"], state["least"]

    def result(self) -> tuple[bool, str]:
        """Return whether the answer had settled, and a message."""
        return self._plan.result()


def with_smaller_steps(
    take: Callable[[GuardedPlan, float, Checkpoint], T],
    plan_of: Callable[[float], AnyPlan | WatchedPlan],
    lr: float,
    params: Sequence[Tensor],
    states: Checkpoint,
    where: Callable[[], str],
) -> tuple[T, GuardedPlan]:
    """Take the steps of a plan, of size ``lr``; where that ends in a FloatingPointError, a tenth as large.

    They begin at the best parameters so far, with the whole plan, `RETRIES` times at most; states are kept of the first
    ones only, since the others follow from these.

    Returns
    -------
    tuple
        What ``take`` returned, and its plan.

    Raises
    ------
    FloatingPointError
        If that happens in all; the message says when it happened first, and ``where``.

    Warns
    -----
    UserWarning
        If smaller steps were taken.
    """
    start, first, rates = flat(params).detach().clone(), "", [lr * SHRINK**number for number in range(RETRIES + 1)]
    for rate in rates:
        plan = GuardedPlan(plan_of(rate), start)
        try:
            found = take(plan, rate, NOT_KEPT if first else states)
        except FloatingPointError as error:
            first = first or f"{error}{where()}"
            start = plan.best
            put(start, params)
            continue
        if first:
            warnings.warn(f"svi: {first}; steps of {rate:g} went on from the best parameters before", stacklevel=5)
        return found, plan
    tried = " and of ".join(f"{rate:g}" for rate in rates[1:])
    raise FloatingPointError(f"svi: {first}; steps of {tried} from the best parameters before did no better")
