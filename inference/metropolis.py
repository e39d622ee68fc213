"""Random-walk Metropolis with a proposal that warm-up adapts: any model, values of the density alone, no gradients.

In d dimensions a walk that suits the posterior needs about 3 d iterations for each effective draw: it is the method to
understand the others by, and the one for densities without a gradient.

References
----------
1. Haario, Saksman and Tamminen (2001), An adaptive Metropolis algorithm, Bernoulli 7: the chain's own covariance.
2. Roberts and Rosenthal (2009), Examples of adaptive MCMC, JCGS 18: its scale, from the acceptance rate.
3. Gelman, Roberts and Gilks (1996), Efficient Metropolis jumping rules, Bayesian Statistics 5: 2.38²/d, and .234.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from .engines.graph import traced
from .info import MetropolisInfo
from .mcmc.chains import Sites, Target, check_counts, run_chains
from .posterior import Posterior

MOST_DIMENSIONS = 1000  # beyond, a random walk does not arrive and the covariance does not fit
WORTH_TRACING = 2000  # iterations from which recording the graph, up to a second, pays


def metropolis(
    model: Callable,
    *data: Any,
    num_draws: int = 1000,
    num_warmup: int = 50_000,
    thin: int = 50,
    num_chains: int = 4,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Posterior[MetropolisInfo]:
    """Draw from a model's posterior by random-walk Metropolis, in unconstrained coordinates.

    Warm-up adapts the covariance of the normal proposal to the chain's own draws, the older half forgotten, and its
    scale to the best acceptance rate of a normal posterior: .234, and .44 in one dimension. Both are fixed afterwards,
    so that the draws kept come from a Markov chain. The defaults give some 1,400 effective draws (R̂ 1.003) of the
    worst of 31 weights of a logistic regression; with ``thin=20`` they are 500, and R̂ says that it is too few.

    Parameters
    ----------
    model : callable
        Any Pyro model; discrete latent sites are enumerated and summed out.
    *data
        Arguments of the model.
    num_draws : int
        Draws kept a chain.
    num_warmup : int
        Iterations before the first draw.
    thin : int
        Iterations a draw.
    num_chains : int
        Chains, each in a process of its own on as many cores as there are.
    seed : int
        Same seed, same machine, same numbers, whatever the number of cores.
    device : str or torch.device, optional
        Where the model runs, such as "cuda" (chains follow one another there); the data's own where left out.
    progress : bool
        Whether to show a bar over all chains.

    Returns
    -------
    Posterior
        ``info`` is a `MetropolisInfo`.

    Raises
    ------
    ValueError
        If an option is out of range, or the model has no continuous latent sites or too many for a random walk.

    Warns
    -----
    UserWarning
        If the chains did not mix.
    """
    check_counts("metropolis", num_draws=num_draws, num_warmup=num_warmup, thin=thin, num_chains=num_chains)
    chains = run_chains(
        "metropolis",
        partial(_sample, num_draws, num_warmup, thin),
        model,
        data,
        iterations=num_warmup + num_draws * thin,
        num_chains=num_chains,
        seed=seed,
        device=device,
        progress=progress,
    )
    because = f"drew {num_draws} in each of {num_chains} chains"
    if problem := chains.disagreement:
        because += f"; {problem}"
        warnings.warn(f"metropolis: {because}", stacklevel=2)
    info = MetropolisInfo(
        r_hat=chains.r_hat,
        ess=chains.ess,
        accept_rate=chains.figures["accept_rate"],
        step_size=chains.figures["step_size"],
        num_warmup=num_warmup,
        thin=thin,
        seconds=chains.seconds,
        seed=seed,
        converged=not problem,
        message=because,
        engine="traced" if bool(chains.figures["traced"].all()) else "eager",
    )
    return Posterior(draws=chains.draws, info=info)


class _State(NamedTuple):
    at: Tensor
    energy: float
    log_scale: float
    moves: int


def _sample(
    num_draws: int, num_warmup: int, thin: int, target: Target, report: Callable[[int], None]
) -> tuple[Sites, dict[str, float]]:
    shapes = {name: value.shape for name, value in target.start.items()}
    dim = sum(shape.numel() for shape in shapes.values())
    if not 0 < dim <= MOST_DIMENSIONS:
        raise ValueError(f"metropolis: a random walk takes 1 to {MOST_DIMENSIONS} continuous dimensions, not {dim}")
    start = torch.cat([value.flatten() for value in target.start.values()])

    def potential(at: Sites) -> Tensor:
        return target.potential(_unflattened(at["all"], shapes))

    with torch.no_grad(), pyro.validation_enabled(False):
        worth = num_warmup + num_draws * thin >= WORTH_TRACING
        graph = traced(potential, {"all": start}, gradient=False) if worth else None
        energy = graph or potential
        state, factor = _warm_up(energy, start, num_warmup, report)
        draws = start.new_empty(num_draws, dim)
        state = state._replace(moves=0)
        for draw in range(num_draws):
            state, _ = _walk(energy, state, factor, thin)
            draws[draw] = state.at
            if draw % max(1, 1000 // thin) == 0 or draw == num_draws - 1:
                report(num_warmup + (draw + 1) * thin)
    return _unflattened(draws, shapes), {
        "accept_rate": state.moves / (num_draws * thin),
        "step_size": math.exp(state.log_scale),
        "traced": graph is not None,
    }


def _warm_up(
    energy: Callable[[Sites], Tensor], start: Tensor, num_warmup: int, report: Callable[[int], None]
) -> tuple[_State, Tensor]:
    """State after warm-up, and the root of the proposal's covariance."""
    usual = math.log(2.38 / math.sqrt(len(start)))
    state = _State(start, float(energy({"all": start})), usual, 0)
    factor, learnt = torch.eye(len(start), dtype=start.dtype, device=start.device), False
    history: list[Tensor] = []
    for time in [*_renewals(num_warmup, len(start)), num_warmup]:
        gains = [iteration**-0.6 for iteration in range(len(history) + 1, time + 1)]
        state, path = _walk(energy, state, factor, len(gains), gains)
        history += path
        report(time)
        root = _root(history[time // 2 :]) if time < num_warmup else None
        if root is not None:
            state = state if learnt else state._replace(log_scale=usual)
            factor, learnt = root, True
    return state, factor


def _renewals(num_warmup: int, dim: int) -> list[int]:
    """Iterations after which the covariance is renewed, ever farther apart; the last tenth is left to the scale."""
    time, last = max(100, 20 * dim), num_warmup * 9 // 10
    times = []
    while time < last:
        times.append(time)
        time = int(1.2 * time)
    return [*times, last] if times else []


def _root(points: list[Tensor]) -> Tensor | None:
    """Root of the points' covariance, drawn a little towards its diagonal; None where a coordinate has not moved."""
    dim = len(points[0])
    covariance = torch.stack(points).mT.cov().reshape(dim, dim)
    shrunk = torch.lerp(covariance, covariance.diag().diag(), 5 / (len(points) + 5))
    root, failed = torch.linalg.cholesky_ex(shrunk)
    return None if failed else root


def _walk(
    energy: Callable[[Sites], Tensor], state: _State, factor: Tensor, length: int, gains: list[float] | None = None
) -> tuple[_State, list[Tensor]]:
    """So many iterations, and all the points they went through; with gains, the scale follows the acceptance rate."""
    at, now, log_scale, moves = state
    aim = 0.44 if len(at) == 1 else 0.234
    scale = math.exp(log_scale)
    steps = torch.randn(length, len(at), dtype=at.dtype, device=at.device) @ factor.mT
    chances = torch.rand(length, dtype=torch.float64).tolist()
    path = []
    for iteration, chance in enumerate(chances):
        proposal = torch.add(at, steps[iteration], alpha=scale)
        proposed = _value(energy, proposal)
        accept = math.exp(min(0.0, now - proposed)) if math.isfinite(proposed) else 0.0
        if chance < accept:
            at, now, moves = proposal, proposed, moves + 1
        path.append(at)
        if gains is not None:
            log_scale += gains[iteration] * (accept - aim)
            scale = math.exp(log_scale)
    return _State(at, now, log_scale, moves), path


def _value(energy: Callable[[Sites], Tensor], at: Tensor) -> float:
    try:
        return float(energy({"all": at}))
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        return math.nan


def _unflattened(values: Tensor, shapes: dict[str, torch.Size]) -> Sites:
    """Vectors (…, dimension) as sites (…, *site)."""
    parts = values.split([shape.numel() for shape in shapes.values()], -1)
    leading = values.shape[:-1]
    return {name: part.reshape(leading + shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
