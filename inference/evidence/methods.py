"""The methods: each turns draws or weights into the fields of an `Evidence`."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..mcmc.annealing import anneal, evaluator, pilot
from ..mcmc.latent_vector import LatentVector
from ..posterior import Posterior
from ..traces.draws import Sites
from ..traces.vmap import map_rows
from .bridge import bridge
from .means import diagnose, independent, log_mean, mean_bound
from .tails import Beyond
from .weights import draw_sites, guide_density, unconstrained

Draws = Posterior | Mapping[str, Tensor]


def kept_weights(method: str, posterior: Draws | None, count: int | None, names: list[str]) -> tuple[Tensor, Sites]:
    """Return ``count`` of the log weights in a posterior by svi, or all, and the draws of the sites that it has.

    Shapes (draw, 1) and (draw, *site).
    """
    kept = getattr(getattr(posterior, "info", None), "log_weights", None)
    if kept is None or not isinstance(posterior, Posterior):
        raise ValueError(f"{method}: the posterior has no weights of a guide: give one by svi, or a fitted guide")
    if count is not None and count > len(kept):
        raise ValueError(f"{method}: num_draws is {count}, and the posterior has {len(kept)} weights")
    draws = {name: posterior.draws[name].flatten(0, 1)[:count] for name in names if name in posterior.draws}
    return kept[:count, None], draws


def from_weights(method: str, log_weights: Tensor, particles: int, edge: Beyond | None = None) -> dict[str, Any]:
    """Return the fields of an `Evidence` from independent weights, shape (draw, row)."""
    means = independent(log_weights, edge)
    estimate, error = means.estimate, means.error
    diagnostics = diagnose(log_weights, means)
    if method == "iwae":
        estimate, error = mean_bound(log_weights, particles)
        diagnostics["num_particles"] = particles
        del diagnostics["bias"]
    if edge is not None:
        diagnostics |= {"mass_beyond": float(edge.mass.max()), "site_beyond": edge.site}
    return _fields(estimate, error, "lower", diagnostics)


def _fields(estimate: Tensor, error: Tensor, bound: str, diagnostics: dict[str, Any]) -> dict[str, Any]:
    return {
        "estimate": float(estimate.sum()),
        "error": float(error.square().sum().sqrt()),
        "bound": bound,
        "diagnostics": diagnostics,
        "per_row": estimate.cpu(),
    }


def exact(log_likelihood: float) -> dict[str, Any]:
    """Return the fields of an `Evidence` of a model without latent sites."""
    return {"estimate": log_likelihood, "error": 0.0, "bound": "none", "diagnostics": {}}


def posterior_chains(method: str, posterior: Draws | None, latent: Sites) -> Sites:
    """Return a posterior's draws of the model's latent sites, (chain, draw, *site), typed as the model's values."""
    given = posterior.draws if isinstance(posterior, Posterior) else posterior or {}
    for name in latent:
        if name not in given:
            raise ValueError(f"{method}: the posterior has no draws of the model's site {name!r}")
    return {name: given[name].to(value) for name, value in latent.items()}


def thinned(method: str, chains: Sites, count: int) -> Sites:
    """Return ``count`` of a posterior's draws, (chain, draw, *site), evenly spaced."""
    number, length = next(iter(chains.values())).shape[:2]
    if count > number * length:
        raise ValueError(f"{method}: num_draws is {count}, and the posterior has {number * length} draws")
    kept = torch.linspace(0, length - 1, max(1, count // number)).round().long()
    return {name: value[:, kept] for name, value in chains.items()}


def unconstrained_chains(method: str, latents: LatentVector, chains: Sites) -> Tensor:
    """Return a posterior's draws, (chain, draw, *site), unconstrained; shape (chain, draw, block, size)."""
    number = len(next(iter(chains.values())))
    matrix = unconstrained(latents, {name: value.flatten(0, 1) for name, value in chains.items()})
    if not torch.isfinite(matrix).all():
        raise ValueError(f"{method}: a draw of the posterior lies on the edge of its site's support, or outside it")
    return matrix.unflatten(0, (number, -1))


def bridged(latents: LatentVector, draws: Tensor, count: int) -> dict[str, Any]:
    """Return the fields of an `Evidence` by `bridge`, from draws of the posterior, (chain, draw, block, size)."""
    found = bridge(lambda at: map_rows(latents.log_terms, at, chunk_size=latents.chunk).sum(1), draws, count or None)
    diagnostics = {
        "iterations": found.iterations,
        "converged": found.converged,
        "relative_mse": float(found.relative_mse.max()),
        "posterior_ess": float(found.posterior_ess.min()),
        "r_hat": float(found.r_hat.max()),
    }
    return _fields(found.estimate, found.relative_mse.sqrt(), "none", diagnostics)


def annealed(
    latents: LatentVector,
    prior: Callable,
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
    start = unconstrained(latents, draw_sites(guide or prior, data, count, latents.chunk))
    evaluations = (len(betas) - 1) * (num_leapfrogs + 1)
    evaluate = evaluator(lambda at: map_rows(terms, at, chunk_size=latents.chunk).movedim(0, 1), start, evaluations)
    moves = pilot(evaluate, start, betas, num_leapfrogs)
    if ends is None:
        start = unconstrained(latents, draw_sites(guide or prior, data, count, latents.chunk))
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
