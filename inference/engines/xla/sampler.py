"""NumPyro's NUTS over a vector: compiled once, then a chain after the other on each core.

The compiled program advances one chain by a block of iterations, so that a run can say how far it is and be stopped.
Chains side by side in one program would all wait at every draw for the one with the deepest tree; in threads, which
compiled code does not hold up, they do not.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import joblib
import numpy as np
from jax import Array, lax
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo

from .adapt import FIRST_STEP, adaptation, nothing

BLOCK = 50  # iterations a call
VISITS = (2, 3, 5)  # iterations between the points where a program is checked
# Compiles in six tenths of the time, and what it makes is as fast.
QUICK: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": False}


class Start(NamedTuple):
    """Where a chain begins.

    Attributes
    ----------
    at : ndarray, shape (d,)
    energy : ndarray, scalar
        The potential there, in nats.
    gradient : ndarray, shape (d,)
    seed : int
    """

    at: np.ndarray
    energy: np.ndarray
    gradient: np.ndarray
    seed: int


class Run(NamedTuple):
    """One chain after warm-up.

    Attributes
    ----------
    draws : ndarray, shape (draw, d)
    energy : ndarray, shape (draw,)
        Potential and kinetic, in nats, at the end of each trajectory.
    leapfrogs : ndarray, shape (draw,)
        Steps of each trajectory.
    diverging : ndarray, shape (draw,)
    step_size : float
    accept_rate : float
        Mean acceptance probability.
    """

    draws: np.ndarray
    energy: np.ndarray
    leapfrogs: np.ndarray
    diverging: np.ndarray
    step_size: float
    accept_rate: float


class Options(NamedTuple):
    """What a run is to do: draws kept and warm-up a chain, acceptance aimed at, dense matrix or diagonal one."""

    num_draws: int
    num_warmup: int
    target_accept: float
    dense: bool


@contextmanager
def setting(dtype: Any, platform: str) -> Iterator[None]:
    """JAX in this precision and on this platform, in this thread alone and for as long as the block runs."""
    with jax.enable_x64(np.dtype(dtype) == np.float64), jax.default_device(jax.local_devices(backend=platform)[0]):
        yield


class Program(NamedTuple):
    """The compiled block of iterations, something of the shape of the state that it carries, and its constants."""

    advance: Callable
    blank: Any
    constants: list[Array]


def visited(program: Program, start: Start, platform: str) -> Iterator[tuple[Array, Array, Array]]:
    """Positions of a chain, a few iterations apart, each with the potential and gradient that the program has there."""
    done = 0
    with setting(start.at.dtype, platform):
        carried = _begun(program.blank, start)
        for count in VISITS:
            now = np.int32(done), np.int32(count)
            carried, _ = program.advance(carried, *now, *program.constants)
            state = carried[0]
            yield state.z, state.potential_energy, state.z_grad
            done += count


def run(
    program: Program, starts: list[Start], options: Options, platform: str, report: Callable[[int], None]
) -> list[Run]:
    """Run all chains, each on whichever thread is free; ``report`` hears of every block's iterations from any."""
    total, dtype = options.num_warmup + options.num_draws, starts[0].at.dtype
    stopped = Event()

    def chain(start: Start) -> Run:
        done, blocks = 0, []
        with setting(dtype, platform):
            carried = _begun(program.blank, start)
            while done < total and not stopped.is_set():
                end = options.num_warmup if done < options.num_warmup else total
                count = min(BLOCK, end - done)
                now = np.int32(done), np.int32(count)
                carried, kept = program.advance(carried, *now, *program.constants)
                kept = [np.asarray(values)[:count] for values in kept]
                if done >= options.num_warmup:
                    blocks.append(kept)
                done += count
                report(count)
            state = carried[0]
            rates = float(state.adapt_state.step_size), float(state.mean_accept_prob)
        draws, energy, leapfrogs, diverging = (np.concatenate(values) for values in zip(*blocks, strict=True))
        return Run(draws, energy, leapfrogs, diverging, *rates)

    with ThreadPoolExecutor(min(len(starts), joblib.cpu_count())) as pool:
        try:
            return list(pool.map(chain, starts))
        finally:
            stopped.set()  # the others end with their block where one was interrupted


def program(potential: Callable[..., Array], constants: list[Array], at: np.ndarray, options: Options) -> Program:
    """Compile for ``potential(position, *constants)``, a scalar, and positions like this one."""
    adapt = adaptation(options.num_warmup, options.target_accept)

    def kernel_for(constants: tuple[Array, ...]) -> tuple[Callable, Any]:
        init, kernel = hmc(lambda position: potential(position, *constants), kinetic_fn=_kinetic, algo="NUTS")

        def begin(at: Array, key: Array) -> Any:
            known = ParamInfo(at, at.sum(), at)  # without a potential to evaluate
            quiet = {"adapt_step_size": False, "adapt_mass_matrix": False}  # `adapt` does both
            return init(known, options.num_warmup, FIRST_STEP, **quiet, dense_mass=options.dense, rng_key=key)

        return kernel, jax.eval_shape(begin, at, _key(0))  # which the kernel cannot do without

    def block(carried: tuple, first: Array, count: Array, *constants: Array) -> tuple[tuple, tuple]:
        kernel, _ = kernel_for(constants)

        def iterate(index: Array, both: tuple) -> tuple:
            (state, learnt), kept = both
            state, learnt = adapt(first + index, kernel(state), learnt)
            values = state.z, state.energy, state.num_steps.astype(jnp.int32), state.diverging
            return (state, learnt), tuple(old.at[index].set(new) for old, new in zip(kept, values, strict=True))

        kept = (
            jnp.zeros((BLOCK, *at.shape)),
            jnp.zeros(BLOCK),
            jnp.zeros(BLOCK, jnp.int32),
            jnp.zeros(BLOCK, bool),
        )
        return lax.fori_loop(0, count, iterate, (carried, kept))

    blank = jax.tree.map(_blank, kernel_for(tuple(constants))[1]), nothing(len(at), options.dense)
    lowered = jax.jit(block).lower(blank, np.int32(0), np.int32(0), *constants)
    try:
        advance = lowered.compile(compiler_options=QUICK)
    except jax.errors.JaxRuntimeError:  # an XLA without this option
        advance = lowered.compile()
    return Program(advance, blank, constants)


def _begun(blank: tuple, start: Start) -> tuple:
    """What a program carries at the start of a chain."""
    state, learnt = blank
    unit = np.ones_like(start.at) if state.adapt_state.inverse_mass_matrix.ndim == 1 else np.eye(len(start.at))
    unit = unit.astype(start.at.dtype)
    kernel = state.adapt_state._replace(
        step_size=np.asarray(FIRST_STEP, start.at.dtype),
        inverse_mass_matrix=unit,
        mass_matrix_sqrt=unit,
        mass_matrix_sqrt_inv=unit,
    )
    place = {"z": start.at, "z_grad": start.gradient, "potential_energy": start.energy}
    return state._replace(**place, adapt_state=kernel, rng_key=_key(start.seed)), learnt


def _key(seed: int) -> Array:
    return jax.random.wrap_key_data(jnp.array([0, seed], jnp.uint32), impl="threefry2x32")


def _blank(like: Any) -> Any:
    is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
    return _key(0) if is_key else np.zeros(like.shape, like.dtype)


def _kinetic(inverse_mass: Array, momentum: Array) -> Array:
    """Kinetic energy; infinite where the product is out of range, of which NumPyro's own can make minus infinity."""
    energy = 0.5 * jnp.dot(momentum, _velocity(inverse_mass, momentum))
    return jnp.where(energy >= 0, energy, jnp.inf)


def _velocity(inverse_mass: Array, momentum: Array) -> Array:
    return inverse_mass @ momentum if inverse_mass.ndim == 2 else inverse_mass * momentum


_kinetic._kinetic_grad = _velocity  # pyright: ignore[reportFunctionMemberAccess] (where NumPyro looks for it)
