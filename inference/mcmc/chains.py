"""Chains of any kernel on any Pyro model: one process and one seed per chain, one progress bar.

Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021), Rank-normalization, folding, and localization: an improved R̂.
"""

import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checkpoints import Checkpoint
from ..diagnostics import MAX_R_HAT, disagrees, of_sites, r_hat
from ..exchangeable import match_components, swapping_dims
from ..info import Info
from ..options import at_least_one, device_of
from ..posterior import Posterior
from ..progress import Progress
from ..traces.draws import all_sites
from ..traces.held import prepare_held
from ..traces.isolate import check_seed, isolated
from ..traces.potential import Potential, find_start
from ..traces.prepare import Prepared
from ..traces.vectors import Sites
from .workers import parallel, scratch


class Target(NamedTuple):
    """The density that a kernel draws from, on the unconstrained scale, and values at which it is finite."""

    start: Sites
    potential: Potential


class ChainState(NamedTuple):
    """Where a chain stood after its last draw, and how it moved."""

    at: Sites  # unconstrained
    step_size: float
    metric: Tensor  # of Hamiltonian samplers the inverse mass matrix, (d, d) or (d); of Metropolis the proposal's root


Sampler = Callable[..., tuple[Sites, dict[str, Any]]]
Starts = Sequence[Sites] | Sequence[ChainState]

SWAPS = "components merely swap labels"  # what is said of chains that differ in nothing else
IDENTIFIED = "chains differ in labels, signs or rotations alone, and agree in quantities free of them"


class ChainOptions(NamedTuple):
    """Options that all samplers share, as in `nuts`; ``thin`` is the number of iterations per draw."""

    num_draws: int
    num_warmup: int
    num_chains: int
    seed: int
    device: str | torch.device | None
    progress: bool
    thin: int = 1

    @property
    def iterations(self) -> int:
        """Iterations per chain."""
        return self.num_warmup + self.num_draws * self.thin

    def check(self, method: str, init: object = None) -> None:
        """Raise ValueError, in the method's name, for an option out of range; with ``init`` there may be no warm-up."""
        counts = ["num_draws", "num_chains", "thin"]
        if self.num_warmup or init is None:
            counts.append("num_warmup")
        at_least_one(method, **{name: getattr(self, name) for name in counts})
        check_seed(self.seed)

    def seeds(self) -> list[int]:
        """Return one seed per chain."""
        return [int(s) for s in np.random.SeedSequence(self.seed).generate_state(self.num_chains)]


class Chains(NamedTuple):
    """Draws of all chains of a run."""

    draws: Sites  # (chain, draw, *site): constrained latent sites, and deterministic ones
    sample_stats: dict[str, Tensor]  # (chain,), or (chain, draw): at least ``accept_rate`` and ``step_size``
    r_hat: Sites  # (*site)
    ess: Sites  # (*site)
    seconds: float
    notes: tuple[str, ...] = ()  # what was done to the model, as clauses
    per_row: list[str] | None = None  # as in `Info`

    @property
    def disagreement(self) -> str:
        """Why the chains do not represent one distribution; empty if nothing indicates that."""
        several = [value for value in self.draws.values() if value.shape[1] > 1]
        moved = [(value[:, 1:] != value[:, :-1]).flatten(1).any(1) for value in several]
        if moved and (stuck := int((~torch.stack(moved).any(0)).sum())):
            return f"{stuck} of {len(moved[0])} chains never moved"
        return _raw_disagreement(self.draws, self.r_hat)

    def record(self, options: ChainOptions, *problems: str) -> dict[str, Any]:
        """Return the fields of `Info` that all samplers share; ``problems`` are sentences, or empty."""
        found = [problem for problem in (*problems, self.disagreement) if problem]
        words = f"drew {options.num_draws} in each of {options.num_chains} chains"
        return {
            "r_hat": self.r_hat,
            "ess": self.ess,
            "accept_rate": self.sample_stats["accept_rate"],
            "step_size": self.sample_stats["step_size"],
            "ends": self.sample_stats["ends"],
            "num_warmup": options.num_warmup,
            "seconds": self.seconds,
            "per_row": self.per_row,
            "seed": options.seed,
            "converged": not found,
            "message": "; ".join([words, *self.notes, *found]),
        }


def _raw_disagreement(draws: Sites, r_hats: Sites) -> str:
    """Return in which site chains disagree, and whether in labels alone; empty if in none."""
    largest, site = _largest(draws, r_hats)
    if not site:
        return ""
    if dims := swapping_dims(draws):
        matched = match_components(draws, dims=dims)
        if not _largest(matched, r_hats | {name: r_hat(matched[name]) for name in dims})[1]:
            return (
                f"{SWAPS} (in {', '.join(dims)}; R̂ {largest:.3f} at {site!r} as drawn): means of raw draws say "
                "nothing; compare with identify='exchangeable', or by quantities free of labels"
            )
    return (
        f"the chains have not mixed (R̂ {largest:.3f} at {site!r}, at most {MAX_R_HAT} allowed): draw more, or, if "
        "signs or rotations are arbitrary, judge by quantities free of them"
    )


def without_raw_disagreement(posterior: Posterior) -> str:
    """Return the message of a run whose chains agree in identified quantities, if not in raw sites."""
    info = posterior.info
    raw = _raw_disagreement(dict(posterior.draws), info.r_hat or {})
    return info.message.replace(raw, IDENTIFIED) if raw else info.message


def _largest(draws: Sites, r_hats: Sites) -> tuple[float, str]:
    """Return the largest R̂ that is no chance and its site; an empty name if there is none."""
    apart = {name: r_hats[name][mask] for name, mask in disagrees(draws, r_hats).items() if mask.any()}
    return max(((float(values.max()), name) for name, values in apart.items()), default=(1.0, ""))


def divergence(chains: Chains) -> str:
    """Return how many transitions diverged and what that means; empty if none did."""
    diverged = int(chains.sample_stats.get("divergences", torch.zeros(())).sum())
    if not diverged:
        return ""
    return (
        f"{diverged} divergent transitions: parts of the posterior were not reached; "
        "raise target_accept, or write the model in a non-centred form"
    )


def warn_unless_converged(info: Info) -> None:
    """Warn the caller of a sampler of chains that never moved, disagree or diverged."""
    if not info.converged:
        warnings.warn(f"{info.method}: {info.message}", stacklevel=4)


def prepare_chains(
    method: str, model: Callable, data: tuple, options: ChainOptions, params: Mapping[str, Tensor] | None
) -> Prepared:
    """Return the model as samplers take it, with a warning if it has parameters that are held without being given."""
    return prepare_held(method, model, data, options.device, params, stacklevel=5)


def make_target(method: str, prepared: Prepared, start: Sites | None = None) -> Target:
    """Return the target of a model, to be called in the fit's `isolated` context.

    Without a start, unconstrained values by site, one is found with torch's generator.

    A ValueError, in the method's name, says if there is no continuous latent site, or no start.
    """
    joint = prepared.log_joint()
    if not joint.latent:
        kind = "only discrete latent sites, which are summed out" if joint.summed else "no latent site"
        raise ValueError(f"{method}: the model has {kind}, so that there is nothing to draw")
    potential = Potential(joint)
    return Target(find_start(method, potential) if start is None else start, potential)


def run_chains(
    method: str, sampler: Sampler, prepared: Prepared, options: ChainOptions, states: Checkpoint, starts: Starts | None
) -> Chains:
    """Run a kernel on a model from several starts, on as many cores as there are (one after another on an accelerator).

    ``starts`` are unconstrained values, or the states of chains that go on, one per chain; default: random values.

    ``sampler(target, report, state, states)`` runs one chain with torch's generator; one that goes on from an earlier
    posterior gets its ``state``, others None. It returns unconstrained draws, shape (draw, *site), and statistics by
    name, each a number or a list of one per draw, and calls ``report`` with the number of iterations done. Each chain
    keeps ``states`` of its own, and its draws when it has ended.
    """
    import joblib  # slow to import

    processes = min(options.num_chains, joblib.cpu_count()) if device_of(prepared.data).type == "cpu" else 1

    begin, total = time.perf_counter(), options.num_chains * options.iterations
    with scratch() as folder, Progress(method, total, options.progress, is_fixed=True) as bar:
        counters = [folder / str(chain) for chain in range(options.num_chains)]
        jobs = (
            joblib.delayed(_run_chain)(method, sampler, prepared, states, *chain)
            for chain in zip(starts or [None] * options.num_chains, options.seeds(), counters, strict=True)
        )
        finished = threading.Event()
        watcher = threading.Thread(target=_watch, args=(counters, bar, finished), daemon=True)
        watcher.start()
        try:
            with warnings.catch_warnings():  # as an error, it would end the thread that waits for results
                warnings.filterwarnings("ignore", "A worker stopped while some jobs")
                ended: list[Any] = parallel(processes)(jobs)
        except BrokenProcessPool:
            raise ChildProcessError(
                f"{method}: a worker process was killed, by want of memory perhaps: take fewer chains or draws"
            ) from None
        finally:
            finished.set()
            watcher.join()
    seconds = time.perf_counter() - begin

    draws = {name: torch.stack([sites[name] for sites, _ in ended]) for name in ended[0][0]}
    sample_stats = {name: torch.stack([torch.as_tensor(stats[name]) for _, stats in ended]) for name in ended[0][1]}
    draws |= prepared.held_draws(draws)
    return Chains(draws, sample_stats, *of_sites(draws), seconds, prepared.notes, prepared.per_row)


def _watch(counters: list[Path], bar: Progress, finished: threading.Event) -> None:
    ended = False
    while not ended:
        ended = finished.wait(0.5)
        bar.update(sum(int(counter.read_text() or 0) for counter in counters if counter.exists()))


def _run_chain(
    method: str,
    sampler: Sampler,
    prepared: Prepared,
    states: Checkpoint,
    start: Sites | ChainState | None,
    seed: int,
    counter: Path,
) -> tuple[Sites, dict[str, Any]]:
    """Run one chain; write the number of iterations done to the file ``counter``, named by the chain's number."""
    own = states.part(f"chain-{counter.name}")
    if own.result is not None:
        return own.result
    with isolated(seed, prepared.dtype), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        goes_on = isinstance(start, ChainState)
        target = make_target(method, prepared, start.at if goes_on else start)
        state = start if goes_on else None

        def report(done: int) -> None:
            with suppress(FileNotFoundError):  # in a worker on another machine
                counter.write_text(str(done))

        unconstrained, stats = sampler(target, report, state, own)
        with torch.no_grad():
            draws = all_sites(target.potential.joint, target.potential.constrained(unconstrained))
        draws = {name: value.cpu() for name, value in draws.items()}
        own.finish((draws, stats))
        return draws, stats
