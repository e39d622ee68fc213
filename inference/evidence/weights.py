"""Importance weights from the prior or a guide."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from ..mcmc.latent_vector import LatentVector, has_density, is_by_row
from ..traces.draws import Sites, draw_chunk
from ..traces.guides import is_point
from ..traces.params import trace_at
from ..traces.sites import nodes
from ..traces.vmap import map_rows


def _is_observed(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and site["is_observed"]


def draw_sites(function: Callable, data: tuple, count: int, chunk: int) -> Sites:
    """Return draws of all unobserved sites of a model or guide, auxiliary ones included; shape (draw, *site)."""
    hidden = poutine.block(function, hide_fn=_is_observed)
    drawer = function if isinstance(function, AutoGuide) else hidden
    parts = [draw_chunk(drawer, data, min(chunk, count - start))[0] for start in range(0, count, chunk)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def prior_weights(latents: LatentVector, model: Callable, prior: Callable, data: tuple, count: int) -> Tensor:
    """Return log p(x | z) at draws of the prior; shape (draw, block)."""

    def one(draw: Sites) -> Tensor:
        return latents.by_block(trace_at(model, draw, data), lambda name: name not in latents.names)

    return map_rows(one, draw_sites(prior, data, count, latents.chunk), chunk_size=latents.chunk)


def guide_weights(
    latents: LatentVector, model: Callable, guide: Callable, data: tuple, count: int
) -> tuple[Tensor, Sites]:
    """Return log p(x, z) - log q(z) at draws of the guide, shape (draw, block), and the draws of the latent sites."""
    steering = guide_sites(guide, latents, data)

    def one(draw: Sites) -> Tensor:
        of_guide = trace_at(guide, {name: draw[name] for name in steering}, data)
        of_model = trace_at(model, {name: draw[name] for name in latents.names}, data)
        return latents.by_block(of_model) - latents.by_block(of_guide)

    draws = draw_sites(guide, data, count, latents.chunk)
    return map_rows(one, draws, chunk_size=latents.chunk), {name: draws[name] for name in latents.names}


def unconstrained(latents: LatentVector, draws: Mapping[str, Tensor]) -> Tensor:
    """Return draws of the latent sites, shape (draw, *site), as (draw, block, size)."""
    return map_rows(latents.matrix, {name: draws[name] for name in latents.names}, chunk_size=latents.chunk)


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
