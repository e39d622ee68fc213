"""Chains of NUTS on any Pyro model, its potential translated to JAX, as `mcmc.chains` runs Pyro's kernels."""

import threading
import time
import warnings
from collections.abc import Callable

import jax
import numpy as np
import torch
from torch import Size, Tensor
from torch.fx import Node

from ...checkpoints import Checkpoint
from ...diagnostics import of_sites
from ...mcmc.chains import ChainOptions, Chains, ChainState, Target, make_target
from ...mcmc.fast_start import FastStart
from ...mcmc.metric import is_dense
from ...options import device_of
from ...progress import Progress
from ...traces.draws import all_sites
from ...traces.errors import words
from ...traces.isolate import isolated
from ...traces.prepare import Prepared
from ...traces.recurring import Recurring
from ...traces.validation import unvalidated
from ...traces.vectors import Sites, as_sites, as_vector
from ..graph import CannotCompile, called_most, functional
from .adapt import FIRST, FIRST_STEP
from .program import as_jax
from .roll import roll, size
from .sampler import Options, Program, Run, Start, compile_program, probe, run, setting
from .translate import knows

STARTED_STEP = 0.25  # first step size in a metric that a posterior gave
STARTED_FIRST = 40  # iterations in the first window then
MAX_OPERATIONS = 3_000  # that are compiled unasked: up to half a minute, and 2 GB


def xla_chains(
    prepared: Prepared,
    states_kept: Checkpoint,
    options: ChainOptions,
    target_accept: float,
    dense_mass: bool | None,
    init: FastStart | None,
    states: list[ChainState] | None,
    patient: bool,
) -> Chains:
    """Run NUTS as `hamiltonian_chain` does; ``sample_stats`` also have ``energy`` (nats) and ``tree_depth``.

    ``states_kept`` keep where the chains stand between their blocks.

    `CannotCompile` if the model cannot be translated, the translation disagrees with it, or, unless ``patient``, it has
    so many operations that compiling takes minutes.
    """
    seeds = options.seeds()
    platform = _platform(device_of(prepared.data).type)
    begin, total = time.perf_counter(), options.num_chains * options.iterations
    with Progress("nuts", total, options.progress, is_fixed=True) as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = [each.at for each in states] if states else init.starts if init else [None] * len(seeds)
        found = [_target(prepared, *each) for each in zip(seeds, known, strict=True)]
        places = [as_vector(target.start) for target in found]
        target = found[0]
        shapes = {name: value.shape for name, value in target.start.items()}
        dense = states[0].metric.dim() == 2 if states else is_dense(dense_mass, len(places[0]))
        counts = options.num_draws, options.num_warmup
        first = (STARTED_STEP, STARTED_FIRST) if init else (FIRST_STEP, FIRST)
        chain = Options(*counts, target_accept, dense, dense and dense_mass is None, *first)
        unit = np.eye(len(places[0])) if dense else np.ones(len(places[0]))
        metric = init.inverse_mass(dense) if init else unit
        moves = [(each.metric.numpy(), each.step_size) for each in states or ()] or [(metric, first[0])] * len(seeds)
        with isolated(seeds[0], prepared.dtype):
            starts, program = _prepared(target, prepared.recurring, places, moves, seeds, chain, platform, patient)
        runs, dense = run(program, starts, chain, platform, _counter(bar), states_kept)
        with isolated(seeds[0], prepared.dtype):
            draws = _constrained(prepared, target, shapes, torch.as_tensor(np.stack([r.draws for r in runs])))
    draws |= prepared.held_draws(draws)
    seconds = time.perf_counter() - begin
    return Chains(draws, _sample_stats(runs, dense), *of_sites(draws), seconds, prepared.notes, prepared.per_row)


def _platform(kind: str) -> str:
    if kind == "cpu":
        return "cpu"
    try:
        jax.local_devices(backend="gpu")
    except RuntimeError:
        raise CannotCompile(f"the data are on {kind}, and JAX finds no GPU: install jax[cuda12]") from None
    return "gpu"


def _target(prepared: Prepared, seed: int, start: Sites | None) -> Target:
    with isolated(seed, prepared.dtype):
        return make_target("nuts", prepared, start)


def _prepared(
    target: Target,
    recurring: Recurring | None,
    places: list[Tensor],
    moves: list[tuple[np.ndarray, float]],
    seeds: list[int],
    options: Options,
    platform: str,
    patient: bool,
) -> tuple[list[Start], Program]:
    """Return the starts of the chains and the compiled program, checked against the potential.

    ``moves`` are inverse mass matrices and step sizes, one per chain.
    """
    shapes = {name: value.shape for name, value in target.start.items()}

    def over_vectors(at: Tensor) -> Tensor:
        return target.potential(as_sites(at, shapes))

    each = zip(places, seeds, moves, strict=True)
    starts = [Start(*_at(over_vectors, place), seed, *move) for place, seed, move in each]
    if recurring is not None:
        try:
            program = _kept(target, recurring, over_vectors, places[0], options, platform, patient)
            _check(program, starts[0], over_vectors, places[0], platform)
            return starts, program
        except CannotCompile:  # what the model computes from data may depend on their values
            pass
    program = _compiled(over_vectors, places[0], len(places[0]), [], options, platform, patient)
    _check(program, starts[0], over_vectors, places[0], platform)
    return starts, program


def _kept(
    target: Target,
    recurring: Recurring,
    over_vectors: Callable[[Tensor], Tensor],
    place: Tensor,
    options: Options,
    platform: str,
    patient: bool,
) -> Program:
    """Return a program that takes the data as a constant, compiled for the first of many data sets."""
    joint = target.potential.joint
    given = {position: joint.data[position] for position in recurring.varying}
    given = {position: value for position, value in given.items() if isinstance(value, Tensor)}
    data = as_vector({str(position): value.to(place) for position, value in given.items()}).to(place)
    like = options._replace(num_draws=0)  # which the program does not depend on
    key = "xla", len(place), place.dtype, like, platform, *((v.shape, v.dtype) for v in given.values())
    array = data.cpu().numpy()
    if key not in recurring.graphs:
        recurring.graphs[key] = None  # unless it can be compiled

        def with_data(both: Tensor) -> Tensor:
            values = both[len(place) :].split([value.numel() for value in given.values()])
            pairs = zip(given.items(), values, strict=True)
            with joint.on({position: new.reshape(old.shape).to(old.dtype) for (position, old), new in pairs}):
                return over_vectors(both[: len(place)])

        both = torch.cat([place, data])
        recurring.graphs[key] = _compiled(with_data, both, len(place), [array], options, platform, patient)
    program: Program | None = recurring.graphs[key]
    if program is None:
        raise CannotCompile("it cannot be compiled with data as inputs")
    with setting(array.dtype, platform):
        return program._replace(constants=[jax.device_put(array), *program.constants[1:]])


def _compiled(
    function: Callable[[Tensor], Tensor],
    at: Tensor,
    dim: int,
    data: list[np.ndarray],
    options: Options,
    platform: str,
    patient: bool,
) -> Program:
    """Return a program for a function of the place, ``dim`` numbers, and of the data behind them, if any."""
    recorded = functional(function, at, knows)
    parts = roll(recorded.graph)
    if not patient and (number := size(parts)) > MAX_OPERATIONS:
        alone = {part.name for part in parts if isinstance(part, Node)}
        where = called_most(function, at, knows, lambda node: node.name in alone)
        raise CannotCompile(
            f"it would take minutes and gigabytes to compile the {number:,} operations of steps of a loop that "
            f"differ{where}; let every step apply the same operations to values of the same shape, or write them as "
            "operations on whole tensors"
        )
    translation, constants = as_jax(recorded, parts)

    def with_data(place: jax.Array, given: jax.Array, *others: jax.Array) -> jax.Array:
        return translation(jax.numpy.concatenate([place, given]), *others)

    first = at[:dim].cpu().numpy()
    try:
        with setting(first.dtype, platform):
            arrays = [jax.device_put(value) for value in (*data, *constants)]
            return compile_program(with_data if data else translation, arrays, first, options)
    except Exception as error:  # user models, and releases of JAX and NumPyro, can fail in any way
        raise CannotCompile(_rejected(error)) from error


def _rejected(error: Exception) -> str:
    first = str(error).strip().split("\n")[0][:200]
    return f"JAX rejects the translation: {type(error).__name__}: {first}"


def _check(program: Program, start: Start, potential: Callable[[Tensor], Tensor], place: Tensor, platform: str) -> None:
    """Raise `CannotCompile` unless the program has the potential and its gradient where a chain goes."""
    try:
        points = [[np.asarray(part) for part in point] for point in probe(program, start, platform)]
    except Exception as error:  # as above
        raise CannotCompile(_rejected(error)) from error
    moved = [point for point in points if (point[0] != start.at).any()]
    if not moved or not all(_agree(point, _at(potential, torch.tensor(point[0]).to(place))) for point in moved):
        raise CannotCompile("the translation disagrees with the model")


def _at(potential: Callable[[Tensor], Tensor], place: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a place, the potential there and its gradient."""
    with unvalidated():
        leaf = place.clone().requires_grad_()
        value = potential(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
    return place.cpu().numpy(), value.detach().cpu().numpy(), gradient.cpu().numpy()


def _agree(ours: list[np.ndarray], eager: tuple[np.ndarray, ...]) -> bool:
    tolerance = 1e-6 if eager[0].dtype == np.float64 else 1e-2  # a wrong translation is further off
    return all(
        a.dtype == b.dtype and np.abs(a - b).max() <= tolerance * max(1.0, np.abs(b).max())
        for a, b in zip(ours, eager, strict=True)
    )


def _counter(bar: Progress) -> Callable[[int], None]:
    lock, done = threading.Lock(), 0

    def add(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            bar.update(done)

    return add


def _constrained(prepared: Prepared, target: Target, shapes: dict[str, Size], flat: Tensor) -> Sites:
    """Return the model's latent and deterministic sites, shape (chain, draw, *site), on the CPU."""
    device = next((value.device for value in prepared.data if isinstance(value, Tensor)), None)
    with torch.no_grad():
        latent = target.potential.constrained(as_sites(flat.flatten(0, 1).to(device), shapes))
    try:
        draws = all_sites(target.potential.joint, latent)
    except RuntimeError as error:  # JAX has factorised a matrix that torch cannot: rounding decides
        raise ValueError(
            f"nuts: the model cannot be run at some of the draws: {words(error)}; compute in float64 "
            "(torch.set_default_dtype(torch.float64))"
        ) from None
    return {name: value.cpu().unflatten(0, flat.shape[:2]) for name, value in draws.items()}


def _sample_stats(runs: list[Run], dense: bool) -> dict[str, Tensor]:
    leapfrogs = torch.as_tensor(np.stack([r.leapfrogs for r in runs]))
    return {
        "divergences": torch.tensor([int(r.diverging.sum()) for r in runs]),
        "accept_rate": torch.tensor([r.accept_rate for r in runs]),
        "step_size": torch.tensor([r.step_size for r in runs]),
        "dense": torch.full((len(runs),), float(dense)),
        "inverse_mass": torch.as_tensor(np.stack([r.inverse_mass for r in runs])),
        "ends": torch.as_tensor(np.stack([r.draws[-1] for r in runs])),
        "diverging": torch.as_tensor(np.stack([r.diverging for r in runs])).bool(),
        "energy": torch.as_tensor(np.stack([r.energy for r in runs])),
        "tree_depth": leapfrogs.double().log2().floor().int() + 1,
    }
