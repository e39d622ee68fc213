"""When to stop gradient steps of themselves: ``num_steps="auto"`` of `svi`.

At the full step size, steps are taken until, over the later half of them,

1. the loss does not fall from their first half to their second,
2. nothing drifts that the guide draws: its means and log sds have moved no further than a random walk with the same
   moves would, or the way that is left, as the drift slows down, is below `TOLERANCE` of the guide's own sds, and
3. the mean of the iterates is known: its Monte Carlo error, autocorrelation included, is below `MAX_ERROR` of these
   sds, or comes from so many effective iterates that only smaller steps can tell more. On a plateau or at a saddle the
   iterates wander without return: they have few effective iterates, however many there are.

Then steps of decaying size follow, two fifths as many, the last of which are averaged: the answer. If the draws drift
in these after all, as they do behind a plateau, it was too early, and steps of full size go on. Checks come at
geometrically growing numbers of steps, so that a chance pass of one check does not become likely by their number.

Adam moves a parameter that is d sds from its place by a fraction of the step size that is about d, with noise of one
step size: so the second rule, over n steps, notices a distance of some 4 / √n sds in whatever unit the parameter is.

Welandawe, Andersen, Vehtari and Huggins (2022), A framework for improving the reliability of black-box variational
inference, sections 3 and 4: stationarity of the iterates at a fixed step size, the Monte Carlo error of their mean,
then smaller steps; Dhaka et al. (2020), Robust, accurate stochastic optimization for variational inference, NeurIPS.
"""

from typing import Any

import torch
from torch import Tensor

from .drift import LONGEST, SHORTEST, Trail, error_and_size, largest_sum
from .plan import Block, Measure, Plan, farthest, in_sds, still_drifting

CEILING = 60_000  # steps at which it ends in any case
FIRST = 1600  # steps before the first check: on a plateau, fewer look stationary by chance
DECAY = 0.4  # steps of decaying size, relative to those of full size
SHORTEST_DECAY = 400  # steps
GROWTH = 1.25  # steps until the next check, relative to those before
POWER = 1.3  # moves in the window of a check, relative to the number at which pure drift would just be noticed
MIN_FALL = 0.01  # nats
MAX_ERROR = 0.05  # Monte Carlo error of the mean iterate, in the guide's sds
MIN_SIZE = 8.0  # effective number of iterates that makes up for a larger error; below the error, half as many will do


class AutoPlan:
    """Steps until the answer has settled; ``wait`` of them before it may, such as those of an annealed loss."""

    def __init__(self, lr: float, measure: Measure, *, wait: int = 0, ceiling: int = CEILING) -> None:
        self.total, self.done = ceiling, 0
        self._lr, self._measure = lr, measure
        self._begin = min(wait, ceiling // 3)  # of the steps of full size that are judged
        self._check = self._begin + FIRST
        self._trail, self._losses = Trail(SHORTEST), list[Tensor]()
        self._last_steps: Plan | None = None
        self._block = Block(torch.empty(0), torch.empty(0))
        self._ended, self._settled = False, False
        self._far = 0.0

    def next(self, most: int) -> Block | None:
        """Return the next block, of at most so many steps; None after the last."""
        if self._ended:
            return None
        if self._last_steps is not None:
            self._block = self._last_steps.next(most) or self._block
            return self._block
        wait = self._begin - self.done
        count = min(most, wait if wait > 0 else self._trail.left)
        self._block = Block(torch.full((count,), self._lr).double(), torch.zeros(count).double())
        return self._block

    def note(self, position: Tensor, losses: Tensor) -> None:
        """Note where the block has led and its losses, shape (step,), and decide what follows."""
        before, self.done = self.done, self.done + len(self._block.rates)
        if self._last_steps is not None:
            self._last_steps.note(position, losses)
            if self._last_steps.done == self._last_steps.total:
                self._end_or_go_on(self._last_steps)
            return
        self._losses.append(losses.double().cpu())
        if before >= self._begin:
            self._trail.add(position, self._block.rates)
        length = max(SHORTEST_DECAY, int(DECAY * (self.done - self._begin)))
        check = self.done >= self._check
        if check:
            self._settled = self._has_settled()
        if self._settled or self.done + length >= self.total:
            length = max(1, min(length, self.total - self.done))
            self._last_steps = Plan(self._lr, length, self._measure, constant=0.0)
        elif check:
            self._check = self._begin + int(GROWTH * (self.done - self._begin))

    def _has_settled(self) -> bool:
        count = min(LONGEST, len(self._trail) // 2)
        losses = torch.cat(self._losses)[-count * self._trail.every :]
        positions, times = self._trail.last(count + 1)
        if still_falls(losses, count) or not positions.diff(dim=0).any():
            return False
        series = in_sds(positions, self._measure)
        if count < POWER * largest_sum(series.shape[1]) ** 2 or farthest(series, times):
            return False
        errors, sizes = error_and_size(series)
        return bool((((errors < MAX_ERROR) & (sizes > MIN_SIZE / 2)) | (sizes > MIN_SIZE)).all())

    def _end_or_go_on(self, last_steps: Plan) -> None:
        self._far = last_steps.way_to_go()
        again = 2 * (self.done - self._begin)
        if not self._far or self.done + again >= self.total:
            self._ended = True
            return
        self._settled, self._last_steps = False, None
        self._trail, self._losses = Trail(self._trail.every), []
        self._begin, self._check = self.done, self.done + again // 2

    def state(self) -> Any:
        """Return how far it is."""
        last = self._last_steps and {"total": self._last_steps.total, "plan": self._last_steps.state()}
        own = {name: value for name, value in vars(self).items() if name not in ("_measure", "_block")}
        losses = torch.cat(self._losses) if self._losses else None
        return own | {"_trail": self._trail.state(), "_losses": losses, "_last_steps": last}

    def restore(self, state: Any) -> None:
        """Go back to where it was."""
        vars(self).update({name: value for name, value in state.items() if name not in ("_trail", "_last_steps")})
        self._trail.restore(state["_trail"])
        self._losses = [] if state["_losses"] is None else [state["_losses"]]
        self._last_steps = None
        if (last := state["_last_steps"]) is not None:
            self._last_steps = Plan(self._lr, last["total"], self._measure, constant=0.0)
            self._last_steps.restore(last["plan"])

    def result(self) -> tuple[bool, str]:
        """Return whether the answer has settled, and a message."""
        if self._settled and not self._far:
            return True, f"stopped after {self.done:,} steps: the iterates are stationary, and their average is known"
        message = f"stopped at the ceiling of {self.done:,} steps"
        if self._far:
            message += still_drifting(self._far)
        else:
            message += f" before the average of the iterates was known to within {MAX_ERROR} sd: take more steps"
        return False, f"{message}, by num_steps, or a larger lr"


def still_falls(losses: Tensor, count: int) -> bool:
    """Return whether losses at equal step sizes fall between the halves, by more than 2 standard errors and .01 nats.

    The errors are those of autocorrelated means of ``count`` blocks.
    """
    blocks = losses[-(len(losses) // count * count) :].reshape(count, -1).mean(1)
    early, late = blocks.tensor_split(2)
    errors = [error_and_size(part.unsqueeze(1))[0] for part in (early, late)]
    return float(early.mean() - late.mean()) > max(2 * float(torch.cat(errors).norm()), MIN_FALL)


AnyPlan = Plan | AutoPlan
