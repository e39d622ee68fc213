"""Everything that is private to NumPyro, or undocumented there or in JAX: see README.md beside this folder.

NumPyro's NUTS as a function of its state, the fields of that state, and a compiler option of XLA's.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.infer.hmc import hmc
from numpyro.infer.hmc_util import dual_averaging
from numpyro.infer.util import ParamInfo

# (centre) -> averaging, and (error of the acceptance probability, averaging) -> averaging; an averaging begins with the
# logarithms of the current step size and of the averaged one.
init_averaging, update_averaging = dual_averaging()


def nuts_kernel(
    potential: Callable[[Array], Array], at: np.ndarray, num_warmup: int, dense: bool
) -> tuple[Callable, Any]:
    """Return NumPyro's NUTS without its own adaptation, ``state -> state``, and the shapes of its state.

    NumPyro's function works only after its ``init`` has run, which this does without evaluating the potential.
    """
    init, kernel = hmc(potential, kinetic_fn=_kinetic, algo="NUTS")

    def begin(at: Array, key: Array) -> Any:
        known = ParamInfo(at, at.sum(), at)
        quiet = {"adapt_step_size": False, "adapt_mass_matrix": False}
        return init(known, num_warmup, 1.0, **quiet, dense_mass=dense, rng_key=key)

    return kernel, jax.eval_shape(begin, at, random_key(0))


def state_template(shapes: Any) -> Any:
    """Return zeros of these shapes; a random key of its own type."""

    def zeros(like: Any) -> Any:
        is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
        return random_key(0) if is_key else np.zeros(like.shape, like.dtype)

    return jax.tree.map(zeros, shapes)


def state_at(
    template: Any,
    at: np.ndarray,
    energy: np.ndarray,
    gradient: np.ndarray,
    inverse_mass: np.ndarray,
    step_size: float,
    seed: int,
) -> Any:
    """Return the state at a place, with this inverse mass matrix, or its diagonal."""
    stepped = with_step(template, np.asarray(step_size, at.dtype))
    adapt_state = with_matrix(stepped, *roots_of(inverse_mass, at.dtype)).adapt_state
    return template._replace(
        z=at, z_grad=gradient, potential_energy=energy, adapt_state=adapt_state, rng_key=random_key(seed)
    )


def with_step(state: Any, step_size: Any) -> Any:
    """Return the state with another step size."""
    return state._replace(adapt_state=state.adapt_state._replace(step_size=step_size))


def with_matrix(state: Any, inverse_mass: Any, root: Any, inverse_root: Any) -> Any:
    """Return the state with another mass matrix: its inverse, its root, and the root's inverse."""
    return state._replace(
        adapt_state=state.adapt_state._replace(
            inverse_mass_matrix=inverse_mass, mass_matrix_sqrt=root, mass_matrix_sqrt_inv=inverse_root
        )
    )


def roots_of(inverse_mass: np.ndarray, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the three matrices, or their diagonals, that a state holds for an inverse mass matrix."""
    if inverse_mass.ndim == 1:
        inverse_root = np.sqrt(inverse_mass)
        root = 1 / inverse_root
    else:
        inverse_root = np.linalg.cholesky(inverse_mass[::-1, ::-1])[::-1, ::-1].T
        root = np.linalg.inv(inverse_root)
    return inverse_mass.astype(dtype), root.astype(dtype), inverse_root.astype(dtype)


def matrix(state: Any) -> tuple[Array, Array, Array]:
    """Return inverse mass matrix, root of the mass matrix and the root's inverse."""
    kernel = state.adapt_state
    return kernel.inverse_mass_matrix, kernel.mass_matrix_sqrt, kernel.mass_matrix_sqrt_inv


def random_key(seed: int) -> Array:
    """Return a key that does not depend on JAX's default generator."""
    return jax.random.wrap_key_data(jnp.array([0, seed], jnp.uint32), impl="threefry2x32")


def leaves_of(carried: Any) -> list[np.ndarray]:
    """Return the arrays in what a chain carries; of a random key, its data."""
    return [np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf) for leaf in jax.tree.leaves(carried)]


def with_leaves(template: Any, arrays: list[np.ndarray]) -> Any:
    """Return what a chain carries with these arrays in it, as `leaves_of` returned them."""
    like, form = jax.tree.flatten(template)
    leaves = [
        jax.random.wrap_key_data(jnp.asarray(array), impl="threefry2x32") if _is_key(leaf) else array
        for leaf, array in zip(like, arrays, strict=True)
    ]
    return jax.tree.unflatten(form, leaves)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def compile_fast(lowered: Any) -> Callable:
    """Compile without fusion emitters, in six tenths of the time; the code is as fast."""
    try:
        return lowered.compile(compiler_options={"xla_cpu_use_fusion_emitters": False})
    except jax.errors.JaxRuntimeError:  # this XLA has no such option
        return lowered.compile()


def _kinetic(inverse_mass: Array, momentum: Array) -> Array:
    """Kinetic energy, infinite if out of range; NumPyro's own can overflow to minus infinity."""
    energy = 0.5 * jnp.dot(momentum, _velocity(inverse_mass, momentum))
    return jnp.where(energy >= 0, energy, jnp.inf)


def _velocity(inverse_mass: Array, momentum: Array) -> Array:
    return inverse_mass @ momentum if inverse_mass.ndim == 2 else inverse_mass * momentum


_kinetic._kinetic_grad = _velocity  # pyright: ignore[reportFunctionMemberAccess] (where NumPyro looks for it)
