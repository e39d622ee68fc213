"""Annealed importance sampling: particles led from one density to another through tempered ones in between.

    log f_β(u) = log f_0(u) + β (log f_1(u) - log f_0(u)),    0 = β_0 < β_1 < … < β_T = 1
    log w      = Σ_t (β_t - β_{t-1}) (log f_1 - log f_0)(u_{t-1}),    u_t from a transition that leaves f_{β_t} in place

Where f_0 integrates to one and u_0 is drawn from it, E w is the integral of f_1, so that E log w lies below its
logarithm. From exact draws of f_1 down to f_0, E w is the integral's inverse, and E[-log w] lies above the logarithm.
Nothing here knows of Pyro: densities are functions of a tensor of shape (particle, block, size).

References
----------
1. Neal (2001), Annealed importance sampling, Statistics and Computing 11.
2. Grosse, Ghahramani and Adams (2015), Sandwiching the marginal likelihood using bidirectional Monte Carlo,
   arXiv:1511.02543.
3. Neal (2011), MCMC using Hamiltonian dynamics, Handbook of Markov Chain Monte Carlo, chapter 5.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..engines.graph import Potential, traced

LogTerms = Callable[[Tensor], Tensor]  # (particle, block, size) → (2, particle, block): log f_0, and log f_1 - log f_0
Evaluate = Callable[[Tensor, float], tuple[Tensor, Tensor, Tensor]]

PILOT_STEPS = 50  # temperatures of the pilot run
PILOT_MOVES = 3  # transitions of it at each
FIRST_MOVES = 20  # and at the first, where nothing is known yet
TARGET = 0.8  # acceptance rate that the pilot adapts to
GAIN = 0.3  # of the adaptation of the step's logarithm
MEMORY = 0.8  # of its running mean, which is what the pilot notes
WORTH_TRACING = 300  # evaluations from which recording the graph pays
STEEPNESS = 4.0  # of the sigmoid schedule (reference 2)


class Moves(NamedTuple):
    """Leapfrog steps that a pilot run has settled on.

    Attributes
    ----------
    steps : Tensor, shape (temperature,)
        Size of a step in units of ``scales``.
    scales : Tensor, shape (temperature, size)
        Standard deviation of every coordinate.
    """

    steps: Tensor
    scales: Tensor


class Annealed(NamedTuple):
    """Particles at the end of their path.

    Attributes
    ----------
    log_weights : Tensor, shape (particle, block)
        In nats.
    accept_rates : Tensor, shape (temperature,)
        Mean acceptance probability at each temperature between the ends.
    """

    log_weights: Tensor
    accept_rates: Tensor


def schedule(name: str, count: int) -> Tensor:
    """Inverse temperatures β_0 = 0, …, β_count = 1, float64: "linear", or "sigmoid" with small steps at both ends."""
    even = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    if name == "linear":
        return even
    bent = torch.sigmoid(STEEPNESS * (2 * even - 1))
    return (bent - bent[0]) / (bent[-1] - bent[0])


def evaluator(log_terms: LogTerms, state: Tensor, evaluations: int) -> Evaluate:
    """A function (state, β) → (log f_0, log f_1 - log f_0, ∇ log f_β), on a traced graph where that pays.

    One backward pass gives all three: the terms are the derivatives in their own coefficients.
    """

    def potential(params: dict[str, Tensor]) -> Tensor:
        terms = log_terms(params["state"])
        return (params["coefficients"] * terms).sum()

    coefficients = state.new_ones(2, *state.shape[:2])
    value: Potential = potential
    if evaluations >= WORTH_TRACING:
        with torch.enable_grad():
            value = traced(potential, {"state": state, "coefficients": coefficients}) or potential

    def evaluate(at: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
        weights = coefficients.clone()
        weights[1] = beta
        leaves = {"state": at.detach().requires_grad_(), "coefficients": weights.requires_grad_()}
        with torch.enable_grad():
            gradient, terms = torch.autograd.grad(value(leaves), list(leaves.values()))
        return terms[0], terms[1], gradient

    return evaluate


def pilot(evaluate: Evaluate, start: Tensor, betas: Tensor, num_leapfrogs: int) -> Moves:
    """Run up a shortened path and note step sizes with the acceptance aimed at, and the particles' spread.

    Parameters
    ----------
    evaluate : callable
        As `evaluator` returns it.
    start : Tensor, shape (particle, block, size)
        Draws of f_0.
    betas : Tensor, shape (temperature + 1,)
        The whole path.
    num_leapfrogs : int

    Returns
    -------
    Moves
        For the temperatures ``betas[1:]``.
    """
    count = len(betas) - 1
    stops = min(count, PILOT_STEPS)
    state, log_step = start, math.log(0.5)
    smooth = log_step
    steps, scales = [], []
    for stop in range(1, stops + 1):
        beta = float(betas[stop * count // stops])
        for _ in range(PILOT_MOVES if stop > 1 else FIRST_MOVES):
            scale = _spread(state)
            point = evaluate(state, beta)
            state, accepted = _move(evaluate, state, point, beta, math.exp(log_step) * scale, num_leapfrogs)
            log_step += GAIN * (accepted - TARGET)
            smooth = MEMORY * smooth + (1 - MEMORY) * log_step
        steps.append(smooth)
        scales.append(_spread(state))
    nearest = [t * stops // count for t in range(count)]
    return Moves(torch.tensor(steps, dtype=torch.float64).exp()[nearest], torch.stack(scales)[nearest])


def anneal(
    evaluate: Evaluate, start: Tensor, betas: Tensor, moves: Moves, num_leapfrogs: int, *, reverse: bool = False
) -> Annealed:
    """Lead particles along the path, with one Hamiltonian transition at every temperature.

    Parameters
    ----------
    evaluate : callable
        As `evaluator` returns it.
    start : Tensor, shape (particle, block, size)
        Independent draws of f_0, or of f_1 where ``reverse``.
    betas : Tensor, shape (temperature + 1,)
        From 0 to 1.
    moves : Moves
        As `pilot` returns them, from a run of its own.
    num_leapfrogs : int
        Steps a transition.
    reverse : bool
        Whether to go down from f_1 to f_0: the weights then stand for the inverse of the integral.
    """
    order = list(range(len(betas)))[:: -1 if reverse else 1]
    state, rates = start, []
    log_weights = start.new_zeros(start.shape[:2], dtype=torch.float64)
    for last, this in pairwise(order):
        beta = float(betas[this])
        point = evaluate(state, beta)
        log_weights = log_weights + float(betas[this] - betas[last]) * point[1]
        if this == order[-1]:
            break
        step = float(moves.steps[this - 1]) * moves.scales[this - 1]
        state, accepted = _move(evaluate, state, point, beta, step, num_leapfrogs)
        rates.append(accepted)
    return Annealed(log_weights, torch.tensor(rates, dtype=torch.float64))


def _spread(state: Tensor) -> Tensor:
    """Standard deviation of every coordinate among the particles of a block, shape (size,)."""
    return state.var(0).mean(0).sqrt().clamp(min=torch.finfo(state.dtype).tiny)


def _move(
    evaluate: Evaluate,
    state: Tensor,
    point: tuple[Tensor, Tensor, Tensor],
    beta: float,
    step: Tensor,
    num_leapfrogs: int,
) -> tuple[Tensor, float]:
    """One Hamiltonian transition (reference 3) at β, every block accepted or rejected by itself; the rate, too.

    ``point`` is what ``evaluate`` gives at ``state``. Steps vary, lest trajectories come back to where they began.
    """
    log_start, log_ratio, gradient = point
    step = step * float(torch.empty(()).uniform_(0.6, 1.0))
    momentum = torch.randn_like(state)
    before = log_start + beta * log_ratio - 0.5 * momentum.square().sum(-1)
    proposed = state
    for _ in range(num_leapfrogs):
        momentum = momentum + 0.5 * step * gradient
        proposed = proposed + step * momentum
        log_start, log_ratio, gradient = evaluate(proposed, beta)
        momentum = momentum + 0.5 * step * gradient
    change = log_start + beta * log_ratio - 0.5 * momentum.square().sum(-1) - before
    accepted = torch.rand_like(change).log() < change  # never where the change is nan
    rate = float(change.exp().clamp(max=1).nan_to_num(0.0).mean())
    return torch.where(accepted.unsqueeze(-1), proposed, state), rate
