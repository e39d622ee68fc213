"""The methods: each turns draws or weights into the fields of an `Evidence`."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..mcmc.annealing import anneal, evaluator, pilot
from ..mcmc.latent_vector import LatentVector
from ..posterior import Posterior
from ..traces.vmap import map_rows
from .bridge import bridge
from .weights import diagnose, guide_density, independent, log_mean, start_draws

Draws = Posterior | Mapping[str, Tensor]


def kept_weights(method: str, posterior: Draws | None, count: int | None) -> Tensor:
    """Return ``count`` of the log weights in a posterior by svi, or all; shape (draw, 1)."""
    kept = getattr(getattr(posterior, "info", None), "log_weights", None)
    if kept is None:
        raise ValueError(f"{method}: the posterior has no weights of a guide: give one by svi, or a fitted guide")
    if count is not None and count > len(kept):
        raise ValueError(f"{method}: num_draws is {count}, and the posterior has {len(kept)} weights")
    return kept[:count, None]


def from_weights(method: str, log_weights: Tensor, particles: int) -> dict[str, Any]:
    """Return the fields of an `Evidence` from independent weights, shape (draw, row)."""
    means = independent(log_weights)
    estimate, error = means.estimate, means.error
    diagnostics = diagnose(log_weights, means)
    if method == "iwae":
        groups = len(log_weights) // particles
        if groups < 2:
            raise ValueError(f"iwae: {len(log_weights)} weights are fewer than two groups of {particles}")
        grouped = log_weights[: groups * particles].double().reshape(groups, particles, -1)
        bounds = grouped.logsumexp(1) - math.log(particles)
        estimate, error = bounds.mean(0), bounds.std(0) / groups**0.5
        diagnostics["num_particles"] = particles
        del diagnostics["bias"]
    return _fields(estimate, error, "lower", diagnostics)


def _fields(estimate: Tensor, error: Tensor, bound: str, diagnostics: dict[str, Any]) -> dict[str, Any]:
    return {
        "estimate": float(estimate.sum()),
        "error": float(error.square().sum().sqrt()),
        "bound": bound,
        "diagnostics": diagnostics,
        "per_row": estimate.cpu(),
    }


def posterior_draws(method: str, posterior: Draws | None, latents: LatentVector, count: int | None = None) -> Tensor:
    """Return ``count`` draws of the posterior, evenly thinned and unconstrained; shape (chain, draw, block, size)."""
    given = posterior.draws if isinstance(posterior, Posterior) else posterior or {}
    for name in latents.names:
        if name not in given:
            raise ValueError(f"{method}: the posterior has no draws of the model's site {name!r}")
    sites = {name: given[name].to(latents.start) for name in latents.names}
    chains, length = next(iter(sites.values())).shape[:2]
    if count is not None:
        if count > chains * length:
            raise ValueError(f"{method}: num_draws is {count}, and the posterior has {chains * length} draws")
        kept = torch.linspace(0, length - 1, max(1, count // chains)).round().long()
        sites = {name: value[:, kept] for name, value in sites.items()}
    sites = {name: value.flatten(0, 1) for name, value in sites.items()}
    matrix = map_rows(latents.matrix, sites, chunk_size=latents.chunk)
    if not torch.isfinite(matrix).all():
        raise ValueError(f"{method}: a draw of the posterior lies on the edge of its site's support, or outside it")
    return matrix.unflatten(0, (chains, -1))


def bridged(latents: LatentVector, draws: Tensor, count: int) -> dict[str, Any]:
    """Return the fields of an `Evidence` by `bridge`, from draws of the posterior, (chain, draw, block, size)."""
    found = bridge(lambda at: map_rows(latents.log_terms, at, chunk_size=latents.chunk).sum(1), draws, count or None)
    diagnostics = {
        "iterations": found.iterations,
        "converged": found.converged,
        "relative_mse": float(found.relative_mse.max()),
        "posterior_ess": float(found.posterior_ess.min()),
    }
    return _fields(found.estimate, found.relative_mse.sqrt(), "none", diagnostics)


def annealed(
    latents: LatentVector,
    model: Callable,
    guide: Callable | None,
    data: tuple,
    ends: Tensor | None,
    count: int,
    betas: Tensor,
    num_leapfrogs: int,
) -> dict[str, Any]:
    """Return the fields of an `Evidence` from a path between the prior, or the guide, and the posterior.

    With draws of the posterior, ``ends``, shape (chain, draw, block, size), the path leads down; else up, with
    ``count`` particles.
    """
    log_q = None if guide is None else guide_density(guide, latents, data)

    def terms(at: Tensor) -> Tensor:
        found = latents.log_terms(at)
        if log_q is None:
            return found
        start = log_q(at)
        return torch.stack([start, found.sum(0) - start])

    count = count if ends is None else len(ends.flatten(0, 1))
    start = start_draws(latents, guide or model, data, count)
    evaluations = (len(betas) - 1) * (num_leapfrogs + 1)
    evaluate = evaluator(lambda at: map_rows(terms, at, chunk_size=latents.chunk).movedim(0, 1), start, evaluations)
    moves = pilot(evaluate, start, betas, num_leapfrogs)
    if ends is None:
        start = start_draws(latents, guide or model, data, count)
        run = anneal(evaluate, start, betas, moves, num_leapfrogs)
        means, sign, bound = independent(run.log_weights), 1, "lower"
    else:
        run = anneal(evaluate, ends.flatten(0, 1), betas, moves, num_leapfrogs, reverse=True)
        means, sign, bound = log_mean(run.log_weights.unflatten(0, ends.shape[:2])), -1, "upper"
    diagnostics = diagnose(run.log_weights, means)
    diagnostics["mean_log_weight"] *= sign
    diagnostics["bias"] *= sign
    tenths = [float(part.mean()) for part in run.accept_rates.chunk(10) if len(part)] or [1.0]
    diagnostics |= {
        "num_temperatures": len(betas) - 1,
        "accept_rate": sum(tenths) / len(tenths),
        "least_accept_rate": min(tenths),
    }
    return _fields(sign * means.estimate, means.error, bound, diagnostics)
