"""Which form of metric all chains go on with, decided between two blocks of warm-up by the draws of all of them."""

from typing import Any, NamedTuple

import numpy as np

from ...mcmc.metric import LEAST_GAIN, SLOW, Window, conditioning_gain, diagonal_metric, effective_share, metric
from .adapt import AdaptState, window_ends
from .numpyro_private import leaves_of, matrix, roots_of, with_leaves, with_matrix, with_step

WORTH_A_TRIAL = 160  # draws of all chains in a window from which speed is judged: fewer tell little of it
Carried = tuple[Any, AdaptState]


class Ends(NamedTuple):
    """Iterations: a window from ``first`` to ``judged``, and one from there to ``tried`` if that leaves time."""

    first: int
    judged: int
    tried: int | None


def ends(num_warmup: int, first_window: int, num_chains: int) -> Ends | None:
    """Return when to judge the metric; None if warm-up is too short for that."""
    times = window_ends(num_warmup, first_window)
    if len(times) >= 4 and num_chains * (times[-3] - times[-4]) >= WORTH_A_TRIAL:
        return Ends(times[-4], times[-3], times[-2])
    return Ends(times[-3], times[-2], None) if len(times) >= 3 else None


class Choice:
    """Dense, or diagonal, as the draws of warm-up speak for; chains begin with a dense metric.

    A diagonal one is taken at once where it leaves draws as well conditioned. Where the dense one mixes slowly, a
    diagonal one is tried for a window, and kept unless it mixes more slowly still.
    """

    def __init__(self, num_warmup: int, first_window: int, num_chains: int) -> None:
        self.ends, self.is_diagonal = ends(num_warmup, first_window, num_chains), False
        self._share, self._before, self._trying = 0.0, [], False

    @property
    def times(self) -> list[int]:
        """Iterations after which `decide` is to be called, with the draws since the one before, or `Ends.first`."""
        return [time for time in self.ends[1:] if time] if self.ends else []

    def decide(self, carried: list[Carried], window: Window) -> list[Carried]:
        """Return what the chains carry, with the metric that they go on with."""
        if self._trying:
            self._trying = False
            if effective_share(window) < self._share:
                self.is_diagonal = False
                return [_dense(*each) for each in zip(carried, self._before, _by_chain(window), strict=True)]
            return carried
        if self.is_diagonal or not self._is_doubtful(window):
            return carried
        self.is_diagonal, self._before = True, carried
        return [_diagonal(*each) for each in zip(carried, _by_chain(window), strict=True)]

    def _is_doubtful(self, window: Window) -> bool:
        if conditioning_gain(window) < LEAST_GAIN:
            return True
        if self.ends is None or self.ends.tried is None:
            return False
        self._share = effective_share(window)
        self._trying = self._share < SLOW
        return self._trying


class ChoiceState:
    """A choice as part of a checkpoint; ``template`` is of what a chain carries."""

    def __init__(self, choice: Choice, template: Any) -> None:
        self._choice, self._template = choice, template

    def state(self) -> dict[str, Any]:
        """Return what has been decided, and by what."""
        own = {name: value for name, value in vars(self._choice).items() if name != "ends"}
        return own | {"_before": [leaves_of(each) for each in self._choice._before]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to that."""
        vars(self._choice).update(state)
        self._choice._before = [with_leaves(self._template, each) for each in state["_before"]]


def _diagonal(carried: Carried, window: Window) -> Carried:
    """Return what a chain carries, with a diagonal metric from its draws in a window."""
    state, adapt = carried
    full = np.diag(diagonal_metric(window))
    changed = with_matrix(state, *roots_of(full, matrix(state)[0].dtype))
    return changed, adapt._replace(diagonal=np.asarray(True))


def _dense(carried: Carried, before: Carried, window: Window) -> Carried:
    """Return what a chain carries, with the dense metric from before, bettered by its draws in a window."""
    old, adapt = before
    _, root, factor = (np.asarray(part, float) for part in matrix(old))
    positions, gradients = window.covariances()
    full = factor.T @ metric(root.T @ positions @ root, factor @ gradients @ factor.T, np) @ factor
    changed = with_matrix(carried[0], *roots_of((full + full.T) / 2, matrix(old)[0].dtype))
    return with_step(changed, old.adapt_state.step_size), adapt


def _by_chain(window: Window) -> list[Window]:
    pairs = zip(window.positions, window.gradients, strict=True)
    return [Window(*(part[None] for part in pair)) for pair in pairs]
