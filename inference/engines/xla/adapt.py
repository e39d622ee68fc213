"""Warm-up: adapt the step size, and a mass matrix to draws and to the gradients at them, so that few draws suffice.

The matrix is that of `mcmc.metric`. NumPyro's own rule uses the draws alone: after its first 25 draws a dense matrix is
so far off that each of the next 50 takes 500 steps.

References
----------
1. Hoffman and Gelman (2014), The No-U-Turn sampler, JMLR 15, section 3.2: dual averaging of the step size.
2. Seyboldt, Carlson and Carpenter (2026), Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence: the
   matrix.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from ...mcmc.metric import metric
from .numpyro_private import init_averaging, matrix, update_averaging, with_matrix, with_step

FIRST = 20  # iterations in the first window
GROWTH = 1.5  # length of a window relative to the one before
LAST = 50  # iterations after the last window, for the step size alone
FIRST_STEP = 0.01  # small, so that chains that start at high energy do not jump to other modes
OVERSHOOT = 2.0  # after a window, step sizes are sought around this multiple of the last one


class Moments(NamedTuple):
    """Running moments of positions and of gradients, stacked."""

    number: Array  # draws so far
    mean: Array  # (2, d)
    spread: Array  # sums of products of deviations from the mean, (2, d, d), or (2, d) for variances alone


class AdaptState(NamedTuple):
    """Moments of the current window, dual averaging of the step size, and whether a full matrix is kept diagonal."""

    moments: Moments
    averaging: Any
    diagonal: Any = False


def init(dim: int, dense: bool, step_size: float | Array = FIRST_STEP) -> AdaptState:
    """Return the state before the first draw of a window."""
    spread = jnp.zeros((2, dim, dim) if dense else (2, dim))
    centre: Any = jnp.log(OVERSHOOT * step_size)
    return AdaptState(Moments(jnp.zeros(()), jnp.zeros((2, dim)), spread), init_averaging(centre), jnp.asarray(False))


def adaptation(
    num_warmup: int, target_accept: float, first_window: int = FIRST
) -> Callable[[Array, Any, AdaptState], tuple[Any, AdaptState]]:
    """Return ``(iteration, state, adapt) -> (state, adapt)``, which adapts NumPyro's state after each iteration."""
    if not num_warmup:
        return lambda _, *same: same
    ends = np.isin(np.arange(num_warmup) + 1, window_ends(num_warmup, first_window))

    def warm_up(iteration: Array, state: Any, adapt: AdaptState) -> tuple[Any, AdaptState]:
        averaging = update_averaging(target_accept - state.accept_prob, adapt.averaging)
        log_step, log_average = averaging[:2]
        limits = jnp.finfo(log_step.dtype)
        step_size = jnp.exp(jnp.where(iteration == num_warmup - 1, log_average, log_step))
        state = with_step(state, jnp.clip(step_size, limits.tiny, limits.max))
        moments = _with_draw(adapt.moments, state.z, state.z_grad)
        return lax.cond(
            jnp.asarray(ends)[iteration],
            lambda: (_with_matrix_of(moments, state, adapt.diagonal), reset(adapt, state.adapt_state.step_size)),
            lambda: (state, AdaptState(moments, averaging, adapt.diagonal)),
        )

    return lambda iteration, state, adapt: lax.cond(
        iteration < num_warmup, warm_up, lambda _, *same: same, iteration, state, adapt
    )


def window_ends(num_warmup: int, first: int = FIRST) -> list[int]:
    """Return the iterations after which the matrix is set, each time from the draws of the window that ends."""
    last = num_warmup - min(LAST, num_warmup // 5)
    times, time = [], first
    while time < 0.8 * last:
        times.append(time)
        time = max(int(GROWTH * time), time + first)
    return [*times, last] if last >= first else times


def reset(adapt: AdaptState, step_size: Any) -> AdaptState:
    """Return the state at the start of a window."""
    mean, spread = adapt.moments.mean, adapt.moments.spread
    return init(mean.shape[-1], spread.ndim == 3, step_size)._replace(diagonal=adapt.diagonal)


def _with_draw(moments: Moments, position: Array, gradient: Array) -> Moments:
    """Add a draw, by Welford's recursion."""
    number, mean, spread = moments
    draw = jnp.stack([position, gradient])
    before = draw - mean
    mean = mean + before / (number + 1)
    after = draw - mean
    product = before * after if spread.ndim == 2 else before[:, :, None] * after[:, None, :]
    return Moments(number + 1, mean, spread + product)


def _with_matrix_of(moments: Moments, state: Any, diagonal: Array) -> Any:
    """Return NumPyro's state with the matrix of these moments; unchanged if that is not finite."""
    positions, gradients = moments.spread / (moments.number - 1)
    if positions.ndim == 1:
        inverse_mass = jnp.sqrt(positions / gradients)
        factor = jnp.sqrt(inverse_mass)
        root = 1 / factor
    else:  # in units of the previous matrix, which is kept in directions that few draws inform
        _, root, factor = matrix(state)
        inverse_mass = factor.T @ metric(root.T @ positions @ root, factor @ gradients @ factor.T, jnp) @ factor
        inverse_mass = 0.5 * (inverse_mass + inverse_mass.T)
        scales = jnp.sqrt(jnp.diagonal(positions) / jnp.diagonal(gradients))
        inverse_mass = jnp.where(diagonal, jnp.diag(scales), inverse_mass)
        factor = jnp.linalg.cholesky(inverse_mass[::-1, ::-1])[::-1, ::-1].T
        root = solve_triangular(factor, jnp.eye(len(factor)), lower=True)
    good = jnp.isfinite(factor).all() & jnp.isfinite(root).all()
    found = zip((inverse_mass, root, factor), matrix(state), strict=True)
    return with_matrix(state, *(jnp.where(good, new, old) for new, old in found))
