"""Hamiltonian Monte Carlo with trajectories of a given length: Pyro's kernel, any model, one process a chain.

References
----------
1. Duane, Kennedy, Pendleton and Roweth (1987), Hybrid Monte Carlo, Physics Letters B 195.
2. Neal (2011), MCMC using Hamiltonian dynamics, Handbook of Markov Chain Monte Carlo: section 3.2 on random lengths.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pyro.infer import HMC, MCMC
from torch import Tensor

from .engines.graph import traced
from .info import HmcInfo
from .mcmc.chains import Chains, Sites, Target, check_counts, run_chains
from .posterior import Posterior

DENSE_UP_TO = 100  # latent dimensions for which a full mass matrix is adapted unless told otherwise
WORTH_TRACING = 100  # iterations a chain from which recording the graph, a second or two, pays
HALF_PERIOD = math.pi  # of a normal posterior with unit variances, which is what adaptation of the mass aims at


def hmc(
    model: Callable,
    *data: Any,
    num_draws: int = 1000,
    num_warmup: int = 1000,
    num_chains: int = 4,
    trajectory_length: float | None = None,
    target_accept: float = 0.8,
    dense_mass: bool | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Posterior[HmcInfo]:
    """Draw from a model's posterior by Hamiltonian Monte Carlo.

    Parameters
    ----------
    model : callable
        Any Pyro model; discrete latent sites are enumerated and summed out.
    *data
        Arguments of the model.
    num_draws, num_warmup : int
        Draws kept a chain, and adaptation steps before them.
    num_chains : int
        Chains, each in a process of its own on as many cores as there are.
    trajectory_length : float, optional
        Mean length of a trajectory, in units of time: step size times number of steps. Each is drawn uniformly from
        half to one and a half of it, since one fixed length may bring every draw back to where it began. π where left
        out, half of a normal's period, from the far side of which draws go on: Pyro's 2π is the whole period.
    target_accept : float
        Acceptance probability that the step size is adapted to.
    dense_mass : bool, optional
        Whether warm-up adapts a full mass matrix rather than a diagonal one; where left out, it does for up to a
        hundred latent dimensions.
    seed : int
        Same seed, same machine, same numbers, whatever the number of cores.
    device : str or torch.device, optional
        Where the model runs, such as "cuda" (chains follow one another there); the data's own where left out.
    progress : bool
        Whether to show a bar over all chains.

    Returns
    -------
    Posterior
        ``info`` is an `HmcInfo`.

    Raises
    ------
    ValueError
        If an option is out of range.

    Warns
    -----
    UserWarning
        If transitions diverged, or the chains did not mix.
    """
    length = HALF_PERIOD if trajectory_length is None else trajectory_length
    if not 0 < length < math.inf:
        raise ValueError(f"hmc: trajectory_length must be positive, got {trajectory_length}")
    chains = hamiltonian_chains(
        "hmc",
        partial(_RandomLength, trajectory_length=length),
        model,
        data,
        num_draws=num_draws,
        num_warmup=num_warmup,
        num_chains=num_chains,
        target_accept=target_accept,
        dense_mass=dense_mass,
        seed=seed,
        device=device,
        progress=progress,
    )
    because = f"drew {num_draws} in each of {num_chains} chains"
    problems = [words for words in (divergence(chains), chains.disagreement) if words]
    if problems:
        because = "; ".join([because, *problems])
        warnings.warn(f"hmc: {because}", stacklevel=2)
    info = HmcInfo(
        r_hat=chains.r_hat,
        ess=chains.ess,
        divergences=chains.figures["divergences"],
        accept_rate=chains.figures["accept_rate"],
        step_size=chains.figures["step_size"],
        trajectory_length=length,
        num_warmup=num_warmup,
        seconds=chains.seconds,
        seed=seed,
        converged=not problems,
        message=because,
    )
    return Posterior(draws=chains.draws, info=info)


class _RandomLength(HMC):
    """Pyro's kernel, with the length of each trajectory drawn anew."""

    def __init__(self, *, trajectory_length: float, **options: Any) -> None:
        super().__init__(trajectory_length=trajectory_length, **options)
        self._mean_length = trajectory_length

    def sample(self, params: Sites) -> Sites:
        self.trajectory_length = self._mean_length * (0.5 + float(torch.rand(())))
        return super().sample(params)


def hamiltonian_chains(
    method: str,
    kernel: Callable[..., HMC],
    model: Callable,
    data: tuple,
    *,
    num_draws: int,
    num_warmup: int,
    num_chains: int,
    target_accept: float,
    dense_mass: bool | None,
    seed: int,
    device: str | torch.device | None,
    progress: bool,
) -> Chains:
    """Chains of a kernel of Pyro's, HMC or one derived from it; options as in `hmc`.

    Returns
    -------
    Chains
        ``figures`` are ``divergences``, ``accept_rate`` and ``step_size``, as in `HmcInfo`.
    """
    check_options(method, num_draws, num_warmup, num_chains, target_accept)
    return run_chains(
        method,
        partial(_sample, kernel, num_draws, num_warmup, target_accept, dense_mass),
        model,
        data,
        iterations=num_warmup + num_draws,
        num_chains=num_chains,
        seed=seed,
        device=device,
        progress=progress,
    )


def check_options(method: str, num_draws: int, num_warmup: int, num_chains: int, target_accept: float) -> None:
    """Raise ValueError, in the method's name, for an option out of range."""
    check_counts(method, num_draws=num_draws, num_warmup=num_warmup, num_chains=num_chains)
    if not 0 < target_accept < 1:
        raise ValueError(f"{method}: target_accept must lie between 0 and 1, got {target_accept}")


def is_dense(dense_mass: bool | None, dimensions: int) -> bool:
    """Whether to adapt a full mass matrix: as told, or else for few enough dimensions."""
    return dimensions <= DENSE_UP_TO if dense_mass is None else dense_mass


def divergence(chains: Chains) -> str:
    """How many transitions diverged and what that means, in words; empty where none did."""
    diverged = int(chains.figures["divergences"].sum())
    if not diverged:
        return ""
    return (
        f"{diverged} divergent transitions: parts of the posterior were not reached; "
        "raise target_accept, or write the model in a non-centred form"
    )


def _sample(
    kernel: Callable[..., HMC],
    num_draws: int,
    num_warmup: int,
    target_accept: float,
    dense_mass: bool | None,
    target: Target,
    report: Callable[[int], None],
) -> tuple[Sites, dict[str, float]]:
    iterations = num_warmup + num_draws
    done, step_size = 0, float("nan")

    def count(running: HMC, *_: Any) -> None:
        nonlocal done, step_size
        done, step_size = done + 1, running.step_size
        if done % 20 == 0 or done == iterations:
            report(done)

    dense = is_dense(dense_mass, sum(value.numel() for value in target.start.values()))
    graph = traced(target.potential, target.start) if iterations >= WORTH_TRACING else None
    mcmc = MCMC(
        kernel(potential_fn=graph or target.potential, target_accept_prob=target_accept, full_mass=dense),
        num_draws,
        warmup_steps=num_warmup,
        initial_params=target.start,
        transforms={},
        hook_fn=count,
        disable_progbar=True,
        disable_validation=True,
    )
    mcmc.run()
    draws: dict[str, Tensor] = {name: value.detach() for name, value in mcmc.get_samples().items()}
    run: dict[str, Any] = mcmc.diagnostics()
    return draws, {
        "divergences": len(run["divergences"]["chain 0"]),
        "accept_rate": run["acceptance rate"]["chain 0"],
        "step_size": float(step_size),
    }
