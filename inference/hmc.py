"""Hamiltonian Monte Carlo with a given mean trajectory length: Pyro's kernel, any model, one process per chain.

Duane, Kennedy, Pendleton and Roweth (1987), Hybrid Monte Carlo, Physics Letters B 195; Neal (2011), MCMC using
Hamiltonian dynamics, Handbook of Markov Chain Monte Carlo: section 3.2 on random lengths.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from pyro.infer import HMC
from torch import Tensor

from .checkpoints import Place, states_of
from .info import HmcInfo
from .mcmc.chains import ChainOptions, divergence, prepare_chains, run_chains, warn_unless_converged
from .mcmc.hamiltonian import check_target_accept, hamiltonian_chain
from .mcmc.resume import begin
from .options import options_by_name
from .posterior import Posterior
from .traces.vectors import Sites

NUM_WARMUP, NUM_WARMUP_STARTED = 1000, 300  # iterations, without a posterior to start from and with one


@options_by_name
def hmc(
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    num_draws: int = 1000,
    num_warmup: int | None = None,
    num_chains: int = 4,
    trajectory_length: float | None = None,
    target_accept: float = 0.8,
    dense_mass: bool | None = None,
    init: Posterior | None = None,
    params: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[HmcInfo]:
    """Draw from a model's posterior by Hamiltonian Monte Carlo.

    Parameters
    ----------
    model, *data, model_kwargs, num_draws, num_warmup, num_chains, target_accept, dense_mass, init, params, seed
        As in `nuts`; ``num_warmup=0`` goes on with the chains of a posterior by `hmc`.
    device, progress, checkpoint, every
        As in `nuts`.
    trajectory_length : float, optional
        Mean length of a trajectory: step size times number of steps. Each length is drawn uniformly from half to one
        and a half times the mean, because a fixed length may return every draw to its start. Default: π, half the
        period of a standard normal, which puts the proposal at the opposite side; Pyro's default, 2π, returns to the
        start.

    Returns
    -------
    Posterior
        ``info`` is an `HmcInfo`.

    Raises
    ------
    ValueError
        If an option is out of range, or ``init`` is none that chains can start from.

    Warns
    -----
    UserWarning
        If transitions diverged, or chains never moved or disagree.
    """
    length = math.pi if trajectory_length is None else trajectory_length
    if not 0 < length < math.inf:
        raise ValueError(f"hmc: trajectory_length must be positive, got {trajectory_length}")
    if num_warmup is None:
        num_warmup = NUM_WARMUP if init is None else NUM_WARMUP_STARTED
    options = ChainOptions(num_draws, num_warmup, num_chains, seed, device, progress)
    options.check("hmc", init)
    check_target_accept("hmc", target_accept)
    kernel = partial(_RandomLength, trajectory_length=length)
    prepared = prepare_chains("hmc", model, data, options, params)
    options, start, states = begin("hmc", init, prepared, options)
    sampler = partial(hamiltonian_chain, kernel, options, target_accept, dense_mass, start)
    begins = states or (start and start.starts)
    chains = run_chains("hmc", sampler, prepared, options, states_of(checkpoint), begins)
    info = HmcInfo(
        **chains.record(options._replace(seed=seed), divergence(chains)),
        divergences=chains.sample_stats["divergences"],
        trajectory_length=length,
        inverse_mass=chains.sample_stats["inverse_mass"],
        diverging=chains.sample_stats["diverging"],
    )
    warn_unless_converged(info)
    return Posterior(draws=chains.draws, params=prepared.params, info=info)


class _RandomLength(HMC):
    """Pyro's kernel, with each trajectory's length drawn at random."""

    def __init__(self, *, trajectory_length: float, **options: Any) -> None:
        super().__init__(trajectory_length=trajectory_length, **options)
        self._mean_length = trajectory_length

    def sample(self, params: Sites) -> Sites:
        self.trajectory_length = self._mean_length * (0.5 + float(torch.rand(())))
        return super().sample(params)
