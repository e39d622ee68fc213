"""The No-U-Turn sampler for any model: Pyro's, or NumPyro's on the model translated to JAX.

Hoffman and Gelman (2014), The No-U-Turn sampler, JMLR 15; Betancourt (2017), A conceptual introduction to Hamiltonian
Monte Carlo: divergences.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from pyro.infer import NUTS
from torch import Tensor

from .checkpoints import Checkpoint, Place, states_of
from .engines import xla
from .engines.graph import CannotCompile
from .engines.signals import signals_held
from .info import NutsInfo
from .mcmc.chains import ChainOptions, Chains, divergence, prepare_chains, run_chains, warn_unless_converged
from .mcmc.hamiltonian import check_target_accept, hamiltonian_chain, metric_of
from .mcmc.resume import begin
from .options import options_by_name
from .posterior import Posterior
from .traces.prepare import Prepared

ENGINES = ("auto", "pyro", "xla")
NUM_WARMUP, NUM_WARMUP_STARTED = 1000, 300  # iterations, without a posterior to start from and with one
WORTH_COMPILING = 1000  # iterations, all chains together: Pyro takes longer over them than the compiler's few seconds


@options_by_name
def nuts(
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    num_draws: int = 1000,
    num_warmup: int | None = None,
    num_chains: int = 4,
    target_accept: float = 0.8,
    dense_mass: bool | None = None,
    init: Posterior | None = None,
    engine: str = "auto",
    params: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[NutsInfo]:
    """Draw from a model's posterior by the No-U-Turn sampler.

    Parameters
    ----------
    model : callable
        Any Pyro model; discrete latent sites are enumerated and summed out.
    *data
        Arguments of the model; bind others with `functools.partial`.
    model_kwargs : mapping, optional
        Further arguments of the model by name: data or options.
    num_draws : int
        Draws kept per chain.
    num_warmup : int, optional
        Adaptation steps per chain before them. Default: 1,000, or 300 with ``init``. 0 goes on with the chains of
        ``init``, a posterior by `nuts`: from where they stood, with their step sizes and metrics. `Posterior.append`
        joins the draws.
    num_chains : int
        Chains, each from its own random start or draw of ``init``, on as many cores as there are.
    target_accept : float
        Mean acceptance probability that the step size is adapted to; nearer 1 for fewer divergences, smaller steps.
    dense_mass : bool, optional
        Whether warm-up adapts a full mass matrix, which suits correlated posteriors, or a diagonal one. Default: chosen
        by warm-up for up to a hundred latent dimensions, and diagonal for more; ``info.metric`` says which it was. A
        diagonal one is taken if a full one leaves new draws no better conditioned, or (NumPyro, from about 1,300
        iterations of warm-up over all chains) makes trajectories turn back before they have crossed the posterior.
    init : Posterior, optional
        A posterior of this model by any method that gives draws, such as `pathfinder` or `svi`. Chains start at
        different ones of its draws, with its covariance on the unconstrained scale as the first mass matrix. Warm-up
        goes on from there, so that a bad one costs time, not correctness; but chains find no mode that none of its
        draws is near.
    engine : {"auto", "pyro", "xla"}
        What runs the sampler: Pyro, or NumPyro in compiled code, many times faster after about 2 s of compiling. "auto"
        takes NumPyro if it is installed (``pip install 'guidebook[xla]'``), every operation of the model can be
        translated, compiling does not take minutes, and there are a thousand iterations or more. A Python loop in the
        model compiles as fast as one of its steps if all apply the same operations to values of the same shape.
    params : dict of Tensor, optional
        Values, constrained, of the model's ``pyro.param`` statements, as in `Posterior.params`: they are held there.
        Default: their initial values, with a warning.
    seed : int
        The same seed on the same machine gives the same numbers, whatever the number of cores.
    device : str or torch.device, optional
        Where the model runs, such as "cuda" (where chains run one after another). Default: the device of the data.
    progress : bool
        Whether to show a progress bar over all chains.
    checkpoint, every
        As in `svi`: where the chains stand, and their draws so far; of chains that have ended, the draws. The state is
        written between iterations, and by NumPyro after blocks of 50.

    Returns
    -------
    Posterior
        ``info`` is a `NutsInfo`.

    Raises
    ------
    ValueError
        If an option is out of range, ``init`` is none that chains can start from or go on with, or ``engine="xla"`` is
        not available for this model.

    Warns
    -----
    UserWarning
        If transitions diverged, chains never moved or disagree, or "auto" would take NumPyro and it is not installed or
        cannot run the model.
    """
    if engine not in ENGINES:
        raise ValueError(f"nuts: engine must be one of {', '.join(ENGINES)}; got {engine!r}")
    if num_warmup is None:
        num_warmup = NUM_WARMUP if init is None else NUM_WARMUP_STARTED
    options = ChainOptions(num_draws, num_warmup, num_chains, seed, device, progress)
    options.check("nuts", init)
    check_target_accept("nuts", target_accept)
    prepared = prepare_chains("nuts", model, data, options, params)
    options, start, states = begin("nuts", init, prepared, options)
    compiled = None
    pays = prepared.recurring is not None or num_chains * options.iterations >= WORTH_COMPILING
    if engine == "xla" or (engine == "auto" and pays):
        try:
            how = target_accept, dense_mass, start, states, engine == "xla"
            compiled = _compiled(prepared, states_of(checkpoint), options, *how)
        except CannotCompile as why:
            if engine == "xla":
                raise ValueError(f"nuts: engine='xla' is not available: {why}") from why
            warnings.warn(f"nuts: Pyro samples, more slowly than compiled code would: {why}", stacklevel=3)
    sampler = partial(hamiltonian_chain, NUTS, options, target_accept, dense_mass, start)
    begins = states or (start and start.starts)
    chains = compiled or run_chains("nuts", sampler, prepared, options, states_of(checkpoint), begins)
    info = NutsInfo(
        **chains.record(options._replace(seed=seed), divergence(chains)),
        divergences=chains.sample_stats["divergences"],
        engine="xla" if compiled else "pyro",
        metric=metric_of(chains),
        inverse_mass=chains.sample_stats["inverse_mass"],
        energy=chains.sample_stats.get("energy"),
        tree_depth=chains.sample_stats.get("tree_depth"),
        diverging=chains.sample_stats["diverging"],
    )
    warn_unless_converged(info)
    return Posterior(draws=chains.draws, params=prepared.params, info=info)


def _compiled(prepared: Prepared, states: Checkpoint, *options: Any) -> Chains:
    if not xla.installed():
        raise CannotCompile(f"it needs JAX and NumPyro: {xla.INSTALL}")
    try:
        with signals_held():
            from .engines.xla.chains import xla_chains  # imports JAX
    except (ImportError, AttributeError) as error:  # not there, or a release that moved a name
        raise CannotCompile(f"JAX and NumPyro cannot be imported: {error}") from error
    return xla_chains(prepared, states, *options)
