"""Annealed importance sampling: particles move from one density to another through tempered ones in between.

    log f_β(u) = log f_0(u) + β (log f_1(u) - log f_0(u)),    0 = β_0 < β_1 < … < β_T = 1
    log w      = Σ_t (β_t - β_{t-1}) (log f_1 - log f_0)(u_{t-1}),    u_t by a transition that keeps f_{β_t} invariant

If f_0 integrates to one and u_0 is drawn from it, E w is the integral of f_1, and E log w lies below its logarithm.
From exact draws of f_1 down to f_0, E w is the integral's inverse, and E[-log w] lies above the logarithm.
Densities are functions of a tensor of shape (particle, block, size).

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
from .kernels import hamiltonian_move

LogTerms = Callable[[Tensor], Tensor]  # (particle, block, size) → (2, particle, block): log f_0, and log f_1 - log f_0
Point = tuple[Tensor, Tensor, Tensor]  # at a state and a β: log f_β, its gradient, and log f_1 - log f_0
Evaluate = Callable[[Tensor, float], Point]

PILOT_STEPS = 50  # temperatures of the pilot run
PILOT_MOVES = 3  # its transitions at each temperature
FIRST_MOVES = 20  # its transitions at the first, where nothing is known yet
TARGET = 0.8  # acceptance rate that the pilot adapts to
GAIN = 0.3  # of the adaptation of the step's logarithm
MEMORY = 0.8  # of the running mean of that logarithm
WORTH_TRACING = 300  # evaluations that make up for tracing the graph
STEEPNESS = 4.0  # of the sigmoid schedule (reference 2)


class Moves(NamedTuple):
    """Leapfrog steps that a pilot run has adapted."""

    steps: Tensor  # (temperature,), in units of the scales
    scales: Tensor  # (temperature, size): standard deviation of each coordinate


class Annealed(NamedTuple):
    """Particles at the end of their path."""

    log_weights: Tensor  # (particle, block), in nats
    accept_rates: Tensor  # (temperature,): mean acceptance probability at each one between the ends


def schedule(name: str, count: int) -> Tensor:
    """Return inverse temperatures β_0 = 0, …, β_count = 1: "linear", or "sigmoid" with small steps at both ends."""
    even = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    if name == "linear":
        return even
    bent = torch.sigmoid(STEEPNESS * (2 * even - 1))
    return (bent - bent[0]) / (bent[-1] - bent[0])


def evaluator(log_terms: LogTerms, state: Tensor, evaluations: int) -> Evaluate:
    """Return a function (state, β) → (log f_β, ∇ log f_β, log f_1 - log f_0), traced if that pays.

    One backward pass gives all three: the terms are the derivatives in their own coefficients.
    """

    def potential(params: dict[str, Tensor]) -> Tensor:
        return (params["coefficients"] * log_terms(params["state"])).sum()

    coefficients = state.new_ones(2, *state.shape[:2])
    value: Potential = potential
    if evaluations >= WORTH_TRACING:
        with torch.enable_grad():
            value = traced(potential, {"state": state, "coefficients": coefficients}) or potential

    def evaluate(at: Tensor, beta: float) -> Point:
        weights = coefficients.clone()
        weights[1] = beta
        leaves = {"state": at.detach().requires_grad_(), "coefficients": weights.requires_grad_()}
        with torch.enable_grad():
            gradient, terms = torch.autograd.grad(value(leaves), list(leaves.values()))
        return terms[0] + beta * terms[1], gradient, terms[1]

    return evaluate


def pilot(evaluate: Evaluate, start: Tensor, betas: Tensor, num_leapfrogs: int) -> Moves:
    """Adapt step sizes to the acceptance rate, and scales to the particles' spread, on a shortened path up.

    ``start`` are draws of f_0, shape (particle, block, size); the moves are for the temperatures ``betas[1:]``.
    """
    count = len(betas) - 1
    stops = min(count, PILOT_STEPS)
    state, log_step = start, math.log(0.5)
    smooth = log_step
    steps, scales = [], []
    for stop in range(1, stops + 1):
        beta = float(betas[stop * count // stops])
        for _ in range(PILOT_MOVES if stop > 1 else FIRST_MOVES):
            step = math.exp(log_step) * _spread(state)
            state, accepted = _move(evaluate, state, evaluate(state, beta), beta, step, num_leapfrogs)
            log_step += GAIN * (accepted - TARGET)
            smooth = MEMORY * smooth + (1 - MEMORY) * log_step
        steps.append(smooth)
        scales.append(_spread(state))
    nearest = [t * stops // count for t in range(count)]
    return Moves(torch.tensor(steps, dtype=torch.float64).exp()[nearest], torch.stack(scales)[nearest])


def anneal(
    evaluate: Evaluate, start: Tensor, betas: Tensor, moves: Moves, num_leapfrogs: int, *, reverse: bool = False
) -> Annealed:
    """Move particles along the path, with one Hamiltonian transition per temperature.

    ``start`` are independent draws of f_0, shape (particle, block, size), and ``moves`` come from other particles. If
    ``reverse``, the path leads from draws of f_1 down to f_0, and the weights estimate the inverse of the integral.
    """
    order = list(range(len(betas)))[:: -1 if reverse else 1]
    state, rates = start, []
    log_weights = start.new_zeros(start.shape[:2], dtype=torch.float64)
    for last, this in pairwise(order):
        beta = float(betas[this])
        point = evaluate(state, beta)
        log_weights = log_weights + float(betas[this] - betas[last]) * point[2]
        if this == order[-1]:
            break
        step = float(moves.steps[this - 1]) * moves.scales[this - 1]
        state, accepted = _move(evaluate, state, point, beta, step, num_leapfrogs)
        rates.append(accepted)
    return Annealed(log_weights, torch.tensor(rates, dtype=torch.float64))


def _spread(state: Tensor) -> Tensor:
    """Return the standard deviation of each coordinate among the particles of a block, shape (size,)."""
    return state.var(0).mean(0).sqrt().clamp(min=torch.finfo(state.dtype).tiny)


def _move(
    evaluate: Evaluate, state: Tensor, point: Point, beta: float, step: Tensor, num_leapfrogs: int
) -> tuple[Tensor, float]:
    """Make one Hamiltonian move (reference 3) at β; ``point`` is what ``evaluate`` returns at ``state``."""
    step = step * float(torch.empty(()).uniform_(0.6, 1.0))  # jittered, to avoid periodic trajectories
    return hamiltonian_move(lambda at: evaluate(at, beta)[:2], state, *point[:2], step, num_leapfrogs)
