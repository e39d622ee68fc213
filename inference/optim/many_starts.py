"""Normals fitted from many starts, in batches of bounded memory: which optima there are, and the best of them.

All searches for a mode are one batch, and so are the fits of independent normals, at the same draws, from the different
modes, and from the starts without one. The best are then fitted as a single start is.
"""

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checkpoints.trees import moved_to
from ..engines.batched import Batched
from .coordinates import Coordinates
from .mode import inverse_root
from .modes import Modes, find_modes
from .normals import Normals, fit_normals
from .optima import found_optima, groups_of
from .rounds import MIN_DRAWS, Rounds, first_noise, first_sds, fit_rounds, rounds_from, rounds_of

MAX_CHUNK, MAX_NUMBERS = 256, 2**22  # starts, and numbers per array, that are worked on at once
SAME_MODE = 1e-3  # nats, by energies and by the quadratic between them, within which two searches found one mode
FITTED_AGAIN = 5  # optima, the best, that are fitted as from a single start

Once = Callable[[str, Callable[[], Any]], Any]


class Optimum(NamedTuple):
    """An optimum among independent normals, and where rounds are to begin."""

    normal: Coordinates  # fitted, at the draws that all share
    loss: float  # its negative ELBO at these, nats
    first: Coordinates  # Laplace's normal at the mode, or the one that was fitted from a start without
    words: str  # about ``first``
    restarts: int  # that ended here


class _Firsts(NamedTuple):
    """Normals to start from: one per mode, and one per start without."""

    centres: Tensor  # (n, d)
    roots: Tensor  # (n, d, d)
    words: list[str]
    restarts: list[int]
    at_mode: list[bool]


def fit_best(
    batched: Batched, starts: Tensor, num_draws: int | None, *, response: bool, seed: int, once: Once
) -> tuple[list[Rounds], list[dict[str, Any]]]:
    """Fit normals from starts (n, d) and return the best ones, and all optima with the restarts that ended at each.

    The ELBO of an optimum that is not among the best `FITTED_AGAIN` is that of an independent normal in the coordinates
    of its mode, at few draws. d is at most `MAX_DENSE`. ``once`` as in `find_optima`.
    """
    optima = find_optima(batched, starts, once)
    fits = []
    for number, one in enumerate(optima[:FITTED_AGAIN]):
        make = partial(rounds_from, batched, one.first, one.words, num_draws, response=response, seed=seed)
        fits.append(rounds_of(once(f"restart-{number}", make), starts.device))
    return fits, found_optima([*fits, *optima[FITTED_AGAIN:]], [one.restarts for one in optima])


def fit_each(
    batched: Batched, starts: Tensor, num_draws: int | None, *, response: bool, seed: int, once: Once
) -> tuple[list[Rounds], list[dict[str, Any]]]:
    """Fit a normal from each of the starts, one after another, and return all, and the optima as `fit_best` does."""
    fits = []
    for number, start in enumerate(starts):
        make = partial(fit_rounds, batched, start, num_draws, response=response, seed=seed + 1000 * number)
        fits.append(rounds_of(once(f"restart-{number}", make), starts.device))
    return fits, found_optima(fits, [1] * len(fits))


def find_optima(batched: Batched, starts: Tensor, once: Once = lambda _, make: make()) -> list[Optimum]:
    """Return the different optima among independent normals that starts (n, d) lead to, best first.

    ``once(name, make)`` returns what ``make`` does, or did when it was called first by this name; on any device.
    """
    with batched.widened():
        modes = _in_chunks("modes", partial(find_modes, batched), once, starts)
        firsts = _firsts(batched, starts, Modes(*modes))
        fit = partial(fit_normals, batched, noise=first_noise(starts))
        fitted = Normals(*_in_chunks("normals", fit, once, firsts.centres, firsts.roots))
    roots = firsts.roots * fitted.scales[:, None]
    groups = groups_of(fitted.centres, roots.square().sum(-1).sqrt(), fitted.losses)
    return [_optimum(group, firsts, fitted, roots) for group in groups]


def _optimum(group: list[int], firsts: _Firsts, fitted: Normals, roots: Tensor) -> Optimum:
    best = group[0]
    normal = Coordinates(fitted.centres[best], roots[best])
    first = Coordinates(firsts.centres[best], firsts.roots[best]) if firsts.at_mode[best] else normal
    restarts = sum(firsts.restarts[index] for index in group)
    return Optimum(normal, float(fitted.losses[best]), first, firsts.words[best], restarts)


def _firsts(batched: Batched, starts: Tensor, modes: Modes) -> _Firsts:
    """Return Laplace's normals at the different modes, and diagonal ones at starts that led to none."""
    groups, without = _different(batched, modes)
    without = torch.tensor(sorted(without), dtype=torch.long, device=starts.device)
    leaders = [group[0] for group, _ in groups]
    sds = [first_sds(batched.hessians(starts[rows])) for rows in _rows(without, starts.shape[1])]
    return _Firsts(
        torch.cat([modes.points[leaders], starts[without]]),
        torch.cat(
            [
                torch.stack([root for _, root in groups]) if groups else starts.new_zeros(0, *starts.shape[1:] * 2),
                *(each.diag_embed() for each in sds),
            ]
        ),
        ["started from the mode"] * len(groups) + [f"no mode ({modes.messages[index]})" for index in without.tolist()],
        [len(group) for group, _ in groups] + [1] * len(without),
        [True] * len(groups) + [False] * len(without),
    )


def _different(batched: Batched, modes: Modes) -> tuple[list[tuple[list[int], Tensor]], list[int]]:
    """Return the searches by mode with the roots of their inverse Hessians, and those that found none."""
    groups, without = [], (~modes.is_mode).nonzero()[:, 0].tolist()
    left = modes.energies.argsort(stable=True)
    left = left[modes.is_mode[left]]
    while len(left):
        best = left[0]
        hessian = batched.hessian(modes.points[best])
        apart = modes.points[left] - modes.points[best]
        costs = ((apart @ hessian) * apart).sum(1) / 2
        same = (modes.energies[left] - modes.energies[best] <= SAME_MODE) & (costs <= SAME_MODE)
        same[0] = True
        root, members = inverse_root(hessian), left[same].tolist()
        if root is None:  # rounding, where a direction is all but flat
            without += members
        else:
            groups.append((members, root))
        left = left[~same]
    return groups, without


def _in_chunks(name: str, function: Callable[..., tuple], once: Once, *inputs: Tensor) -> list[Any]:
    """Return the results of a function of inputs (n, …), which are tensors (n, …) or lists, chunk by chunk."""
    parts = []
    for rows in _rows(torch.arange(len(inputs[0])), inputs[0].shape[1]):
        part = once(f"{name}-{int(rows[0])}", partial(function, *(value[rows] for value in inputs)))
        parts.append(moved_to(inputs[0].device, part))
    return [torch.cat(v) if isinstance(v[0], Tensor) else [*chain(*v)] for v in zip(*parts, strict=True)]


def _rows(indices: Tensor, dim: int) -> tuple[Tensor, ...]:
    """Return indices in chunks for which arrays (n, d, d), and (n, draws, d), stay small."""
    return indices.split(max(1, min(MAX_CHUNK, MAX_NUMBERS // (dim * (dim + MIN_DRAWS))))) if len(indices) else ()
