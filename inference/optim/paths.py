"""The ways that L-BFGS takes from many starts, with all that it passed."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .descent import EXHAUSTED, STATIONARY, STUCK, Descent, Energies, descend
from .inverse_hessian import InverseHessian, inverse_hessian


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
    report: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Minimise an energy from each of the starts (path, d), at which it is finite, as `descend` does.

    ``report`` is called with the number of steps that the longest path has made.
    """
    places: list[list[Place]] = [[] for _ in starts]

    def note(paths: Descent, which: Tensor) -> None:
        rows = (paths.at, paths.gradient, paths.diagonal, paths.steps[:, -1], paths.changes[:, -1])
        numbers = (which, paths.energy[which], paths.pairs[which], paths.is_paired[which])
        for number, energy, pairs, is_paired, at, gradient, diagonal, step, change in zip(
            *(value.tolist() for value in numbers), *(value[which] for value in rows), strict=True
        ):
            known = places[number][-1].pairs if places[number] else ()
            kept = (*known, (step, change)) if is_paired else known
            places[number].append(Place(at, energy, gradient, diagonal, kept[len(kept) - pairs :]))
        report(max(map(len, places)) - 1)

    status = descend(energies, starts, history=history, num_steps=num_steps, visit=note).status.tolist()
    words = {
        STATIONARY: "reached a stationary point",
        STUCK: "the line search found no lower energy",
        EXHAUSTED: f"the energy still fell after {num_steps} steps",
    }
    return [Path(passed, how == STATIONARY, words[how]) for passed, how in zip(places, status, strict=True)]


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
