"""A plan of gradient steps that a function of the caller's watches, and may end."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..traces.moments import put
from ..traces.params import Leaf
from .plan import Block
from .stopping import AnyPlan

Callback = Callable[[int, float, dict[str, Tensor]], object]


class WatchedPlan:
    """A plan whose ``callback`` hears after each block of steps how it went, and ends it by returning something true.

    ``leaves`` are the parameters by name, and ``params`` the same, as the steps order them; in the context ``natural``
    they are those that the callback hears of. ``ended`` says whether it ended the steps.
    """

    def __init__(
        self,
        plan: AnyPlan,
        callback: Callback,
        leaves: Mapping[str, Leaf],
        params: Sequence[Tensor],
        natural: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self._plan, self._callback, self._leaves, self._params, self._natural = plan, callback, leaves, params, natural
        self.ended = False

    @property
    def done(self) -> int:
        """Steps taken."""
        return self._plan.done

    def next(self, most: int) -> Block | None:
        """Return the next block, of at most so many steps; None after the last."""
        return None if self.ended else self._plan.next(most)

    def note(self, position: Tensor, losses: Tensor) -> None:
        """Note where the block has led and its losses, shape (step,), and tell the callback."""
        self._plan.note(position, losses)
        put(position, self._params)
        with torch.no_grad(), self._natural():
            values = {name: transform(leaf).detach().cpu().clone() for name, (leaf, transform) in self._leaves.items()}
        self.ended = bool(self._callback(self.done, float(losses.mean()), values))

    def state(self) -> Any:
        """Return how far it is."""
        return {"plan": self._plan.state(), "ended": self.ended}

    def restore(self, state: Any) -> None:
        """Go back to where it was; the callback hears nothing of the steps before."""
        self._plan.restore(state["plan"])
        self.ended = state["ended"]

    def result(self) -> tuple[bool, str]:
        """Return whether the answer had settled, and a message."""
        if self.ended:
            return False, f"ended by the callback after {self.done:,} steps"
        return self._plan.result()
