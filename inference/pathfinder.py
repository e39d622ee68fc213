"""Pathfinder: normals found along the way to a mode, from several starts, and draws from them reweighted.

Each L-BFGS path passes regions where a normal with the local curvature fits well; the one with the largest ELBO is
kept, which need not be at the mode: a funnel's density rises without bound where no mass is. Draws from the mixture of
the paths' normals are weighted by p / q, with Pareto smoothing, and resampled.

Zhang, Carpenter, Gelman and Vehtari (2022), Pathfinder: parallel quasi-Newton variational inference, JMLR 23: the
paths (algorithms 1, 3 and 4), several of them (algorithm 2), except that a draw's weight has the density of the whole
mixture below the line, where the paper has that of its own path: Owen and Zhou (2000), Safe and effective importance
sampling, JASA 95; Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling, JMLR 25.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checkpoints import Place
from .diagnostics import MAX_K_HAT, pareto_smoothed
from .engines.batched import Batched
from .info import PathfinderInfo
from .optim.inverse_hessian import LowRankNormal, normal_at
from .optim.paths import Path, estimates_at, lbfgs_paths
from .options import at_least_one, options_by_name
from .posterior import Posterior
from .progress import Progress
from .traces.dtypes import draws_dtype
from .traces.isolate import check_seed, isolated
from .traces.prepare import prepare
from .traces.target import VectorTarget

LEAST_HISTORY, MOST_HISTORY = 6, 60  # steps remembered: two per dimension, within these bounds
ELBO_DRAWS = 8  # per place on a path
CANDIDATES = 4  # weighted draws per draw returned
CHUNK = 2**22  # numbers in the estimates of places that are worked on at once


@options_by_name
def pathfinder(
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    num_paths: int = 8,
    num_draws: int = 1000,
    max_steps: int = 500,
    params: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[PathfinderInfo]:
    """Approximate a model's posterior by Pathfinder: normals along quasi-Newton paths, reweighted.

    It takes a few hundred gradients per path, no step size and no step count, and serves as a start for `nuts`.

    Parameters
    ----------
    model : callable
        Any Pyro model; discrete latent sites are summed out.
    *data
        Arguments of the model; bind others with `functools.partial`.
    model_kwargs : mapping, optional
        Further arguments of the model by name: data or options.
    num_paths : int
        Paths, each from its own random start. Their gradients are taken in one batch.
    num_draws : int
        Draws returned, resampled from four times as many. Where k̂ is high, some are there many times.
    max_steps : int
        Steps per path at most.
    params : dict of Tensor, optional
        Values, constrained, of the model's ``pyro.param`` statements: they are held there. Default: their initial
        values, with a warning.
    seed : int
        The same seed on the same machine gives the same numbers.
    device : str or torch.device, optional
        Where the model runs. Default: the device of the data.
    progress : bool
        Whether to show a progress bar.
    checkpoint, every
        As in `svi`, but that the fit is kept when it has ended, and begins anew if it was stopped before.

    Returns
    -------
    Posterior
        ``draws`` have one chain, in random order; ``info`` is a `PathfinderInfo`.

    Raises
    ------
    ValueError
        If an option is out of range, or the model has no continuous latent site or no start.
    ArithmeticError
        If no path passed a place where a normal could be drawn from.

    Warns
    -----
    UserWarning
        If no path reached a stationary point, or parameters are held without being given.
    """
    at_least_one("pathfinder", num_paths=num_paths, num_draws=num_draws, max_steps=max_steps)
    check_seed(seed)
    prepared = prepare("pathfinder", model, data, device=device, params=params, least_dtype=torch.float64)
    if prepared.held:
        warnings.warn(
            f"pathfinder: the model's parameters {', '.join(prepared.held)} are held at their initial values, and not "
            "drawn: give params={name: value}, or priors",
            stacklevel=3,
        )
    begin, dtype = time.perf_counter(), draws_dtype(data)
    with isolated(seed, prepared.dtype), Progress("pathfinder", max_steps, progress) as bar, torch.no_grad():
        target = VectorTarget("pathfinder", prepared)
        batched = target.batched
        starts = torch.stack([batched.start, *(target.new_start() for _ in range(num_paths - 1))])
        paths = lbfgs_paths(
            lambda points, _: batched(points),
            starts,
            history=_history(batched.dim),
            num_steps=max_steps,
            report=bar.update,
        )
        bests = [_best_normal(path, batched) for path in paths]
        found = _resampled([best for best in bests if best], batched, num_draws)
        draws = target.draws(found.vectors[None], dtype)
    elbos = torch.tensor([best.elbo if best else -math.inf for best in bests], dtype=torch.float64)
    info = PathfinderInfo(
        seed=seed,
        per_row=prepared.per_row,
        seconds=time.perf_counter() - begin,
        converged=any(path.converged for path in paths),
        message="; ".join([*_words(paths, bests), *found.words, *prepared.notes]),
        elbo=found.elbo,
        k_hat=found.k_hat,
        elbos=elbos,
        num_steps=torch.tensor([len(path.places) - 1 for path in paths]),
        best_steps=torch.tensor([best.place if best else -1 for best in bests]),
        gradients=batched.gradients,
        log_weights=found.log_weights,
    )
    if not info.converged:
        warnings.warn(f"pathfinder: {info.message}", stacklevel=3)
    return Posterior(draws=draws, params=prepared.params, info=info)


def _history(dim: int) -> int:
    return min(max(LEAST_HISTORY, 2 * dim), MOST_HISTORY)


class _Best(NamedTuple):
    """The normal of a path with the largest ELBO, in nats, and the place on the path that it belongs to."""

    normal: LowRankNormal
    elbo: float
    place: int


class _Sample(NamedTuple):
    vectors: Tensor  # (draw, d)
    log_weights: Tensor  # log p - log q of the candidates, in nats, (candidate)
    elbo: float
    k_hat: float | None  # None where the weights have no tail to fit
    words: list[str]


def _best_normal(path: Path, energies: Batched) -> _Best | None:
    """Return the best normal of a path; None if it has none from which draws have a density."""
    best = None
    dim = energies.dim
    size = max(1, CHUNK // (dim * (dim + 4 * _history(dim))))
    for begin in range(0, len(path.places), size):
        some = path.places[begin : begin + size]
        at, gradient = (
            torch.stack(parts) for parts in zip(*((place.at, place.gradient) for place in some), strict=True)
        )
        normals = normal_at(at, gradient, estimates_at(some))
        good = normals.exists.nonzero()[:, 0]
        if not len(good):
            continue
        draws = normals.at(good).draws(torch.randn(len(good), ELBO_DRAWS, dim).to(at))
        energy, _ = energies(draws.flatten(0, 1))
        elbos = (-energy.unflatten(0, (-1, ELBO_DRAWS)) - normals.at(good).log_density(draws)).mean(1)
        elbo, index = elbos.nan_to_num(-math.inf, posinf=-math.inf).max(0)
        if elbo > (best.elbo if best else -math.inf):
            place = int(good[index])
            best = _Best(normals.at(place), float(elbo), begin + place)
    return best


def _resampled(bests: list[_Best], energies: Batched, num_draws: int) -> _Sample:
    """Draw from the mixture of normals in equal parts, weigh by the density, and resample."""
    if not bests:
        raise ArithmeticError(
            "pathfinder: no path passed a place where draws of a normal have a finite density: give sites a start by "
            'infer={"init": function}, or use nuts'
        )
    normals = LowRankNormal(*(torch.stack(parts) for parts in zip(*(best.normal for best in bests), strict=True)))
    each = math.ceil(CANDIDATES * num_draws / len(bests))
    by_path = normals.draws(torch.randn(len(bests), each, energies.dim).to(normals.mean))
    vectors = by_path.flatten(0, 1)
    log_p = -energies(vectors)[0]
    apart = torch.stack([normals.at(index).log_density(vectors) for index in range(len(bests))])
    log_weights = log_p - (apart.logsumexp(0) - math.log(len(bests)))
    own = torch.cat([apart[index, index * each : (index + 1) * each] for index in range(len(bests))])
    elbo = float((log_p - own).unflatten(0, (-1, each)).mean(1).max())
    good = torch.isfinite(log_weights)
    smoothed, k_hat = pareto_smoothed(log_weights[good])
    weights = smoothed.softmax(0).to(vectors)
    chosen = good.nonzero()[:, 0][_systematic(weights, num_draws)]
    distinct = len(chosen.unique())
    words = [] if k_hat is None else [f"k̂ = {k_hat:.2f}"]
    if k_hat is not None and k_hat > MAX_K_HAT:
        words = [f"k̂ = {k_hat:.2f}, above {MAX_K_HAT}: the weights are too uneven to rely on"]
    if distinct < num_draws / 2:
        words.append(f"{distinct:,} of {num_draws:,} draws are distinct")
    return _Sample(vectors[chosen], log_weights, elbo, k_hat, words)


def _systematic(weights: Tensor, count: int) -> Tensor:
    """Return indices, each about ``count`` times its weight often, in random order.

    Kitagawa (1996), Monte Carlo filter and smoother for non-Gaussian nonlinear state space models, JCGS 5.
    """
    points = (torch.arange(count).to(weights) + torch.rand(1).to(weights)) / count
    found = torch.searchsorted(weights.cumsum(0), points).clamp(max=len(weights) - 1)
    return found[torch.randperm(count, device=found.device)]


def _words(paths: list[Path], bests: list[_Best | None]) -> list[str]:
    """Return, as clauses, how the paths ended."""
    reached = sum(path.converged for path in paths)
    said = [f"{reached} of {len(paths)} paths reached a stationary point"]
    for message in dict.fromkeys(path.message for path in paths if not path.converged):
        count = sum(path.message == message for path in paths)
        said.append(f"on {count}, {message}")
    if missing := sum(best is None for best in bests):
        said.append(f"{missing} passed no place where a normal could be drawn from and were left out")
    return said
