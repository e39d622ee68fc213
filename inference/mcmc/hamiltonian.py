"""Chains of Pyro's HMC or NUTS kernel, and what all Hamiltonian samplers share: options, mass matrix, divergences."""

from collections.abc import Callable
from typing import Any

from pyro.infer import HMC, MCMC

from ..engines.graph import traced
from .chains import ChainOptions, Chains, Sites, Target

MAX_DENSE = 100  # latent dimensions up to which a full mass matrix is adapted by default
WORTH_TRACING = 100  # iterations per chain from which recording the graph, a second or two, pays


def check_target_accept(method: str, target_accept: float) -> None:
    """Raise ValueError for a target outside (0, 1)."""
    if not 0 < target_accept < 1:
        raise ValueError(f"{method}: target_accept must lie between 0 and 1, got {target_accept}")


def is_dense(dense_mass: bool | None, dimensions: int) -> bool:
    """Return whether to adapt a full mass matrix: as told, or else for up to `MAX_DENSE` dimensions."""
    return dimensions <= MAX_DENSE if dense_mass is None else dense_mass


def divergence(chains: Chains) -> str:
    """Return how many transitions diverged and what that means; empty if none did."""
    diverged = int(chains.sample_stats["divergences"].sum())
    if not diverged:
        return ""
    return (
        f"{diverged} divergent transitions: parts of the posterior were not reached; "
        "raise target_accept, or write the model in a non-centred form"
    )


def hamiltonian_chain(
    kernel: Callable[..., HMC],
    options: ChainOptions,
    target_accept: float,
    dense_mass: bool | None,
    target: Target,
    report: Callable[[int], object],
) -> tuple[Sites, dict[str, float]]:
    """Run one chain of Pyro's HMC kernel, or of one derived from it: a `Sampler` once the first options are bound."""
    done, stats = 0, {}

    def count(running: HMC, *_: Any) -> None:
        nonlocal done, stats
        done += 1
        if done % 20 == 0 or done == options.iterations:
            report(done)
        if done == options.iterations:  # afterwards the kernel forgets
            stats = {
                "divergences": len(running.diagnostics()["divergences"]),
                "accept_rate": float(running.logging()["acc. prob"]),  # to three decimals
                "step_size": float(running.step_size),
                "dense_mass": dense,
            }

    dense = is_dense(dense_mass, sum(value.numel() for value in target.start.values()))
    graph = traced(target.potential, target.start) if options.iterations >= WORTH_TRACING else None
    mcmc = MCMC(
        kernel(potential_fn=graph or target.potential, target_accept_prob=target_accept, full_mass=dense),
        options.num_draws,
        options.num_warmup,
        initial_params=target.start,
        transforms={},
        hook_fn=count,
        disable_progbar=True,
        disable_validation=True,
    )
    mcmc.run()
    return {name: value.detach() for name, value in mcmc.get_samples().items()}, stats
