"""The No-U-Turn sampler: Pyro's, any model, one process a chain.

References
----------
1. Hoffman and Gelman (2014), The No-U-Turn sampler, JMLR 15.
2. Betancourt (2017), A conceptual introduction to Hamiltonian Monte Carlo: divergences.
"""

import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor

from .diagnostics import ess, r_hat
from .draws import add_deterministic
from .graph import traced
from .info import NutsInfo
from .isolate import check_seed, isolated
from .posterior import Posterior
from .progress import Progress
from .start import start_strategy

ENGINES = ("auto", "pyro")
DENSE_UP_TO = 100  # latent dimensions for which a full mass matrix is adapted unless told otherwise
WORTH_TRACING = 100  # iterations a chain from which recording the graph, a second or two, pays


class _Settings(NamedTuple):
    num_draws: int
    num_warmup: int
    target_accept: float
    dense_mass: bool | None

    @property
    def iterations(self) -> int:
        return self.num_warmup + self.num_draws


class _Chain(NamedTuple):
    draws: dict[str, Tensor]
    divergences: int
    accept_rate: float
    step_size: float


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
        Chains, each in a process of its own on as many cores as there are.
    target_accept : float
        Acceptance probability that the step size is adapted to; nearer 1 for fewer divergences and smaller steps.
    dense_mass : bool, optional
        Whether warm-up adapts a full mass matrix, which suits correlated posteriors, rather than a diagonal one;
        where left out, it does for up to a hundred latent dimensions.
    engine : {"auto", "pyro"}
        Who samples.
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
        If an option is out of range.

    Warns
    -----
    UserWarning
        If transitions diverged.
    """
    for name, value in (("num_draws", num_draws), ("num_warmup", num_warmup), ("num_chains", num_chains)):
        if value < 1:
            raise ValueError(f"nuts: {name} must be at least 1, got {value}")
    if not 0 < target_accept < 1:
        raise ValueError(f"nuts: target_accept must lie between 0 and 1, got {target_accept}")
    if engine not in ENGINES:
        raise ValueError(f"nuts: engine must be one of {', '.join(ENGINES)}; got {engine!r}")
    check_seed(seed)
    if device is not None:
        data = tuple(value.to(device) if isinstance(value, Tensor) else value for value in data)
    on_cpu = all(value.device.type == "cpu" for value in data if isinstance(value, Tensor))
    processes = min(num_chains, joblib.cpu_count()) if on_cpu else 1
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(num_chains)]

    begin = time.perf_counter()
    settings = _Settings(num_draws, num_warmup, target_accept, dense_mass)
    chains = _run_chains(model, data, settings, seeds, processes, progress)
    seconds = time.perf_counter() - begin

    draws = {name: torch.stack([chain.draws[name] for chain in chains]) for name in chains[0].draws}
    divergences = torch.tensor([chain.divergences for chain in chains])
    scale_reduction = {name: r_hat(value) for name, value in draws.items()}
    because = f"drew {num_draws} in each of {num_chains} chains"
    if diverged := int(divergences.sum()):
        because += (
            f", with {diverged} divergent transitions: parts of the posterior were not reached; "
            "raise target_accept, or write the model in a non-centred form"
        )
        warnings.warn(f"nuts: {because}", stacklevel=2)
    worst = max((float(v.nan_to_num(1.0).max()) for v in scale_reduction.values() if v.numel()), default=1.0)
    info = NutsInfo(
        r_hat=scale_reduction,
        ess={name: ess(value) for name, value in draws.items()},
        divergences=divergences,
        accept_rate=torch.tensor([chain.accept_rate for chain in chains]),
        step_size=torch.tensor([chain.step_size for chain in chains]),
        num_warmup=num_warmup,
        seconds=seconds,
        seed=seed,
        converged=worst <= 1.01 and diverged == 0,
        stopped_because=because,
    )
    return Posterior(draws=draws, info=info)


def _run_chains(
    model: Callable, data: tuple, settings: _Settings, seeds: list[int], processes: int, progress: bool
) -> list[_Chain]:
    """All chains, in as many processes as given, with a bar over the sum of their iterations."""
    total = len(seeds) * settings.iterations
    with tempfile.TemporaryDirectory(prefix="guidebook-") as folder, Progress("nuts", total, progress) as bar:
        counters = [Path(folder) / str(chain) for chain in range(len(seeds))]
        jobs = (
            joblib.delayed(_run_chain)(model, data, settings, seed, counter)
            for seed, counter in zip(seeds, counters, strict=True)
        )
        finished = threading.Event()
        watcher = threading.Thread(target=_watch, args=(counters, bar, finished), daemon=True)
        watcher.start()
        try:
            return joblib.Parallel(n_jobs=processes)(jobs)  # pyright: ignore[reportReturnType]
        finally:
            finished.set()
            watcher.join()


def _watch(counters: list[Path], bar: Progress, finished: threading.Event) -> None:
    while not finished.wait(0.5):
        bar.update(sum(int(counter.read_text() or 0) for counter in counters if counter.exists()))
    bar.update(sum(int(counter.read_text() or 0) for counter in counters if counter.exists()))


def _run_chain(model: Callable, data: tuple, settings: _Settings, seed: int, counter: Path) -> _Chain:
    """One chain, start to end; writes how many iterations it has done to the file ``counter``."""
    done, step_size = 0, float("nan")

    def count(kernel: NUTS, *_: Any) -> None:
        nonlocal done, step_size
        done, step_size = done + 1, kernel.step_size
        if done % 20 == 0 or done == settings.iterations:
            counter.write_text(str(done))

    with isolated(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start, potential, transforms, _ = initialize_model(model, data, init_strategy=start_strategy)
        dense = settings.dense_mass
        if dense is None:
            dense = sum(value.numel() for value in start.values()) <= DENSE_UP_TO
        graph = traced(potential, start) if settings.iterations >= WORTH_TRACING else None
        mcmc = MCMC(
            NUTS(potential_fn=graph or potential, target_accept_prob=settings.target_accept, full_mass=dense),
            settings.num_draws,
            warmup_steps=settings.num_warmup,
            initial_params=start,
            transforms=transforms,
            hook_fn=count,
            disable_progbar=True,
            disable_validation=True,
        )
        mcmc.run()
        latent = {name: value.detach() for name, value in mcmc.get_samples().items()}
        draws = {name: value.cpu() for name, value in add_deterministic(model, latent, data).items()}
        run: dict[str, Any] = mcmc.diagnostics()
    return _Chain(draws, len(run["divergences"]["chain 0"]), run["acceptance rate"]["chain 0"], float(step_size))
