"""NumPyro's NUTS over a vector: compiled once, then run chain by chain on each core.

The compiled program advances one chain by a block of iterations, so that a run can report progress and be interrupted.
Chains vectorised in one program would all wait at every draw for the one with the deepest tree; threads need not wait,
since compiled code releases the interpreter's lock.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import joblib
import numpy as np
from jax import Array, lax

from ...checkpoints import Checkpoint
from ...mcmc.metric import Window
from .adapt import adaptation, init
from .choice import Choice, ChoiceState
from .numpyro_private import (
    compile_fast,
    leaves_of,
    matrix,
    nuts_kernel,
    state_at,
    state_template,
    with_leaves,
)

Between = Callable[[], AbstractContextManager[None]]
BLOCK = 50  # iterations per call
PROBES = (2, 3, 5)  # iterations between the points where a program is checked


class Start(NamedTuple):
    """Start of a chain."""

    at: np.ndarray  # place, (d,)
    energy: np.ndarray  # potential there, in nats
    gradient: np.ndarray  # (d,)
    seed: int
    inverse_mass: np.ndarray  # (d, d), or (d,) for a diagonal one
    step_size: float


class Run(NamedTuple):
    """One chain after warm-up; arrays have one entry per draw."""

    draws: np.ndarray  # (draw, d)
    energy: np.ndarray  # potential and kinetic, in nats, at the end of each trajectory
    leapfrogs: np.ndarray  # steps of each trajectory
    diverging: np.ndarray
    step_size: float
    accept_rate: float  # mean acceptance probability
    inverse_mass: np.ndarray  # (d, d), or (d,) for a diagonal one


class Options(NamedTuple):
    """Options of all chains."""

    num_draws: int
    num_warmup: int
    target_accept: float
    dense: bool  # whether the mass matrix has room off its diagonal
    chosen: bool  # whether warm-up decides between a dense and a diagonal one
    first_step: float  # step size of the first iteration
    first_window: int  # iterations


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


class _Chain:
    """One chain: how far it is, what it carries, and what it kept of each iteration since ``kept_from``."""

    def __init__(self, program: Program, start: Start, kept_from: int) -> None:
        self.program, self.start, self.done, self.kept_from = program, start, 0, kept_from
        self.carried: Any = None
        self.blocks: list[list[np.ndarray]] = []

    def state(self) -> dict[str, Any]:
        """Return where it stands."""
        carried = None if self.carried is None else leaves_of(self.carried)
        self.blocks = [self._joined()] if self.blocks else []
        return {"done": self.done, "kept_from": self.kept_from, "carried": carried, "blocks": self.blocks}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where it stood."""
        self.done, self.kept_from, self.blocks = state["done"], state["kept_from"], state["blocks"]
        if state["carried"] is not None:
            with setting(self.start.at.dtype, "cpu"):
                self.carried = with_leaves(self.program.template, state["carried"])

    def advance(self, end: int, platform: str, report: Callable[[int], None], stopped: Event, between: Between) -> None:
        """Run up to iteration ``end``; a block ends within ``between``."""
        with setting(self.start.at.dtype, platform):
            if self.carried is None:
                self.carried = _init_state(self.program.template, self.start)
            while self.done < end and not stopped.is_set():
                edge = self.kept_from if self.done < self.kept_from else end
                count = min(BLOCK, edge - self.done)
                carried, kept = self.program.advance(
                    self.carried, np.int32(self.done), np.int32(count), *self.program.constants
                )
                with between():
                    self.carried = carried
                    if self.done >= self.kept_from:
                        self.blocks.append([np.asarray(values)[:count] for values in kept])
                    self.done += count
                report(count)

    def taken(self, kept_from: int) -> list[np.ndarray]:
        """Return what was kept, one array per value, and keep from another iteration on."""
        parts = self._joined()
        self.blocks, self.kept_from = [], kept_from
        return parts

    def _joined(self) -> list[np.ndarray]:
        return [np.concatenate(values) for values in zip(*self.blocks, strict=True)]


def run(
    program: Program,
    starts: list[Start],
    options: Options,
    platform: str,
    report: Callable[[int], None],
    states: Checkpoint,
) -> tuple[list[Run], bool]:
    """Run all chains, each on whichever thread is free; each thread reports the iterations of its blocks.

    They wait for one another where warm-up decides on the metric. Also returned is whether that is dense at the end.
    """
    stopped = Event()
    choice = Choice(options.num_warmup, options.first_window, len(starts)) if options.chosen else None
    times = choice.times if choice else []
    kept_from = choice.ends.first if choice and choice.ends else options.num_warmup
    chains = [_Chain(program, start, kept_from) for start in starts]
    by_name = {f"chain {number}": chain for number, chain in enumerate(chains)}
    states.add(choice=choice and ChoiceState(choice, program.template), **by_name)
    passed, lock = states.take("xla", with_generators=False) or 0, Lock()  # decisions

    @contextmanager
    def between() -> Iterator[None]:
        with lock:  # what is kept of all chains is of one moment
            yield
            states.offer("xla", lambda: passed)

    def all_to(end: int) -> None:
        list(pool.map(lambda chain: chain.advance(end, platform, report, stopped, between), chains))

    with ThreadPoolExecutor(min(len(starts), joblib.cpu_count())) as pool:
        try:
            for time in times[passed:]:
                all_to(time)
                parts = [chain.taken(options.num_warmup if time == times[-1] else time) for chain in chains]
                window = Window(*(np.stack([part[index] for part in parts]) for index in (0, 1)))
                decided = choice.decide([chain.carried for chain in chains], window) if choice else []
                for chain, carried in zip(chains, decided, strict=True):
                    chain.carried = carried
                passed += 1
            all_to(options.num_warmup + options.num_draws)
        finally:
            stopped.set()  # if one chain fails, the others end with their block
    return [_run_of(chain) for chain in chains], options.dense and not (choice and choice.is_diagonal)


def _run_of(chain: _Chain) -> Run:
    state = chain.carried[0]
    draws, _, energy, leapfrogs, diverging = chain.taken(0)
    rates = float(state.adapt_state.step_size), float(state.mean_accept_prob)
    return Run(draws, energy, leapfrogs, diverging, *rates, np.asarray(matrix(state)[0]))


def compile_program(
    potential: Callable[..., Array], constants: list[Array], at: np.ndarray, options: Options
) -> Program:
    """Compile for ``potential(position, *constants)``, a scalar, and positions shaped like ``at``."""
    adapt = adaptation(options.num_warmup, options.target_accept, options.first_window)

    def kernel_for(constants: Sequence[Array]) -> tuple[Callable, Any]:
        return nuts_kernel(lambda position: potential(position, *constants), at, options.num_warmup, options.dense)

    def block(carried: tuple, first: Array, count: Array, *constants: Array) -> tuple[tuple, tuple]:
        kernel, _ = kernel_for(constants)

        def iterate(index: Array, both: tuple) -> tuple:
            (state, adapt_state), kept = both
            state, adapt_state = adapt(first + index, kernel(state), adapt_state)
            values = state.z, state.z_grad, state.energy, state.num_steps.astype(jnp.int32), state.diverging
            return (state, adapt_state), tuple(old.at[index].set(new) for old, new in zip(kept, values, strict=True))

        kept = (
            jnp.zeros((BLOCK, *at.shape)),
            jnp.zeros((BLOCK, *at.shape)),
            jnp.zeros(BLOCK),
            jnp.zeros(BLOCK, jnp.int32),
            jnp.zeros(BLOCK, bool),
        )
        return lax.fori_loop(0, count, iterate, (carried, kept))

    template = state_template(kernel_for(constants)[1]), init(len(at), options.dense, options.first_step)
    lowered = jax.jit(block).lower(template, np.int32(0), np.int32(0), *constants)
    return Program(compile_fast(lowered), template, constants)


def _init_state(template: tuple, start: Start) -> tuple:
    """Return what a program carries at the start of a chain."""
    state, adapt_state = template
    place = start.at, start.energy, start.gradient
    return state_at(state, *place, start.inverse_mass, start.step_size, start.seed), adapt_state
