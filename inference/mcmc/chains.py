"""Chains of any kernel on any Pyro model: each in a process of its own, from its own seed, one bar over them all.

Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021), Rank-normalization, folding, and localization: an improved R̂.
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
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor

from ..diagnostics import MAX_R_HAT, of_sites
from ..engines.graph import Potential
from ..progress import Progress
from ..traces.draws import add_deterministic
from ..traces.init import init_to_site
from ..traces.isolate import check_seed, isolated

Sites = dict[str, Tensor]


class Target(NamedTuple):
    """What a kernel draws from.

    Attributes
    ----------
    start : dict of Tensor
        Unconstrained values of the latent sites, at which the density is finite.
    potential : callable
        Unconstrained values by site → negative log density in nats, a scalar: log determinants of the transforms
        included, discrete sites summed out.
    """

    start: Sites
    potential: Potential


Sampler = Callable[[Target, Callable[[int], None]], tuple[Sites, dict[str, float]]]


class Chains(NamedTuple):
    """What all chains of a run have drawn.

    Attributes
    ----------
    draws : dict of Tensor
        Shape (chain, draw, *site): constrained latent sites, and deterministic ones.
    figures : dict of Tensor
        Shape (chain,), or (chain, draw): what the kernel reports about each, ``accept_rate`` among it.
    r_hat, ess : dict of Tensor
        Rank-normalised split R̂ and bulk effective sample size of every entry of every site, shape (*site).
    seconds : float
        Time for the draws, in s.
    """

    draws: Sites
    figures: dict[str, Tensor]
    r_hat: Sites
    ess: Sites
    seconds: float

    @property
    def worst(self) -> tuple[float, str]:
        """Largest R̂, and the site that has it; 1 where nothing varies."""
        found = ((float(value.nan_to_num(1.0).max()), name) for name, value in self.r_hat.items() if value.numel())
        return max(found, default=(1.0, ""))

    @property
    def disagreement(self) -> str:
        """Why the chains do not stand for one distribution, in words; empty where nothing speaks against it."""
        stuck = int((self.figures["accept_rate"] == 0).sum())
        if stuck:
            return f"{stuck} of {len(self.figures['accept_rate'])} chains never moved"
        largest, site = self.worst
        if largest <= MAX_R_HAT:
            return ""
        return (
            f"the chains have not mixed (R̂ {largest:.3f} at {site!r}, at most {MAX_R_HAT} allowed): draw more, or "
            "judge by quantities free of labels where components merely change places"
        )


def check_counts(method: str, **counts: int) -> None:
    """Raise ValueError, in the method's name, for the first count below one."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{method}: {name} must be at least 1, got {value}")


def chain_seeds(seed: int, num_chains: int) -> list[int]:
    """A seed for each chain; ValueError for one out of range."""
    check_seed(seed)
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(num_chains)]


def on_device(data: tuple, device: str | torch.device | None) -> tuple[tuple, str]:
    """The data where the model is to run, their own place for None, and the kind of device that it is."""
    if device is not None:
        data = tuple(value.to(device) if isinstance(value, Tensor) else value for value in data)
    kinds = {value.device.type for value in data if isinstance(value, Tensor)} - {"cpu"}
    return data, min(kinds, default="cpu")


def run_chains(
    method: str,
    sampler: Sampler,
    model: Callable,
    data: tuple,
    *,
    iterations: int,
    num_chains: int,
    seed: int,
    device: str | torch.device | None,
    progress: bool,
) -> Chains:
    """Run a kernel from several starts, on as many cores as there are.

    Parameters
    ----------
    method : str
        Title of the bar.
    sampler : callable
        ``(target, report) -> (draws, figures)``: runs one chain. Its draws are unconstrained, shape (draw, *site);
        its figures are numbers by name, ``accept_rate`` among them. Now and then it calls ``report`` with the number
        of iterations done. Random numbers come from torch's generator.
    model, data
        Any Pyro model and its arguments; discrete latent sites are enumerated and summed out.
    iterations : int
        Iterations of one chain.
    num_chains : int
    seed : int
        Same seed, same machine, same numbers, whatever the number of cores.
    device : str, torch.device or None
        Where the model runs (chains follow one another on an accelerator); the data's own where None.
    progress : bool

    Raises
    ------
    ValueError
        If the seed is out of range.
    """
    seeds = chain_seeds(seed, num_chains)
    data, kind = on_device(data, device)
    processes = min(num_chains, joblib.cpu_count()) if kind == "cpu" else 1

    begin = time.perf_counter()
    total = num_chains * iterations
    with tempfile.TemporaryDirectory(prefix="guidebook-") as folder, Progress(method, total, progress) as bar:
        counters = [Path(folder) / str(chain) for chain in range(num_chains)]
        jobs = (
            joblib.delayed(_run_chain)(sampler, model, data, seed, counter)
            for seed, counter in zip(seeds, counters, strict=True)
        )
        finished = threading.Event()
        watcher = threading.Thread(target=_watch, args=(counters, bar, finished), daemon=True)
        watcher.start()
        try:
            ended: list[Any] = joblib.Parallel(n_jobs=processes)(jobs)  # pyright: ignore[reportAssignmentType]
        finally:
            finished.set()
            watcher.join()
    seconds = time.perf_counter() - begin

    draws = {name: torch.stack([sites[name] for sites, _ in ended]) for name in ended[0][0]}
    figures = {name: torch.tensor([values[name] for _, values in ended]) for name in ended[0][1]}
    return Chains(draws, figures, *of_sites(draws), seconds)


def _watch(counters: list[Path], bar: Progress, finished: threading.Event) -> None:
    while not finished.wait(0.5):
        bar.update(sum(int(counter.read_text() or 0) for counter in counters if counter.exists()))
    bar.update(sum(int(counter.read_text() or 0) for counter in counters if counter.exists()))


def _run_chain(
    sampler: Sampler, model: Callable, data: tuple, seed: int, counter: Path
) -> tuple[Sites, dict[str, float]]:
    """One chain, start to end; writes how many iterations it has done to the file ``counter``."""
    with isolated(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start, potential, transforms, _ = initialize_model(model, data, init_strategy=init_to_site)
        unconstrained, figures = sampler(Target(start, potential), lambda done: _write(counter, done))
        with torch.no_grad():
            latent = {name: transforms[name].inv(value) for name, value in unconstrained.items()}
        return {name: value.cpu() for name, value in add_deterministic(model, latent, data).items()}, figures


def _write(counter: Path, done: int) -> None:
    counter.write_text(str(done))
