"""What warm-up learns: a step size, and a mass matrix from draws and from gradients at them, so that few draws do.

For a normal posterior with covariance Σ the gradients have covariance Σ⁻¹, and the Σ that turns the one covariance
into the other is found exactly as soon as there are more draws than dimensions. For others it is the linear map that
brings the gradients nearest to those of a standard normal, in Fisher divergence. NumPyro's own rule looks at the draws
alone: after its first 25 of them a dense matrix is so far off that each draw of the next 50 takes 500 steps.

References
----------
1. Hoffman and Gelman (2014), The No-U-Turn sampler, JMLR 15, section 3.2: dual averaging of the step size.
2. Seyboldt, Carlson and Carpenter (2026), Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular
from numpyro.infer.hmc_util import dual_averaging

FIRST = 20  # iterations before the first renewal of the matrix
GROWTH = 1.5  # of the iterations from one to the next
LAST = 50  # iterations at the end that are left to the step size
RIDGE = 1e-2  # added to both covariances, in units that make their diagonals alike
FIRST_STEP = 0.01  # small, so that chains that start high do not fly over into other modes
OVERSHOOT = 2.0  # step sizes are first sought around this multiple of the last one

_begin_averaging, _update_averaging = dual_averaging()


class Moments(NamedTuple):
    """Running moments of positions and of gradients, one above the other.

    Attributes
    ----------
    number : Array, scalar
        Draws so far.
    mean : Array, shape (2, d)
    spread : Array, shape (2, d, d), or (2, d) where only variances count
        Sums of products of deviations from the mean.
    """

    number: Array
    mean: Array
    spread: Array


class Learnt(NamedTuple):
    """State of the adaptation: moments since the matrix was renewed, and dual averaging of the step size."""

    moments: Moments
    averaging: Any


def nothing(dim: int, dense: bool, step_size: float | Array = FIRST_STEP) -> Learnt:
    """What is known before the first draw."""
    spread = jnp.zeros((2, dim, dim) if dense else (2, dim))
    centre: Any = jnp.log(OVERSHOOT * step_size)
    return Learnt(Moments(jnp.zeros(()), jnp.zeros((2, dim)), spread), _begin_averaging(centre))


def adaptation(num_warmup: int, target_accept: float) -> Callable[[Array, Any, Learnt], tuple[Any, Learnt]]:
    """``(iteration, state, learnt) -> (state, learnt)``: what to do with NumPyro's state after each iteration."""
    due = np.isin(np.arange(num_warmup) + 1, renewals(num_warmup))

    def warm(iteration: Array, state: Any, learnt: Learnt) -> tuple[Any, Learnt]:
        averaging = _update_averaging(target_accept - state.accept_prob, learnt.averaging)
        log_step, log_average = averaging[:2]
        limits = jnp.finfo(log_step.dtype)
        step = jnp.exp(jnp.where(iteration == num_warmup - 1, log_average, log_step))
        kernel = state.adapt_state._replace(step_size=jnp.clip(step, limits.tiny, limits.max))
        moments = _with_draw(learnt.moments, state.z, state.z_grad)
        kernel, learnt = lax.cond(
            jnp.asarray(due)[iteration],
            lambda: (_renewed(kernel, moments), _afresh(moments, kernel.step_size)),
            lambda: (kernel, Learnt(moments, averaging)),
        )
        return state._replace(adapt_state=kernel), learnt

    return lambda iteration, state, learnt: lax.cond(
        iteration < num_warmup, warm, lambda _, *same: same, iteration, state, learnt
    )


def renewals(num_warmup: int) -> list[int]:
    """Iterations after which the matrix is renewed, each time from the draws since the last."""
    last = num_warmup - min(LAST, num_warmup // 5)
    times, time = [], FIRST
    while time < 0.8 * last:
        times.append(time)
        time = max(int(GROWTH * time), time + FIRST)
    return [*times, last] if last >= FIRST else times


def _afresh(moments: Moments, step_size: Array) -> Learnt:
    return nothing(moments.mean.shape[-1], moments.spread.ndim == 3, step_size)


def _with_draw(moments: Moments, position: Array, gradient: Array) -> Moments:
    """Moments with one draw more, by Welford's recursion."""
    number, mean, spread = moments
    draw = jnp.stack([position, gradient])
    before = draw - mean
    mean = mean + before / (number + 1)
    after = draw - mean
    product = before * after if spread.ndim == 2 else before[:, :, None] * after[:, None, :]
    return Moments(number + 1, mean, spread + product)


def _renewed(kernel: Any, moments: Moments) -> Any:
    """NumPyro's adaptation state with the matrix of these moments; as it was where they do not give one."""
    positions, gradients = moments.spread / (moments.number - 1)
    if positions.ndim == 1:
        inverse_mass = jnp.sqrt(positions / gradients)
        factor = jnp.sqrt(inverse_mass)
        root = 1 / factor
    else:  # in the units of the matrix that there was, which stays where few draws say nothing
        factor, root = kernel.mass_matrix_sqrt_inv, kernel.mass_matrix_sqrt
        inverse_mass = factor.T @ _balance(root.T @ positions @ root, factor @ gradients @ factor.T) @ factor
        inverse_mass = 0.5 * (inverse_mass + inverse_mass.T)
        factor = jnp.linalg.cholesky(inverse_mass[::-1, ::-1])[::-1, ::-1].T
        root = solve_triangular(factor, jnp.eye(len(factor)), lower=True)
    found = {"inverse_mass_matrix": inverse_mass, "mass_matrix_sqrt": root, "mass_matrix_sqrt_inv": factor}
    good = jnp.isfinite(factor).all() & jnp.isfinite(root).all()
    return kernel._replace(**{name: jnp.where(good, value, getattr(kernel, name)) for name, value in found.items()})


def _balance(positions: Array, gradients: Array) -> Array:
    """The Σ with Σ G Σ = C, for the covariances C of the positions and G of the gradients."""
    scale = (jnp.diagonal(positions) / jnp.diagonal(gradients)) ** 0.25
    ridge = RIDGE * jnp.eye(len(scale))
    root, inverse = _roots(gradients * scale * scale[:, None] + ridge)
    middle, _ = _roots(root @ (positions / scale / scale[:, None] + ridge) @ root)
    return (inverse @ middle @ inverse) * scale * scale[:, None]


def _roots(matrix: Array) -> tuple[Array, Array]:
    """The square root of a positive definite matrix, and its inverse."""
    values, vectors = jnp.linalg.eigh(matrix)
    roots = jnp.sqrt(jnp.maximum(values, jnp.finfo(values.dtype).tiny))
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T
