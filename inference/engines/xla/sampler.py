"""NumPyro's NUTS over a vector: compiled once, then run chain by chain on each core.

The compiled program advances one chain by a block of iterations, so that a run can report progress and be interrupted.
Chains vectorised in one program would all wait at every draw for the one with the deepest tree; threads need not wait,
since compiled code releases the interpreter's lock.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import joblib
import numpy as np
from jax import Array, lax

from .adapt import FIRST_STEP, adaptation, init
from .numpyro_private import compile_fast, nuts_kernel, state_at, state_template

BLOCK = 50  # iterations per call
PROBES = (2, 3, 5)  # iterations between the points where a program is checked


class Start(NamedTuple):
    """Start of a chain: a place (d,), potential in nats and gradient (d,) there, and the seed."""

    at: np.ndarray
    energy: np.ndarray
    gradient: np.ndarray
    seed: int


class Run(NamedTuple):
    """One chain after warm-up; arrays have one entry per draw."""

    draws: np.ndarray  # (draw, d)
    energy: np.ndarray  # potential and kinetic, in nats, at the end of each trajectory
    leapfrogs: np.ndarray  # steps of each trajectory
    diverging: np.ndarray
    step_size: float
    accept_rate: float  # mean acceptance probability


class Options(NamedTuple):
    """Draws and warm-up iterations per chain, target acceptance probability, dense or diagonal mass matrix."""

    num_draws: int
    num_warmup: int
    target_accept: float
    dense: bool


@contextmanager
def setting(dtype: Any, platform: str) -> Iterator[None]:
    """Run the block with JAX in this precision and on this platform, in this thread alone."""
    with jax.enable_x64(np.dtype(dtype) == np.float64), jax.default_device(jax.local_devices(backend=platform)[0]):
        yield


class Program(NamedTuple):
    """A compiled block of iterations, a template of the state that it carries, and the data that it takes."""

    advance: Callable
    template: Any
    constants: list[Array]


def probe(program: Program, start: Start, platform: str) -> Iterator[tuple[Array, Array, Array]]:
    """Yield positions of a chain, a few iterations apart, with the program's potential and gradient there."""
    done = 0
    with setting(start.at.dtype, platform):
        carried = _init_state(program.template, start)
        for count in PROBES:
            carried, _ = program.advance(carried, np.int32(done), np.int32(count), *program.constants)
            state = carried[0]
            yield state.z, state.potential_energy, state.z_grad
            done += count


def run(
    program: Program, starts: list[Start], options: Options, platform: str, report: Callable[[int], None]
) -> list[Run]:
    """Run all chains, each on whichever thread is free; each thread reports the iterations of its blocks."""
    total, dtype = options.num_warmup + options.num_draws, starts[0].at.dtype
    stopped = Event()

    def chain(start: Start) -> Run:
        done, blocks = 0, []
        with setting(dtype, platform):
            carried = _init_state(program.template, start)
            while done < total and not stopped.is_set():
                end = options.num_warmup if done < options.num_warmup else total
                count = min(BLOCK, end - done)
                carried, kept = program.advance(carried, np.int32(done), np.int32(count), *program.constants)
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
            stopped.set()  # if one chain fails, the others end with their block


def compile_program(
    potential: Callable[..., Array], constants: list[Array], at: np.ndarray, options: Options
) -> Program:
    """Compile for ``potential(position, *constants)``, a scalar, and positions shaped like ``at``."""
    adapt = adaptation(options.num_warmup, options.target_accept)

    def kernel_for(constants: Sequence[Array]) -> tuple[Callable, Any]:
        return nuts_kernel(lambda position: potential(position, *constants), at, options.num_warmup, options.dense)

    def block(carried: tuple, first: Array, count: Array, *constants: Array) -> tuple[tuple, tuple]:
        kernel, _ = kernel_for(constants)

        def iterate(index: Array, both: tuple) -> tuple:
            (state, adapt_state), kept = both
            state, adapt_state = adapt(first + index, kernel(state), adapt_state)
            values = state.z, state.energy, state.num_steps.astype(jnp.int32), state.diverging
            return (state, adapt_state), tuple(old.at[index].set(new) for old, new in zip(kept, values, strict=True))

        kept = (
            jnp.zeros((BLOCK, *at.shape)),
            jnp.zeros(BLOCK),
            jnp.zeros(BLOCK, jnp.int32),
            jnp.zeros(BLOCK, bool),
        )
        return lax.fori_loop(0, count, iterate, (carried, kept))

    template = state_template(kernel_for(constants)[1]), init(len(at), options.dense)
    lowered = jax.jit(block).lower(template, np.int32(0), np.int32(0), *constants)
    return Program(compile_fast(lowered), template, constants)


def _init_state(template: tuple, start: Start) -> tuple:
    """Return what a program carries at the start of a chain."""
    state, adapt_state = template
    return state_at(state, start.at, start.energy, start.gradient, FIRST_STEP, start.seed), adapt_state
