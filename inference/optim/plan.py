"""A plan of gradient steps of given number: their sizes, block by block, and whether the answer had settled at the end.

The steps themselves are taken by the eager or the compiled loop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .drift import LONGEST, SHORTEST, Trail, remaining_moves
from .sgd import schedule

Measure = Callable[[Tensor], Any]  # position of the parameters -> `Moments` there
TOLERANCE = 0.1  # sds of the guide that an answer may still have to move
JUDGED = 0.4  # fraction of the steps, the last ones, in which no parameter may drift
JUDGED_DECAY = 4 / 7  # the same part, if all steps decay
FEWEST = 300  # steps to judge by, if seven tenths of all are as many


class Block(NamedTuple):
    """Steps to take in a row."""

    rates: Tensor  # (step,): their sizes
    weights: Tensor  # (step,): of the parameters after each, in the average so far


class Plan:
    """``num_steps`` steps of `schedule`; ``measure`` tells how far apart two positions of the parameters are."""

    def __init__(
        self, lr: float, num_steps: int, measure: Measure, *, constant: float | None = None, spacing: int = SHORTEST
    ) -> None:
        self.total, self.done = num_steps, 0
        self._rates, self._weights = schedule(lr, num_steps) if constant is None else schedule(lr, num_steps, constant)
        self._measure, self._block = measure, Block(self._rates, self._weights)
        judged = int((JUDGED if constant is None else JUDGED_DECAY) * num_steps)
        self._start = max(0, num_steps - max(judged, min(int(0.7 * num_steps), FEWEST)))  # of those judged
        self._trail = Trail(max(spacing, (num_steps - self._start) // LONGEST))

    def next(self, most: int) -> Block | None:
        """Return the next block, of at most so many steps; None after the last."""
        if self.done >= self.total:
            return None
        left = self._start - self.done if self.done < self._start else self._trail.left
        end = min(self.done + min(most, left), self.total)
        self._block = Block(self._rates[self.done : end], self._weights[self.done : end])
        return self._block

    def note(self, position: Tensor, losses: Tensor) -> None:
        """Note where the block has led; its losses, shape (step,), tell too little where steps decay."""
        self.done += len(self._block.rates)
        if self.done > self._start:
            self._trail.add(position, self._block.rates)

    def state(self) -> Any:
        """Return how far it is."""
        return {"done": self.done, "trail": self._trail.state()}

    def restore(self, state: Any) -> None:
        """Go back to where it was."""
        self.done = state["done"]
        self._trail.restore(state["trail"])

    def way_to_go(self) -> float:
        """Return how far the answer was still drifting at the end, in the guide's sds; 0 if it had settled."""
        return way_to_go(self._trail, self._measure)

    def result(self) -> tuple[bool, str]:
        """Return whether the answer had settled, and a message."""
        message, far = f"took all {self.total} steps", self.way_to_go()
        return not far, message + still_drifting(far)


def way_to_go(trail: Trail, measure: Measure, count: int = LONGEST + 1) -> float:
    """Return how far the answer still drifts over the trail's last positions, in the guide's sds; 0 if it is near."""
    if len(trail) < 4:
        return 0.0
    positions, times = trail.last(count)
    return farthest(in_sds(positions, measure), times)


def in_sds(positions: Tensor, measure: Measure) -> Tensor:
    """Return means in units of sds, and log sds, of what the guide draws at each position, (position, quantity).

    It is these that must settle: the weights of a network wander where the distribution does not.
    """
    found = [measure(position) for position in positions]
    unit, spread = found[-1].unit, found[-1].sd > 0
    means = torch.stack([moments.mean for moments in found]) / unit
    return torch.cat([means, torch.stack([moments.sd[spread] for moments in found]).log()], 1)


def farthest(series: Tensor, times: Tensor) -> float:
    """Return the largest way that a quantity has still to go, in sds; 0 if it is below `TOLERANCE`."""
    if not series.shape[1]:
        return 0.0
    far = float(remaining_moves(series, times).abs().nan_to_num(nan=float("inf")).amax())
    return far if far > TOLERANCE else 0.0


def still_drifting(far: float) -> str:
    """Return a clause for a message, empty if nothing drifts."""
    if not far:
        return ""
    return f" with parameters still drifting (about {far:.2g} sd of the guide to go): take more steps"
