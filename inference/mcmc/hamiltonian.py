"""Chains of Pyro's HMC or NUTS kernel, and what all Hamiltonian samplers share: options and mass matrix."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import HMC
from torch import Tensor

from ..checkpoints import Checkpoint
from ..engines.graph import traced
from ..traces.vectors import as_vector
from .chains import ChainOptions, Chains, ChainState, Sites, Target
from .fast_start import FastStart
from .kernel_state import KernelState
from .metric import is_dense
from .pyro_metric import ChosenMetric

WORTH_TRACING = 100  # iterations per chain from which recording the graph, a second or two, pays


def check_target_accept(method: str, target_accept: float) -> None:
    """Raise ValueError for a target outside (0, 1)."""
    if not 0 < target_accept < 1:
        raise ValueError(f"{method}: target_accept must lie between 0 and 1, got {target_accept}")


def metric_of(chains: Chains) -> str:
    """Return the form of the metric that most chains had after warm-up."""
    return "dense" if float(chains.sample_stats["dense"].mean()) >= 0.5 else "diagonal"


def hamiltonian_chain(
    kernel: Callable[..., HMC],
    options: ChainOptions,
    target_accept: float,
    dense_mass: bool | None,
    init: FastStart | None,
    target: Target,
    report: Callable[[int], object],
    state: ChainState | None,
    states: Checkpoint,
) -> tuple[Sites, dict[str, Any]]:
    """Run one chain of Pyro's HMC kernel, or of one derived from it: a `Sampler` once the first options are bound.

    With the state of a chain it goes on from there, and adapts nothing.
    """
    shapes = {name: value.shape for name, value in target.start.items()}
    dense, first, fixed = is_dense(dense_mass, sum(shape.numel() for shape in shapes.values())), None, {}
    if state is not None:
        dense, first = state.metric.dim() == 2, state.metric.cpu().double().numpy()
        fixed = {"step_size": state.step_size, "adapt_step_size": False, "adapt_mass_matrix": False}
    elif init is not None:
        first = init.inverse_mass(dense)
    graph = traced(target.potential, target.start) if options.iterations >= WORTH_TRACING else None
    potential = graph or target.potential
    running = kernel(potential_fn=potential, target_accept_prob=target_accept, full_mass=dense, **fixed)
    running.mass_matrix_adapter = metric = ChosenMetric(dense_mass, first, shapes)
    with pyro.validation_enabled(False):
        draws = _drawn(running, options, target, report, states)
    diverged = set(running.diagnostics()["divergences"])  # draws, by number after warm-up
    return draws, {
        "divergences": len(diverged),
        "diverging": [draw in diverged for draw in range(options.num_draws)],
        "accept_rate": float(running.logging()["acc. prob"]),  # to three decimals
        "step_size": float(running.step_size),
        "dense": float(metric.is_dense),
        "inverse_mass": metric.in_own_order(),
        "ends": as_vector({name: draws[name][-1] for name in shapes}).cpu(),
    }


def _drawn(
    kernel: HMC, options: ChainOptions, target: Target, report: Callable[[int], object], states: Checkpoint
) -> Sites:
    """Warm a kernel up and draw by it, as Pyro's MCMC does; return the draws, (draw, *site), unconstrained."""
    kernel.initial_params = target.start
    kernel.setup(options.num_warmup)
    states.add(kernel=KernelState(kernel))
    done, kept, at = 0, {name: [] for name in sorted(target.start)}, target.start
    if (saved := states.take("pyro")) is not None:
        done = saved["done"]
        kept |= {name: list(values.to(target.start[name].device)) for name, values in saved["draws"].items()}
    while done < options.iterations:
        at = kernel.sample(at)
        done += 1
        if done > options.num_warmup:
            for name, values in kept.items():
                values.append(at[name].detach())
        states.offer("pyro", partial(_stand, done, kept))
        if done % 20 == 0 or done == options.iterations:
            report(done)
    return {name: torch.stack(values) for name, values in kept.items()}


def _stand(done: int, kept: Mapping[str, list[Tensor]]) -> dict[str, Any]:
    """Return what a checkpoint keeps after an iteration, beside the kernel's state."""
    return {"done": done, "draws": {name: torch.stack(values) for name, values in kept.items() if values}}
