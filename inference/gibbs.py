"""Gibbs sampling: each block of variables in turn from its exact full conditional, all chains at once.

Geman and Geman (1984), Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images, IEEE PAMI 6;
Gelfand and Smith (1990), Sampling-based approaches to calculating marginal densities, JASA 85.
"""

import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .checkpoints import Place, states_of
from .diagnostics import of_sites
from .info import GibbsInfo
from .mcmc.chains import SWAPS, Chains, warn_unless_converged
from .mcmc.resume import continued_seed
from .options import as_double, at_least_one, options_by_name
from .posterior import Posterior
from .progress import Progress
from .traces.isolate import isolated

if TYPE_CHECKING:
    from ..models import GibbsSteps


@options_by_name
def gibbs(
    steps: "GibbsSteps",
    *data: Tensor,
    num_draws: int = 1000,
    num_warmup: int = 500,
    num_chains: int = 4,
    thin: int = 1,
    init: Posterior | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[GibbsInfo]:
    """Draw from a posterior by Gibbs sampling.

    Parameters
    ----------
    steps : GibbsSteps
        As a model's ``gibbs_steps(**options)`` returns them; see `guidebook.models.GibbsSteps`.
    *data : Tensor
        As in `em`.
    num_draws, num_warmup : int
        Draws kept per chain, and sweeps before the first of them; 0 goes on with the chains of ``init``.
    num_chains : int
        Number of chains, run as one batch.
    thin : int
        Sweeps per draw.
    init : Posterior, optional
        A posterior by `gibbs` with the same steps and data: chains start where its chains stood. `Posterior.append`
        joins the draws.
    seed, progress
        As in `nuts`.
    checkpoint, every
        As in `svi`: the draws so far and the state of the chains are kept between sweeps.

    Returns
    -------
    Posterior
        ``info`` is a `GibbsInfo`.

    Raises
    ------
    ValueError
        If an option is out of range.
    FloatingPointError
        If a conditional returns a value that is not finite.

    Warns
    -----
    UserWarning
        If chains never moved, or disagree by more than the order of a mixture's components.
    """
    counted = None if init is not None and num_warmup == 0 else num_warmup
    at_least_one("gibbs", num_draws=num_draws, num_warmup=counted, num_chains=num_chains, thin=thin)
    start = None if init is None else _state_of(init, num_chains)
    total = num_warmup + num_draws * thin
    begin = time.perf_counter()
    kept: dict[str, list[Tensor]] = {name: [] for name in steps.sites}
    own_seed = seed if init is None else continued_seed(seed, init)
    with isolated(own_seed), torch.no_grad(), Progress("gibbs", total, progress, is_fixed=True) as bar:
        data = steps.prepare(*as_double(data))
        state, first = steps.init(num_chains, *data) if start is None else start, 1
        states = states_of(checkpoint)
        if (saved := states.take("gibbs")) is not None:
            first = saved["sweep"] + 1
            kept = {name: [] if values is None else list(values.unbind(1)) for name, values in saved["kept"].items()}
            state = {name: value.to(state[name].device) for name, value in saved["state"].items()}
        for sweep in range(first, total + 1):
            for conditional in steps.conditionals:
                try:
                    state = state | conditional(state, *data)
                except ValueError:  # such as torch's, of a probability that is not a number
                    _check_finite(state, sweep)
                    raise
            if sweep > num_warmup and (sweep - num_warmup) % thin == 0:
                sites = state
                if steps.draw is not None:
                    _check_finite(sites := steps.draw(state, *data), sweep)
                for name, values in kept.items():
                    values.append(sites[name].cpu())
            states.offer("gibbs", lambda sweep=sweep, state=state: _stand(sweep, state, kept))
            if sweep % 50 == 0 or sweep == total:
                bar.update(sweep)
                _check_finite(state, sweep)
    seconds = time.perf_counter() - begin

    draws = {name: torch.stack(values, 1) for name, values in kept.items()}
    chains = Chains(draws, {}, *of_sites(draws), seconds)
    problem = chains.disagreement
    info = GibbsInfo(
        r_hat=chains.r_hat,
        ess=chains.ess,
        num_warmup=num_warmup,
        state={name: value.cpu() for name, value in state.items()},
        seconds=seconds,
        seed=seed,
        converged=not problem,
        message="; ".join(filter(None, (f"drew {num_draws} in each of {num_chains} chains", problem))),
    )
    if not problem.startswith(SWAPS):  # which those who wrote the conditionals expect
        warn_unless_converged(info)
    return Posterior(draws=draws, info=info)


def _check_finite(state: dict[str, Tensor], sweep: int) -> None:
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise FloatingPointError(f"gibbs: {name!r} is not finite by sweep {sweep}")


def _stand(sweep: int, state: dict[str, Tensor], kept: dict[str, list[Tensor]]) -> dict[str, Any]:
    """Return what a checkpoint keeps after a sweep."""
    draws = {name: torch.stack(values, 1) for name, values in kept.items() if values}
    return {"sweep": sweep, "state": state, "kept": {name: draws.get(name) for name in kept}}


def _state_of(init: Posterior, num_chains: int) -> dict[str, Tensor]:
    state = getattr(init.info, "state", None)
    if state is None:
        raise ValueError(f"gibbs: init must be a posterior by gibbs, of this version; it is by {init.info.method}")
    if (found := len(next(iter(state.values())))) != num_chains:
        raise ValueError(f"gibbs: init has {found} chains, and num_chains is {num_chains}")
    return dict(state)
