"""L-BFGS from many starts in one batch, each path with its own line search.

A call takes the gradients of all paths at once. Each goes on with its line search, or from its new point, whatever the
others do.

References
----------
1. Liu and Nocedal (1989), On the limited memory BFGS method for large scale optimization, Mathematical Programming 45.
2. Lewis and Overton (2013), Nonsmooth optimization via quasi-Newton methods, Mathematical Programming 141: section 3,
   the line search by bisection.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .inverse_hessian import inverse_hessian, updated_diagonal

DECREASE = 1e-4  # of the energy, relative to what the slope promises, that a step must bring
SLOPE = 0.9  # relative to that at the start, that must be left behind
MOST_TRIES = 40  # points per line search
GROWTH = 3.0  # of a step that is too short
LEVEL = 1e-8  # nats: a path ends when `WINDOW` steps together decrease the energy by less, or by rounding error
WINDOW = 3
MIN_CURVATURE = 1e-12  # relative: a pair with less is left out
GOING, STATIONARY, STUCK, EXHAUSTED = range(4)  # how a path stands

Energies = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Descent:
    """Paths that go down an energy, and where each stands. All tensors have one row per path.

    Attributes
    ----------
    at, gradient : Tensor, shape (path, d)
        The last point, and the gradient there.
    energy : Tensor, shape (path)
        In nats.
    diagonal : Tensor, shape (path, d)
        Of the estimate of the inverse Hessian before its pairs.
    steps, changes : Tensor, shape (path, history, d)
        The last steps and changes of the gradient, the oldest first; zeros where there are fewer.
    pairs : Tensor, shape (path)
        How many of them there are.
    is_paired : Tensor, shape (path)
        Whether the last step is one of them.
    status : Tensor, shape (path)
        One of `GOING`, `STATIONARY`, `STUCK` and `EXHAUSTED`.
    """

    def __init__(self, starts: Tensor, energy: Tensor, gradient: Tensor, history: int, level: float) -> None:
        count, like = len(starts), starts
        self.at, self.energy, self.gradient = starts.clone(), energy.clone(), gradient.clone()
        self.diagonal = torch.ones_like(starts)
        self.steps, self.changes = (like.new_zeros(count, history, starts.shape[1]) for _ in range(2))
        self.pairs = torch.zeros(count, dtype=torch.long, device=like.device)
        self.is_paired = self.pairs > 0
        self.status = torch.where(torch.isfinite(energy), GOING, STUCK)
        self._past = energy[:, None].repeat(1, WINDOW + 1)  # energies, the oldest first
        self._taken, self._tries = torch.zeros_like(self.pairs), torch.zeros_like(self.pairs)
        self._direction, self._slope = torch.zeros_like(starts), torch.zeros_like(energy)
        self._step, self._shortest, self._longest = (torch.zeros_like(energy) for _ in range(3))
        self._least = level

    def going(self) -> Tensor:
        """Return which paths have not ended."""
        return (self.status == GOING).nonzero()[:, 0]

    def set_out(self, which: Tensor) -> None:
        """Begin line searches along Newton's steps by the estimates."""
        gradient = self.gradient[which]
        estimate = inverse_hessian(self.diagonal[which], self.steps[which], self.changes[which])
        direction = -(estimate @ gradient)
        slope = (direction * gradient).sum(-1)
        reset = ~(slope < 0)  # rounding, at a stationary point, or an estimate that is no longer positive
        if bool(reset.any()):
            lost = which[reset]
            self.diagonal[lost], self.steps[lost], self.changes[lost], self.pairs[lost] = 1.0, 0.0, 0.0, 0
            direction = torch.where(reset[:, None], -gradient, direction)
            slope = torch.where(reset, -gradient.square().sum(-1), slope)
        first = (1 / direction.norm(dim=-1).clamp(min=1e-300)).clamp(max=1)
        self._direction[which], self._slope[which], self._tries[which] = direction, slope, 0
        self._step[which] = torch.where(self.pairs[which] > 0, 1.0, first)
        self._shortest[which], self._longest[which] = 0.0, torch.inf
        self.status[which[slope == 0]] = STATIONARY

    def trials(self, which: Tensor) -> Tensor:
        """Return the next points at which paths need the energy."""
        return self.at[which] + self._step[which, None] * self._direction[which]

    def look(self, which: Tensor, energy: Tensor, gradient: Tensor) -> Tensor:
        """Take note of the energies at the trials; return the paths whose line search ends there."""
        step, slope, before = self._step[which], self._slope[which], self.energy[which]
        self._tries[which] += 1
        rounding = 4 * torch.finfo(energy.dtype).eps * before.abs()
        is_high = ~(energy <= before + DECREASE * step * slope + rounding)
        is_steep = ~is_high & ((gradient * self._direction[which]).sum(-1) < SLOPE * slope)
        self._longest[which[is_high]], self._shortest[which[is_steep]] = step[is_high], step[is_steep]
        arrives = ~(is_high | is_steep)
        self._search_on(which[~arrives])
        arrived = which[arrives]
        self._arrive(arrived, energy[arrives], gradient[arrives])
        return arrived

    def judge(self, which: Tensor, num_steps: int) -> None:
        """End paths that are level, or have no steps left."""
        past, taken = self._past[which], self._taken[which]
        is_level = (taken >= WINDOW) & (past[:, 0] - past[:, -1] < self._level(which))
        self.status[which[is_level]] = STATIONARY
        self.status[which[~is_level & (taken >= num_steps)]] = EXHAUSTED

    def _level(self, which: Tensor) -> Tensor:
        """Return the decreases of the energy, in nats, below which it counts as level."""
        return self._least + 100 * torch.finfo(self.at.dtype).eps * self.energy[which].abs()

    def _search_on(self, which: Tensor) -> None:
        longest, step = self._longest[which], self._step[which]
        middle = (self._shortest[which] + longest) / 2
        self._step[which] = torch.where(torch.isinf(longest), GROWTH * step, middle)
        lost = which[self._tries[which] == MOST_TRIES]
        is_level = (self._taken[lost] > 0) & (-self._slope[lost] < self._level(lost))
        self.status[lost] = torch.where(is_level, STATIONARY, STUCK)

    def _arrive(self, which: Tensor, energy: Tensor, gradient: Tensor) -> None:
        at = self.trials(which)
        step, change, diagonal = at - self.at[which], gradient - self.gradient[which], self.diagonal[which]
        self.at[which], self.energy[which], self.gradient[which] = at, energy, gradient
        self._past[which] = torch.cat([self._past[which][:, 1:], energy[:, None]], 1)
        self._taken[which] += 1
        bends = (step * change).sum(-1) > MIN_CURVATURE * change.square().sum(-1)
        self.is_paired[which], paired = bends, which[bends]
        updated = updated_diagonal(diagonal, step, change)
        sound = bends & (torch.isfinite(updated) & (updated > 0)).all(-1)
        self.diagonal[which] = torch.where(sound[:, None], updated, diagonal)
        for kept, new in ((self.steps, step), (self.changes, change)):
            kept[paired] = torch.cat([kept[paired][:, 1:], new[bends][:, None]], 1)
        self.pairs[paired] = (self.pairs[paired] + 1).clamp(max=self.steps.shape[1])


def descend(
    energies: Energies,
    starts: Tensor,
    *,
    history: int,
    num_steps: int,
    level: float = LEVEL,
    visit: Callable[[Descent, Tensor], object] = lambda *_: None,
) -> Descent:
    """Minimise an energy from each of the starts (path, d).

    Parameters
    ----------
    energies : callable
        Points (n, d), and the number (n) of the path that each is for → energies (n) in nats, infinite where there is
        none, and gradients (n, d).
    starts : Tensor, shape (path, d)
    history : int
        Steps that the estimate of the inverse Hessian remembers.
    num_steps : int
        Steps per path at most.
    level : float
        Nats by which `WINDOW` steps together decrease the energy at least, if a path is to go on.
    visit : callable
        Called with the paths, and the numbers of those that are at a new point.
    """
    numbers = torch.arange(len(starts), device=starts.device)
    paths = Descent(starts, *energies(starts, numbers), history, level)
    visit(paths, numbers)
    paths.set_out(paths.going())
    while len(going := paths.going()):
        arrived = paths.look(going, *energies(paths.trials(going), going))
        paths.judge(arrived, num_steps)
        visit(paths, arrived)
        paths.set_out(arrived[paths.status[arrived] == GOING])
    return paths
