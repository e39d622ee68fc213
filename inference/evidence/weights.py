"""Importance weights from the prior or a guide, and their diagnostics."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from ..diagnostics import ess, k_hat
from ..mcmc.latent_vector import LatentVector, has_density, is_by_row
from ..traces.draws import Sites, draw_chunk
from ..traces.guides import is_point
from ..traces.params import trace_at
from ..traces.sites import nodes
from ..traces.vmap import map_rows

MIN_FOR_K_HAT = 100  # weights


class Mean(NamedTuple):
    """The logarithm of a mean of weights, per block."""

    estimate: Tensor  # log of the mean weight, in nats
    error: Tensor  # its standard error by the delta method, in nats
    ess: Tensor  # (Σ w)² / Σ w²


def log_mean(log_weights: Tensor) -> Mean:
    """Return the log of the mean of weights in nats, shape (chain, draw, block), of Markov chains.

    Autocorrelation enters by the effective sample size; with fewer than four draws per chain all count as independent.
    """
    log_weights = log_weights.detach().cpu().double()
    draws = log_weights.shape[1]
    flat = log_weights.flatten(0, 1)
    count = len(flat)
    estimate = flat.logsumexp(0) - math.log(count)
    relative = (flat - flat.amax(0)).exp()
    relative = relative / relative.mean(0)
    spread = relative.std(0)
    size = torch.full_like(spread, count)
    if draws >= 4:
        size = torch.minimum(size, ess(log_weights).nan_to_num(float(count)))
    return Mean(estimate, spread / size.sqrt(), count / relative.square().mean(0))


def independent(log_weights: Tensor) -> Mean:
    """`log_mean` of independent weights, shape (draw, block)."""
    return log_mean(log_weights.unsqueeze(1))


def diagnose(log_weights: Tensor, means: Mean) -> dict[str, Any]:
    """Return the effective sample size and k̂ of the worst block, the mean log weight, and the estimate's bias.

    ``log_weights`` have shape (draw, block), and ``means`` is their `log_mean`.
    """
    worst = int(means.ess.argmin())
    shape = None
    if len(log_weights) >= MIN_FOR_K_HAT:
        with suppress(ValueError):  # all weights are the same
            shape = k_hat(log_weights[:, worst])
    return {
        "ess": float(means.ess[worst]),
        "k_hat": shape,
        "mean_log_weight": float(log_weights.double().mean(0).sum()),
        "bias": -0.5 * float(means.error.square().sum()),
    }


def _is_observed(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and site["is_observed"]


def draw_sites(function: Callable, data: tuple, count: int, chunk: int) -> Sites:
    """Return draws of all unobserved sites of a model or guide, auxiliary ones included; shape (draw, *site)."""
    hidden = poutine.block(function, hide_fn=_is_observed)
    drawer = function if isinstance(function, AutoGuide) else hidden
    parts = [draw_chunk(drawer, data, min(chunk, count - start))[0] for start in range(0, count, chunk)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def guide_weights(latents: LatentVector, model: Callable, guide: Callable | None, data: tuple, count: int) -> Tensor:
    """Return log p(x, z) - log q(z) at draws of the guide, or log p(x | z) at the prior's; shape (draw, block)."""
    steering = [] if guide is None else guide_sites(guide, latents, data)

    def one(draw: Sites) -> Tensor:
        if guide is None:
            return latents.by_block(trace_at(model, draw, data), lambda name: name not in latents.names)
        of_guide = trace_at(guide, {name: draw[name] for name in steering}, data)
        of_model = trace_at(model, {name: draw[name] for name in latents.names}, data)
        return latents.by_block(of_model) - latents.by_block(of_guide)

    return map_rows(one, draw_sites(guide or model, data, count, latents.chunk), chunk_size=latents.chunk)


def start_draws(latents: LatentVector, function: Callable, data: tuple, count: int) -> Tensor:
    """Return draws of a model's prior, or of a guide, unconstrained; shape (draw, block, size)."""
    sites = draw_sites(function, data, count, latents.chunk)
    return map_rows(latents.matrix, {name: sites[name] for name in latents.names}, chunk_size=latents.chunk)


def fits_rows(guide: Callable, latents: LatentVector, data: tuple) -> bool:
    """Whether the guide, which must cover all latent sites and not be a point, is a product over the rows as well."""
    trace = poutine.trace(guide).get_trace(*data)
    for name in latents.names:
        if name not in trace.nodes:
            raise ValueError(f"evidence: the guide lacks the model's site {name!r}")
    if is_point(guide, data):
        raise ValueError("evidence: the guide is a point, which has no weights")
    return is_by_row(trace, data)


def guide_sites(guide: Callable, latents: LatentVector, data: tuple) -> list[str]:
    """Return the random sites of a guide: the model's own, or the auxiliary ones of an autoguide that determine them.

    With further random sites its density is an integral: that is a ValueError.
    """
    trace = poutine.trace(guide).get_trace(*data)
    extra = [name for name, node in nodes(trace).items() if has_density(node) and name not in latents.names]
    if _is_flat(extra, trace, latents):
        return extra
    behind = {f"{name}_unconstrained": name for name in latents.names}
    for name in extra:
        if name not in behind:
            raise ValueError(f"evidence: the guide's site {name!r} is not in the model: its density is an integral")
    return [*extra, *(name for name in latents.names if name not in {behind[one] for one in extra})]


def guide_density(guide: Callable, latents: LatentVector, data: tuple) -> Callable[[Tensor], Tensor]:
    """Return a guide's log density on the unconstrained scale, (block, size) → (block,); raises as `guide_sites`."""
    steering = guide_sites(guide, latents, data)
    trace = poutine.trace(guide).get_trace(*data)
    flat = _is_flat(steering, trace, latents)

    def log_q(matrix: Tensor) -> Tensor:
        if flat:
            given = {steering[0]: matrix.reshape(nodes(trace)[steering[0]]["value"].shape)}
        else:
            behind = {f"{name}_unconstrained": value for name, value in latents.unconstrained(matrix).items()}
            given = {name: value for name, value in (latents.sites(matrix) | behind).items() if name in steering}
        return latents.by_block(trace_at(guide, given, data)) + latents.log_jacobian(matrix)

    return log_q


def _is_flat(names: list[str], trace: poutine.Trace, latents: LatentVector) -> bool:
    """Whether one auxiliary site of a guide holds all latent variables, unconstrained and in order."""
    if len(names) != 1 or names[0] in latents.names or names[0].endswith("_unconstrained"):
        return False
    return nodes(trace)[names[0]]["value"].numel() == latents.start.numel()
