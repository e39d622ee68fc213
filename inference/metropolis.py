"""Random-walk Metropolis with an adapted proposal: any model, values of the density alone, no gradients.

In d dimensions a random walk needs about 3 d iterations per effective draw even if it suits the posterior. It is the
method by which to understand the others, and the one for densities without a gradient.

Haario, Saksman and Tamminen (2001), An adaptive Metropolis algorithm, Bernoulli 7: the chain's own covariance; Roberts
and Rosenthal (2009), Examples of adaptive MCMC, JCGS 18: its scale, from the acceptance rate; Gelman, Roberts and Gilks
(1996), Efficient Metropolis jumping rules, Bayesian Statistics 5: 2.38²/d, and .234.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checkpoints import Checkpoint, Place, states_of
from .engines.graph import traced
from .info import MetropolisInfo
from .mcmc.chains import ChainOptions, ChainState, Target, prepare_chains, run_chains, warn_unless_converged
from .mcmc.resume import begin
from .options import options_by_name
from .posterior import Posterior
from .traces.validation import unvalidated
from .traces.vectors import Sites, as_sites, as_vector

MAX_DIMENSIONS = 1000  # beyond, a random walk does not arrive and the covariance cannot be learned
WORTH_TRACING = 2000  # iterations from which recording the graph, up to a second, pays


@options_by_name
def metropolis(
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    num_draws: int = 1000,
    num_warmup: int = 50_000,
    thin: int = 50,
    num_chains: int = 4,
    init: Posterior | None = None,
    params: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[MetropolisInfo]:
    """Draw from a model's posterior by random-walk Metropolis, in unconstrained coordinates.

    Warm-up adapts the covariance of the normal proposal to the chain's recent half, and its scale to the acceptance
    rate that is best for a normal posterior: .234, or .44 in one dimension. Both are fixed afterwards, so the draws
    kept come from a Markov chain. The defaults give about 1,400 effective draws (R̂ 1.003) of the worst of 31 weights
    of a logistic regression; ``thin=20`` gives 500, and R̂ says that this is too few.

    Parameters
    ----------
    model, *data, model_kwargs, num_draws, num_chains, params, seed, device, progress
        As in `nuts`.
    num_warmup : int
        Iterations per chain before the first draw. 0 goes on with the chains of ``init``, a posterior by `metropolis`.
    thin : int
        Iterations per draw.
    init : Posterior, optional
        A posterior of this model, by any method that gives draws, at which chains start.
    checkpoint, every
        As in `svi`, but that a chain is kept when it has ended, and begins anew if it was stopped before.

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
        If chains never moved or disagree.
    """
    options = ChainOptions(num_draws, num_warmup, num_chains, seed, device, progress, thin)
    options.check("metropolis", init)
    prepared = prepare_chains("metropolis", model, data, options, params)
    options, start, states = begin("metropolis", init, prepared, options)
    sampler = partial(_sample, options)
    begins = states or (start and start.starts)
    chains = run_chains("metropolis", sampler, prepared, options, states_of(checkpoint), begins)
    engine = "traced" if bool(chains.sample_stats["traced"].all()) else "eager"
    record, proposal = chains.record(options._replace(seed=seed)), chains.sample_stats["proposal"]
    info = MetropolisInfo(**record, thin=thin, engine=engine, proposal=proposal)
    warn_unless_converged(info)
    return Posterior(draws=chains.draws, params=prepared.params, info=info)


Energy = Callable[[Tensor], float]  # negative log density, in nats; nan where there is none


class _State(NamedTuple):
    position: Tensor
    energy: float
    log_scale: float
    num_accepted: int


def _sample(
    options: ChainOptions,
    target: Target,
    report: Callable[[int], object],
    before: ChainState | None,
    states: Checkpoint,
) -> tuple[Sites, dict[str, Any]]:
    shapes = {name: value.shape for name, value in target.start.items()}
    start = as_vector(target.start)
    if not 0 < len(start) <= MAX_DIMENSIONS:
        raise ValueError(
            f"metropolis: a random walk takes 1 to {MAX_DIMENSIONS} continuous dimensions, not {len(start)}"
        )

    def potential(at: Sites) -> Tensor:
        return target.potential(as_sites(at["all"], shapes))

    def energy(position: Tensor) -> float:
        try:
            return float(density({"all": position}))
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            return math.nan

    with torch.no_grad(), unvalidated():
        worth = options.iterations >= WORTH_TRACING
        graph = traced(potential, {"all": start}, gradient=False) if worth else None
        density = graph or potential
        if before is None:
            state, factor = _warm_up(energy, start, options.num_warmup, report)
        else:
            state, factor = _State(start, energy(start), math.log(before.step_size), 0), before.metric.to(start)
        state = state._replace(num_accepted=0)
        draws = start.new_empty(options.num_draws, len(start))
        for draw in range(options.num_draws):
            state, _ = _walk(energy, state, factor, options.thin)
            draws[draw] = state.position
            if draw % max(1, 1000 // options.thin) == 0 or draw == options.num_draws - 1:
                report(options.num_warmup + (draw + 1) * options.thin)
    return as_sites(draws, shapes), {
        "accept_rate": state.num_accepted / (options.num_draws * options.thin),
        "step_size": math.exp(state.log_scale),
        "traced": graph is not None,
        "ends": state.position.cpu(),
        "proposal": factor.cpu(),
    }


def _warm_up(energy: Energy, start: Tensor, num_warmup: int, report: Callable[[int], object]) -> tuple[_State, Tensor]:
    """Return the state after warm-up and a root of the proposal's covariance.

    The covariance is updated ever less often, and for the last time after nine tenths: the rest tunes the scale alone.
    """
    dim, last = len(start), num_warmup * 9 // 10
    ends, end = [], max(100, 20 * dim)
    while end < last:
        ends.append(end)
        end = int(1.2 * end)
    ends += [last] if ends else []

    optimal = math.log(2.38 / math.sqrt(dim))  # for a proposal with the posterior's covariance
    state = _State(start, energy(start), optimal, 0)
    factor, learned = torch.eye(dim, dtype=start.dtype, device=start.device), False
    path: list[Tensor] = []
    for end in [*ends, num_warmup]:
        gains = [iteration**-0.6 for iteration in range(len(path) + 1, end + 1)]
        state, points = _walk(energy, state, factor, len(gains), gains)
        path += points
        report(end)
        if end < num_warmup and (root := _covariance_root(path[end // 2 :])) is not None:
            state = state if learned else state._replace(log_scale=optimal)
            factor, learned = root, True
    return state, factor


def _covariance_root(points: list[Tensor]) -> Tensor | None:
    """Return the Cholesky factor of the points' covariance, slightly shrunk; None if a coordinate has not moved."""
    dim = len(points[0])
    covariance = torch.stack(points).mT.cov().reshape(dim, dim)
    shrunk = torch.lerp(covariance, covariance.diag().diag(), 5 / (len(points) + 5))
    root, failed = torch.linalg.cholesky_ex(shrunk)
    return None if failed else root


def _walk(
    energy: Energy, state: _State, factor: Tensor, length: int, gains: list[float] | None = None
) -> tuple[_State, list[Tensor]]:
    """Run ``length`` iterations and return all points visited; with gains, the scale follows the acceptance rate."""
    at, now, log_scale, accepted = state
    target = 0.44 if len(at) == 1 else 0.234
    scale = math.exp(log_scale)
    steps = torch.randn(length, len(at), dtype=at.dtype, device=at.device) @ factor.mT
    uniforms = torch.rand(length, dtype=torch.float64).tolist()
    path = []
    for iteration, uniform in enumerate(uniforms):
        proposal = torch.add(at, steps[iteration], alpha=scale)
        proposed = energy(proposal)
        accept_prob = math.exp(min(0.0, now - proposed)) if math.isfinite(proposed) else 0.0
        if uniform < accept_prob:
            at, now, accepted = proposal, proposed, accepted + 1
        path.append(at)
        if gains is not None:
            log_scale += gains[iteration] * (accept_prob - target)
            scale = math.exp(log_scale)
    return _State(at, now, log_scale, accepted), path
