"""The No-U-Turn sampler for any model: Pyro's, one process a chain, or NumPyro's on the model translated to JAX.

References
----------
1. Hoffman and Gelman (2014), The No-U-Turn sampler, JMLR 15.
2. Betancourt (2017), A conceptual introduction to Hamiltonian Monte Carlo: divergences.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import NUTS

from .diagnostics import MAX_R_HAT
from .engines import xla
from .engines.graph import CannotCompile
from .hmc import check_options, divergence, hamiltonian_chains
from .info import NutsInfo
from .mcmc.chains import Chains
from .posterior import Posterior
from .traces.isolate import check_seed

ENGINES = ("auto", "pyro", "xla")
WORTH_COMPILING = 1000  # iterations, all chains together: Pyro takes longer over them than the compiler's few seconds


def nuts(
    model: Callable,
    *data: Any,
    num_draws: int = 1000,
    num_warmup: int = 1000,
    num_chains: int = 4,
    target_accept: float = 0.8,
    dense_mass: bool | None = None,
    engine: str = "auto",
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Posterior[NutsInfo]:
    """Draw from a model's posterior by the No-U-Turn sampler.

    Parameters
    ----------
    model : callable
        Any Pyro model; discrete latent sites are enumerated and summed out.
    *data
        Arguments of the model.
    num_draws, num_warmup : int
        Draws kept a chain, and adaptation steps before them.
    num_chains : int
        Chains, on as many cores as there are.
    target_accept : float
        Acceptance probability that the step size is adapted to; nearer 1 for fewer divergences and smaller steps.
    dense_mass : bool, optional
        Whether warm-up adapts a full mass matrix, which suits correlated posteriors, rather than a diagonal one;
        where left out, it does for up to a hundred latent dimensions.
    engine : {"auto", "pyro", "xla"}
        Who samples: Pyro, or NumPyro in compiled code, many times as fast once some 2 s of compiling are over. "auto"
        takes NumPyro where it is installed (``pip install 'guidebook[xla]'``), every operation of the model can be
        translated and there are a thousand iterations or more.
    seed : int
        Same seed, same machine, same numbers, whatever the number of cores.
    device : str or torch.device, optional
        Where the model runs, such as "cuda" (chains follow one another there); the data's own where left out.
    progress : bool
        Whether to show a bar over all chains.

    Returns
    -------
    Posterior
        ``info`` is a `NutsInfo`.

    Raises
    ------
    ValueError
        If an option is out of range, or ``engine="xla"`` is asked for and cannot be had.

    Warns
    -----
    UserWarning
        If transitions diverged, or "auto" would take NumPyro and it is not installed or cannot have the model.
    """
    if engine not in ENGINES:
        raise ValueError(f"nuts: engine must be one of {', '.join(ENGINES)}; got {engine!r}")
    check_options("nuts", num_draws, num_warmup, num_chains, target_accept)
    check_seed(seed)
    options: dict[str, Any] = {
        "num_draws": num_draws,
        "num_warmup": num_warmup,
        "num_chains": num_chains,
        "target_accept": target_accept,
        "dense_mass": dense_mass,
        "seed": seed,
        "device": device,
        "progress": progress,
    }
    compiled = None
    if engine == "xla" or (engine == "auto" and num_chains * (num_warmup + num_draws) >= WORTH_COMPILING):
        try:
            compiled = _compiled(model, data, options)
        except CannotCompile as why:
            if engine == "xla":
                raise ValueError(f"nuts: engine='xla' cannot be had: {why}") from why
            warnings.warn(f"nuts: Pyro samples, more slowly than compiled code would: {why}", stacklevel=2)
    chains = compiled or hamiltonian_chains("nuts", NUTS, model, data, **options)
    because = f"drew {num_draws} in each of {num_chains} chains"
    if diverged := divergence(chains):
        because += f", with {diverged}"
        warnings.warn(f"nuts: {because}", stacklevel=2)
    elif unmixed := chains.disagreement:
        because += f"; {unmixed}"
    info = NutsInfo(
        r_hat=chains.r_hat,
        ess=chains.ess,
        divergences=chains.figures["divergences"],
        accept_rate=chains.figures["accept_rate"],
        step_size=chains.figures["step_size"],
        num_warmup=num_warmup,
        seconds=chains.seconds,
        seed=seed,
        converged=chains.worst[0] <= MAX_R_HAT and not diverged,
        message=because,
        engine="xla" if compiled else "pyro",
        energy=chains.figures.get("energy"),
        tree_depth=chains.figures.get("tree_depth"),
    )
    return Posterior(draws=chains.draws, info=info)


def _compiled(model: Callable, data: tuple, options: dict[str, Any]) -> Chains:
    if not xla.installed():
        raise CannotCompile(f"it needs JAX and NumPyro: {xla.INSTALL}")
    try:
        from .engines.xla.chains import xla_chains  # imports JAX
    except (ImportError, AttributeError) as error:  # not there, or a release that moved a name
        raise CannotCompile(f"JAX and NumPyro cannot be imported: {error}") from error
    return xla_chains(model, data, **options)
