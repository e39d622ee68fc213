"""L-BFGS from many starts in one batch, each path with its own line search; all that it passed is kept.

A call takes the gradients of all paths at once. Each goes on with its line search, or from its new point, whatever the
others do.

References
----------
1. Liu and Nocedal (1989), On the limited memory BFGS method for large scale optimization, Mathematical Programming 45.
2. Lewis and Overton (2013), Nonsmooth optimization via quasi-Newton methods, Mathematical Programming 141: section 3,
   the line search by bisection.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .inverse_hessian import InverseHessian, inverse_hessian, updated_diagonal

DECREASE = 1e-4  # of the energy, relative to what the slope promises, that a step must bring
SLOPE = 0.9  # relative to that at the start, that must be left behind
MOST_TRIES = 40  # points per line search
GROWTH = 3.0  # of a step that is too short
LEVEL = 1e-8  # nats: a path ends when `WINDOW` steps together decrease the energy by less, or by rounding error
WINDOW = 3
MIN_CURVATURE = 1e-12  # relative: a pair with less is left out

Energies = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Place(NamedTuple):
    """A point of a path, with all that the estimate of the inverse Hessian there is made from."""

    at: Tensor  # (d)
    energy: float  # nats
    gradient: Tensor  # (d)
    diagonal: Tensor  # (d)
    pairs: tuple[tuple[Tensor, Tensor], ...]  # the last steps and changes of the gradient, (d) each


class Path(NamedTuple):
    """The places that one path passed, from its start, and why it ended."""

    places: list[Place]
    converged: bool
    message: str


def lbfgs_paths(
    energies: Energies,
    starts: Tensor,
    *,
    history: int,
    num_steps: int,
    level: float = LEVEL,
    report: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Minimise an energy from each of the starts (path, d), at which it is finite.

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
    report : callable
        Called with the number of steps that the longest path has made.
    """
    numbers = torch.arange(len(starts), device=starts.device)
    found, gradients = energies(starts, numbers)
    walkers = [_Walker(*start, history, level) for start in zip(starts, found, gradients, strict=True)]
    _turn(walkers)
    while left := [index for index, walker in enumerate(walkers) if not walker.message]:
        going = [walkers[index] for index in left]
        trials = torch.stack([walker.trial for walker in going])
        arrived = [
            walker
            for walker, energy, gradient in zip(going, *energies(trials, numbers[left]), strict=True)
            if walker.arrives(energy, gradient)
        ]
        for walker in arrived:
            walker.judge(num_steps)
        if onward := [walker for walker in arrived if not walker.message]:
            _turn(onward)
        report(max(len(walker.places) for walker in walkers) - 1)
    return [Path(walker.places, walker.converged, walker.message) for walker in walkers]


def estimates_at(places: list[Place]) -> InverseHessian:
    """Return the estimates of the inverse Hessian at several places, as one batch."""
    most = max(1, *(len(place.pairs) for place in places))
    none = torch.zeros_like(places[0].at)
    filled = [[(none, none)] * (most - len(place.pairs)) + list(place.pairs) for place in places]
    steps, changes = (
        torch.stack([pair[index] for pairs in filled for pair in pairs]).unflatten(0, (len(places), most))
        for index in (0, 1)
    )
    return inverse_hessian(torch.stack([place.diagonal for place in places]), steps, changes)


def _turn(walkers: list["_Walker"]) -> None:
    """Give each walker its next direction, the Newton step by the estimate at its place."""
    at = [walker.places[-1] for walker in walkers]
    gradient = torch.stack([place.gradient for place in at])
    directions = -(estimates_at(at) @ gradient)
    slopes = (directions * gradient).sum(-1)
    for walker, direction, slope in zip(walkers, directions, slopes.tolist(), strict=True):
        walker.set_out(direction, slope)


class _Walker:
    """One path, and where its line search stands."""

    def __init__(self, at: Tensor, energy: Tensor, gradient: Tensor, history: int, level: float) -> None:
        self.places = [Place(at, float(energy), gradient, torch.ones_like(at), ())]
        self.history, self.least = history, level
        self.message, self.converged = "", False
        self.step, self.shortest, self.longest, self.tries = 1.0, 0.0, float("inf"), 0

    @property
    def trial(self) -> Tensor:
        """The next point at which it needs the energy."""
        return self.places[-1].at + self.step * self.direction

    def set_out(self, direction: Tensor, slope: float) -> None:
        """Begin a line search."""
        if not slope < 0:  # rounding, at a stationary point, or an estimate that is no longer positive
            place = self.places[-1]
            self.places[-1] = place._replace(diagonal=torch.ones_like(place.at), pairs=())
            direction, slope = -place.gradient, -float(place.gradient.square().sum())
        self.direction, self.slope, self.tries = direction, slope, 0
        known = bool(self.places[-1].pairs)
        self.step = 1.0 if known else min(1.0, 1 / float(direction.norm().clamp(min=1e-300)))
        self.shortest, self.longest = 0.0, float("inf")
        if slope == 0:
            self.end(True)

    def arrives(self, energy: Tensor, gradient: Tensor) -> bool:
        """Take note of the energy at the trial; return whether the line search ends there."""
        place, value = self.places[-1], float(energy)
        self.tries += 1
        rounding = 4 * torch.finfo(energy.dtype).eps * abs(place.energy)
        if not value <= place.energy + DECREASE * self.step * self.slope + rounding:
            self.longest = self.step
        elif float(gradient @ self.direction) < SLOPE * self.slope:
            self.shortest = self.step
        else:
            self.places.append(_next(place, self.trial, value, gradient, self.history))
            return True
        if self.tries == MOST_TRIES:
            self.end(len(self.places) > 1 and -self.slope < self.level)
        grown = self.longest == float("inf")
        self.step = GROWTH * self.step if grown else (self.shortest + self.longest) / 2
        return False

    @property
    def level(self) -> float:
        """Decrease of the energy, in nats, below which it counts as level."""
        place = self.places[-1]
        return self.least + 100 * torch.finfo(place.at.dtype).eps * abs(place.energy)

    def judge(self, num_steps: int) -> None:
        """End the path if it is level, or has no steps left."""
        if len(self.places) > WINDOW and self.places[-1 - WINDOW].energy - self.places[-1].energy < self.level:
            self.end(True)
        elif len(self.places) > num_steps:
            self.message = f"the energy still fell after {num_steps} steps"

    def end(self, converged: bool) -> None:
        """End the path here."""
        self.converged = converged
        self.message = "reached a stationary point" if converged else "the line search found no lower energy"


def _next(place: Place, at: Tensor, energy: float, gradient: Tensor, history: int) -> Place:
    step, change = at - place.at, gradient - place.gradient
    if not float(step @ change) > MIN_CURVATURE * float(change.square().sum()):
        return place._replace(at=at, energy=energy, gradient=gradient)
    diagonal = updated_diagonal(place.diagonal, step, change)
    if not bool((torch.isfinite(diagonal) & (diagonal > 0)).all()):
        diagonal = place.diagonal
    return Place(at, energy, gradient, diagonal, (*place.pairs, (step, change))[-history:])
