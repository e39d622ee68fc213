"""Transition kernels that leave a density of independent blocks invariant; each block is accepted or rejected alone.

A kernel is a function ``(state, log_density, count) -> (state, accept_rate)``: ``state`` has shape (block, size),
``log_density`` maps it to (block,), and ``count`` transitions came before. Kernels adapt their step with a vanishing
gain, and may be used while the density itself still changes.

References
----------
1. Metropolis, Rosenbluth, Rosenbluth, Teller and Teller (1953), Equation of state calculations by fast computing
   machines, Journal of Chemical Physics 21.
2. Neal (2011), MCMC using Hamiltonian dynamics, Handbook of Markov Chain Monte Carlo, chapter 5.
3. Neal (2003), Slice sampling, Annals of Statistics 31.
4. Andrieu and Thoms (2008), A tutorial on adaptive MCMC, Statistics and Computing 18: the adaptation.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro.infer import NUTS
from torch import Tensor

from .kernel_state import KernelState

LogDensity = Callable[[Tensor], Tensor]
Kernel = Callable[[Tensor, LogDensity, int], tuple[Tensor, float]]
MAX_STEPS = 100  # by which a slice's end steps out, so that an improper density does not run forever


def metropolis(moves: int = 10, target: float = 0.35) -> Kernel:
    """Random-walk Metropolis (reference 1), ``moves`` isotropic proposals per transition, their size adapted.

    ``target`` is the acceptance rate to adapt to.
    """

    def move(state: Tensor, log_density: LogDensity, step: float) -> tuple[Tensor, float]:
        with torch.no_grad():
            current, accepted = log_density(state), 0.0
            for _ in range(moves):
                proposed = state + step * torch.randn_like(state)
                value = log_density(proposed)
                taken = _is_below(value - current)
                state = torch.where(taken[:, None], proposed, state)
                current = torch.where(taken, value, current)
                accepted += float(taken.double().mean()) / moves
        return state, accepted

    return _Adapted("metropolis", move, 1.0, target)


def hmc(leapfrogs: int = 5, target: float = 0.8) -> Kernel:
    """Hamiltonian Monte Carlo (reference 2) with a fixed number of leapfrog steps, their size jittered by a fifth.

    ``target`` is the acceptance rate to adapt to.
    """

    def move(state: Tensor, log_density: LogDensity, step: float) -> tuple[Tensor, float]:
        def value_and_grad(at: Tensor) -> tuple[Tensor, Tensor]:
            at = at.detach().requires_grad_()
            value = log_density(at)
            return value.detach(), torch.autograd.grad(value.sum(), at)[0]

        step = step * float(torch.empty(()).uniform_(0.8, 1.2))
        return hamiltonian_move(value_and_grad, state, *value_and_grad(state), step, leapfrogs)

    return _Adapted("hmc", move, 0.3, target)


class _Adapted:
    """A kernel whose step size follows the acceptance rate; ``move`` maps (state, density, step) to (state, rate)."""

    def __init__(self, name: str, move: Callable[..., tuple[Tensor, float]], step: float, target: float) -> None:
        self.__name__, self._move, self._log_step, self._target = name, move, math.log(step), target

    def __call__(self, state: Tensor, log_density: LogDensity, count: int) -> tuple[Tensor, float]:
        moved, accepted = self._move(state, log_density, math.exp(self._log_step))
        self._log_step += _gain(count) * (accepted - self._target)
        return moved, accepted

    def state(self) -> float:
        """Return the logarithm of the step size."""
        return self._log_step

    def restore(self, state: float) -> None:
        """Go back to a step size."""
        self._log_step = state


def hamiltonian_move(
    value_and_grad: Callable[[Tensor], tuple[Tensor, Tensor]],
    state: Tensor,
    value: Tensor,
    gradient: Tensor,
    step: float | Tensor,
    leapfrogs: int,
) -> tuple[Tensor, float]:
    """Move every block along one trajectory (reference 2), and accept or reject it by itself.

    ``value_and_grad`` maps a state (…, block, size) to its log density (…, block) and the gradient; ``value`` and
    ``gradient`` are those at ``state``. Returns the new state and the mean acceptance probability.
    """
    momentum = torch.randn_like(state)
    before, proposed = value - 0.5 * momentum.square().sum(-1), state
    for _ in range(leapfrogs):
        momentum = momentum + 0.5 * step * gradient
        proposed = proposed + step * momentum
        value, gradient = value_and_grad(proposed)
        momentum = momentum + 0.5 * step * gradient
    change = value - 0.5 * momentum.square().sum(-1) - before
    accept_rate = float(change.exp().clamp(max=1).nan_to_num(0.0).mean())
    return torch.where(_is_below(change).unsqueeze(-1), proposed, state), accept_rate


def gibbs(width: float = 2.0) -> Kernel:
    """Each coordinate in turn from its full conditional, by slice sampling (reference 3, sections 4 and 5).

    Exact for any density; each coordinate costs a handful of evaluations, and nothing is rejected. ``width`` is the
    initial guess of a conditional's width, on the unconstrained scale.
    """

    def transition(state: Tensor, log_density: LogDensity, count: int) -> tuple[Tensor, float]:
        with torch.no_grad():
            for column in range(state.shape[1]):
                state = _slice(state, column, log_density, width)
        return state, 1.0

    return transition


def _slice(state: Tensor, column: int, log_density: LogDensity, width: float) -> Tensor:
    """Redraw one coordinate of every block: a level under the density, an interval around it, then shrinkage."""
    position = state[:, column]

    def above(at: Tensor) -> Tensor:
        moved = state.clone()
        moved[:, column] = at
        return log_density(moved) > level

    level = log_density(state) + torch.rand_like(position).log()
    left = position - width * torch.rand_like(position)
    right = left + width
    for end, direction in ((left, -width), (right, width)):
        outside = above(end)
        for _ in range(MAX_STEPS):  # step out until the end lies below the level
            if not outside.any():
                break
            end += direction * outside
            outside = outside & above(end)
    found, pending = position.clone(), torch.ones_like(position, dtype=torch.bool)
    while pending.any():
        proposed = left + (right - left) * torch.rand_like(position)
        proposed = torch.where(pending, proposed, found)
        inside = above(proposed)
        found = torch.where(pending & inside, proposed, found)
        left = torch.where(pending & ~inside & (proposed < position), proposed, left)
        right = torch.where(pending & ~inside & (proposed >= position), proposed, right)
        pending = pending & ~inside
    moved = state.clone()
    moved[:, column] = found
    return moved


def nuts(warmup: int = 200) -> Kernel:
    """Pyro's No-U-Turn sampler, with all blocks as one; ``warmup`` transitions adapt the step size."""
    return _NoUTurn(warmup)


class _NoUTurn:
    __name__ = "nuts"

    def __init__(self, warmup: int) -> None:
        self._warmup, self._kernel, self._saved = warmup, None, None
        self._density: LogDensity

    def __call__(self, state: Tensor, log_density: LogDensity, count: int) -> tuple[Tensor, float]:
        self._density = log_density
        kernel = self._kernel = self._kernel or self._made(state)
        kernel.clear_cache()  # the density may have changed since
        with pyro.validation_enabled(False):
            moved = kernel.sample({"state": state})["state"].detach()
        return moved, float(kernel._mean_accept_prob)

    def _made(self, state: Tensor) -> NUTS:
        kernel = NUTS(potential_fn=lambda values: -self._density(values["state"]).sum(), adapt_mass_matrix=False)
        kernel.initial_params = {"state": state}
        with torch.random.fork_rng() if self._saved else nullcontext():
            kernel.setup(self._warmup)
        if self._saved:
            KernelState(kernel).restore(self._saved)
        return kernel

    def state(self) -> dict[str, Any] | None:
        """Return where Pyro's kernel stands; None before the first transition."""
        return None if self._kernel is None else KernelState(self._kernel).state()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go back there at the next transition, which says how large a state is."""
        self._kernel, self._saved = None, state


KERNELS: dict[str, Callable[[], Kernel]] = {"hmc": hmc, "nuts": nuts, "metropolis": metropolis, "gibbs": gibbs}


def _gain(count: int) -> float:
    return (1 + count) ** -0.6


def _is_below(log_ratio: Tensor) -> Tensor:
    """Whether to accept each block: with probability min(1, exp(log_ratio)), and never if that is nan."""
    return torch.rand_like(log_ratio).log() < log_ratio
