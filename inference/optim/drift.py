"""Whether parameters still drift under stochastic gradient steps, whatever the optimiser and the scale of its noise.

Iterates that have settled move no further over many stretches of steps than a random walk of the same stretches would;
those that are on their way keep their direction. The self-normalised sum of the stretches' moves, |Σd| / (Σd²)^½, has
tails below 2 exp(-x²/2) for any independent symmetric moves, however unlike in size, and is the square root of
their number where all are alike. So it needs neither the size of the noise nor that of the steps, which may decay.

Efron (1969), Student's t-test under symmetry conditions, JASA 64; Shao (1997), Self-normalized large deviations,
Annals of Probability 25. Why iterates rather than losses: Dhaka et al. (2020), section 4; Welandawe, Andersen, Vehtari
and Huggins (2022), A framework for improving the reliability of black-box variational inference, section 3.
"""

import math
from typing import Any

import torch
from torch import Tensor

LONGEST = 64  # positions that are looked at, at most
SHORTEST = 10  # steps between two positions: the memory of Adam's momentum
CHANCE = 0.01  # of calling some settled parameter drifting
FADING = 0.9  # above this ratio of its speeds in both halves, a drift is taken to fade by no more


def largest_sum(count: int) -> float:
    """Return what the self-normalised sums of ``count`` settled parameters do not exceed, but for `CHANCE`."""
    return math.sqrt(2 * math.log(2 * max(1, count) / CHANCE))


def remaining_moves(positions: Tensor, times: Tensor) -> Tensor:
    """Return how far each parameter has still to go at the pace at which it slows down; 0 if it does not drift.

    Parameters
    ----------
    positions : Tensor, shape (position, parameter)
        The iterates along the way, equally many steps apart.
    times : Tensor, shape (position,)
        Sums of the sizes of the steps so far: where these are equal, pace is comparable.

    Returns
    -------
    Tensor, shape (parameter,)
        A drift whose speed falls by the factor r from the window's first half to its second goes on for r / (1 - r)
        times the second half's move.
    """
    moves = positions.diff(dim=0)
    limit = largest_sum(positions.shape[1])
    spread = moves.square().sum(0).sqrt()
    drifts = moves.sum(0).abs() > limit * spread
    middle = int(torch.searchsorted(times, (times[0] + times[-1]) / 2).clamp(1, len(times) - 2))
    before = (positions[middle] - positions[0]) / (times[middle] - times[0])
    after = (positions[-1] - positions[middle]) / (times[-1] - times[middle])
    ratio = (after / before).abs().nan_to_num(nan=0.0, posinf=1.0).clamp(max=FADING)
    half = (times[-1] - times[0]) / 2
    return torch.where(drifts, after * half * ratio / (1 - ratio), 0.0)


def error_and_size(series: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Monte Carlo error of the mean of each series, (position, quantity), and its effective sample size.

    The series is taken for a first-order autoregression; the estimate of its coefficient is freed of most of its bias,
    1 / position. A random walk has an effective size of 2 or so, however long it is.
    """
    centred = series - series.mean(0)
    variance = centred.square().mean(0)
    lagged = (centred[1:] * centred[:-1]).sum(0) / centred.square().sum(0)
    rho = (lagged.nan_to_num() + 1 / len(series)).clamp(0, 0.98)
    size = len(series) * (1 - rho) / (1 + rho)
    return (variance / size).sqrt(), size


class Trail:
    """Positions of the parameters, equally many steps apart: every second one is dropped when there are too many."""

    def __init__(self, every: int) -> None:
        self.every = max(SHORTEST, every)
        self._positions: list[Tensor] = []
        self._times: list[float] = []
        self._since, self._now = 0, 0.0

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def left(self) -> int:
        """Steps until the next position: a block must end there."""
        return self.every - self._since

    def add(self, position: Tensor, rates: Tensor) -> None:
        """Note where steps of these sizes, (step,), have led, if it is time for a position."""
        self._since += len(rates)
        self._now += float(rates.sum())
        if self._since < self.every:
            return
        self._since = 0
        self._positions.append(position.detach().clone())
        self._times.append(self._now)
        if len(self._positions) > 2 * LONGEST:
            self._positions, self._times = self._positions[::2], self._times[::2]
            self.every *= 2

    def state(self) -> Any:
        """Return all that it holds."""
        return vars(self) | {"_positions": torch.stack(self._positions) if self._positions else None}

    def restore(self, state: Any) -> None:
        """Hold what it held."""
        vars(self).update(state)
        self._positions = [] if state["_positions"] is None else list(state["_positions"])

    def last(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the last positions, (position, parameter) in float64, and their times."""
        return torch.stack(self._positions[-count:]).double(), torch.tensor(self._times[-count:]).double()
