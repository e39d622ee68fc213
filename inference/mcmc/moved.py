"""Draws of an approximation, moved towards the posterior until they have settled there."""

import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..progress import Progress
from ..quantities import Coords, check_coords, informative, scalars
from ..traces.target import VectorTarget
from .moments import Moments, moments
from .short_chains import (
    LENGTH,
    MAX_LEAPFROGS,
    ShortChains,
    States,
    first_step,
    joined,
    metric_of_draws,
    metric_of_states,
)

WARM_UP, READJUST = 8, 4  # trajectories that are discarded: to come down, and after each new metric
MAX_DESCENTS, FALLING = 12, 4.0  # new metrics at once; standard errors by which energies have not fallen by chance
WINDOWS = (24, 28, 40)  # trajectories: each where those before do not suffice
PROBED = 64  # draws at which gradients are timed
TRAJECTORIES = WARM_UP + sum(WINDOWS) + READJUST * len(WINDOWS)  # at most


class Moved(NamedTuple):
    """What became of the draws.

    Attributes
    ----------
    before : dict of Tensor
        Quantities of the draws by name, shape (chain, draw).
    moments : Moments
        Of the same quantities under the posterior.
    vectors : Tensor, shape (chain, draw, d)
        Where the chains were in the end.
    chains : ShortChains
    """

    before: dict[str, Tensor]
    moments: Moments
    vectors: Tensor
    chains: ShortChains


class TooSlow(Exception):  # noqa: N818 (caught by `check`, not an error)
    """Chains would take longer than they may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def seconds_per_chain(target: VectorTarget, draws: Mapping[str, Tensor]) -> float:
    """Return about how long `move_draws` takes per chain, by one batch of gradients at draws (chain, draw, *site).

    The chains are taken to settle in the first window.
    """
    vectors = target.vectors(draws).flatten(0, 1)[:PROBED]
    target.batched(vectors)  # the first records
    begin = time.perf_counter()
    target.batched(vectors)
    seconds = time.perf_counter() - begin
    leapfrogs = min(MAX_LEAPFROGS, LENGTH / first_step(vectors.shape[1]))
    return seconds / len(vectors) * leapfrogs * (WARM_UP + READJUST + WINDOWS[0])


def move_draws(
    target: VectorTarget,
    draws: Mapping[str, Tensor],
    identify: Callable[..., dict[str, Tensor]],
    num_chains: int,
    bar: Progress,
    max_seconds: float = math.inf,
    coords: Coords | None = None,
    suffices: Callable[[Moved], bool] = lambda moved: True,
) -> Moved | None:
    """Move draws (chain, draw, *site) by short chains; to be called in the fit's `isolated` context.

    Chains that have not settled in a window of trajectories begin another one, with a new metric; where they have, but
    that does not suffice, the next window is added to it, once. None if the density is finite at none of those that
    chains would start from. No window begins that would end after ``max_seconds``, by the pace so far: `TooSlow` is
    raised if that is the first. A ValueError, in the method's name, says if the draws are not those of the model, no
    quantity varies, or ``coords``, names as in `compare`, do not fit.
    """
    begin = time.perf_counter()
    vectors = target.vectors(draws).flatten(0, 1)
    vectors = vectors[vectors.isfinite().all(1)]
    if len(vectors) < 2:
        return None
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    starts = _some(vectors, num_chains, generator)
    chains = ShortChains(target.batched, starts, metric_of_draws(vectors), generator)
    if not chains.energy.isfinite().any():
        return None
    anchor = identify(draws)

    def quantities(at: Tensor) -> dict[str, Tensor]:
        """Return quantities by name, shape (chain, draw), at vectors (chain, draw, d)."""
        found = identify(target.draws(at), anchor)
        return scalars({site: value for site, value in found.items() if site in anchor}, coords)

    check_coords(coords or {}, {site: value.shape[2:] for site, value in anchor.items()}, target.method)
    before = scalars(anchor, coords)
    begun = quantities(starts[:, None])
    chains.metric = metric_of_states(starts, chains.gradients)
    states = chains.run(WARM_UP, adapt=True)
    moved, settled = None, False
    for trajectories in WINDOWS:
        passed = time.perf_counter() - begin
        needed = passed * (1 + (READJUST + trajectories) / chains.trajectories)
        if needed > max_seconds:
            if moved is None:
                raise TooSlow(needed)
            break
        if longer := settled:
            states = joined(states, chains.run(trajectories))
        else:
            _readjust(chains, states)
            states = chains.run(trajectories)
        bar.update(chains.trajectories)
        vectors = states.vectors.transpose(0, 1)
        after = quantities(vectors)
        names = _judged(before, after)
        if not names:
            raise ValueError(f"{target.method}: {', '.join(anchor)} does not vary, so that there is nothing to judge")
        scale = states.vectors.flatten(0, 1).std(0).cpu().double().clamp(min=1e-300)
        found = moments(
            torch.stack([after[name].T for name in names], -1),
            torch.cat([begun[name] for name in names], 1),
            states.vectors.cpu().double() / scale,
            starts.cpu().double() / scale,
            states.gradients.cpu().double() * scale,
        )
        moved = Moved({name: before[name] for name in names}, found, vectors, chains)
        settled = bool(found.settled.all())
        if settled and (longer or suffices(moved)):
            break
    return moved


def _readjust(chains: ShortChains, states: States) -> None:
    """Learn the metric from the later half of the states and the step size for it, and again while energies fall."""
    for _ in range(MAX_DESCENTS):
        half, energy = len(states.vectors) // 2, chains.energy
        chains.metric = metric_of_states(states.vectors[half:].flatten(0, 1), states.gradients[half:].flatten(0, 1))
        states = chains.run(READJUST, adapt=True)
        fall = (energy - chains.energy)[energy.isfinite()]
        if not fall.mean() > FALLING * fall.std() / len(fall) ** 0.5:
            break


def _some(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` of the draws, all of them as often as one another if they are fewer."""
    rounds = -(-count // len(vectors))
    order = torch.cat([torch.randperm(len(vectors), generator=generator) for _ in range(rounds)])
    return vectors[order[:count].to(vectors.device)]


def _judged(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Return the names of quantities that vary, before or after, each once."""
    varying = {*informative(before), *informative(after)}
    return [name for name in before if name in after and name in varying]
