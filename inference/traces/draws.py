"""Draws from a fitted guide, and the model's deterministic sites at given draws, for any model and guide.

The model runs on one draw at a time, as its author wrote it; ``torch.vmap`` runs many at once. The guide runs under a
plate to the left of its own plates. Where the guide does not support that (its draws and densities under the plate
must be those without it), or vmap does not support the model, draws are made one by one.
"""

from collections.abc import Callable
from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from torch import Tensor

from ..options import size_of
from .log_joint import LogJoint
from .params import trace_pair
from .sites import is_deterministic, is_latent, is_local, is_plate, nodes, plate_depth
from .supports import UNCONSTRAINED
from .validation import unvalidated
from .vmap import UNMAPPABLE, map_rows

Sites = dict[str, Tensor]
DRAWS = "guidebook draws"  # the plate under which a guide runs
MAX_LOCAL = 10_000_000  # numbers that draws of local sites may have and still be kept by default


class GuideDraws(NamedTuple):
    """Draws of a guide, replayed through the model."""

    sites: Sites  # (draw, *site): latent and deterministic sites of the model
    log_weights: Tensor | None  # log p(x, z) - log q(z) in nats; None if the guide lacks some latent site of the model


def draw_guide(joint: LogJoint, guide: Callable, num_draws: int, local: bool | None = True) -> GuideDraws:
    """Draw from a fitted guide and weigh each draw by the model.

    ``local`` says whether to keep local sites, those with one value per row, which count towards the weights either
    way; default: only if they have at most `MAX_LOCAL` numbers.
    """
    data = joint.data
    with torch.no_grad(), unvalidated():
        guide_trace, model_trace = trace_pair(joint.model, guide, data)
    sites = nodes(model_trace)
    latent = {name for name, site in sites.items() if is_latent(site) and name not in joint.summed}
    covered = latent <= set(guide_trace.nodes)
    latent &= set(guide_trace.nodes)
    in_rows = {name for name, site in sites.items() if "value" in site and is_local(site, data)}
    if local is None:
        kept = (sites[name] for name in in_rows if name in latent or is_deterministic(sites[name]))
        local = num_draws * sum(site["value"].numel() for site in kept) <= MAX_LOCAL
    dropped = set() if local else in_rows
    dropped |= {name for name in sites if name.endswith(UNCONSTRAINED)}

    def replay(draw: Sites) -> tuple[Sites, Tensor]:
        log_p, trace = joint.at(draw)
        if joint.moves_with_discrete:
            trace = joint.with_discrete(draw)
        found = {name: s["value"] for name, s in nodes(trace).items() if is_deterministic(s) and name not in dropped}
        return found, log_p

    if not latent:
        with torch.no_grad():
            found, _ = replay({})
        return GuideDraws({name: value.unsqueeze(0) for name, value in found.items()}, None)
    size = chunk_size_for(data, sum(sites[name]["value"].numel() for name in latent))
    parts: list[tuple[Sites, Tensor]] = []
    with torch.no_grad(), unvalidated():
        for start in range(0, num_draws, size):
            values, log_q = draw_chunk(guide, data, min(size, num_draws - start))
            values = {name: values[name].detach() for name in latent}
            deterministic, log_p = map_rows(replay, values, chunk_size=size)
            parts.append(({n: v for n, v in values.items() if n not in dropped} | deterministic, log_p - log_q))
    joined = {name: torch.cat([part[name] for part, _ in parts]) for name in parts[0][0]}
    return GuideDraws(joined, torch.cat([weights for _, weights in parts]) if covered else None)


def all_sites(joint: LogJoint, draws: Sites) -> Sites:
    """Return latent draws, shape (draw, *site), together with the model's deterministic sites at each of them.

    Where those depend on discrete sites that are summed out, these are drawn from their exact posterior given the
    draw. Sites that only stand for others (`OwnSupport`) are left out.
    """
    summed = joint.moves_with_discrete

    def deterministic(latent: Sites) -> Sites:
        trace = joint.with_discrete(latent) if summed else joint.trace(latent)
        return {name: site["value"] for name, site in nodes(trace).items() if is_deterministic(site)}

    size = chunk_size_for(joint.data, sum(value[0].numel() for value in draws.values()))
    with torch.no_grad(), unvalidated():
        some = deterministic({name: value[0] for name, value in draws.items()})
        found = draws | (map_rows(deterministic, draws, chunk_size=size) if some else {})
    return {name: value for name, value in found.items() if not name.endswith(UNCONSTRAINED)}


def draw_chunk(guide: Callable, data: tuple, num_draws: int) -> tuple[Sites, Tensor]:
    """Return values of the guide's sites, shape (draw, *site), and its log density at each draw."""
    single = poutine.trace(guide).get_trace(*data)
    names = [name for name in single.stochastic_nodes if not is_plate(nodes(single)[name])]
    shapes = {name: nodes(single)[name]["value"].shape for name in names}
    try:
        with pyro.plate(DRAWS, num_draws, dim=-1 - plate_depth(single)):
            batch = poutine.trace(guide).get_trace(*data)
        batch.compute_log_prob()
        values = {name: nodes(batch)[name]["value"].reshape(num_draws, *shape) for name, shape in shapes.items()}
        terms = [nodes(batch)[name]["log_prob"] for name in names]
        terms = [term.expand(num_draws, *term.shape[1:]).reshape(num_draws, -1).sum(-1) for term in terms]
        log_q = torch.as_tensor(sum(terms))
        supported = isinstance(guide, AutoGuide)  # Pyro's own support a plate
        if supported or all(_agrees(guide, data, single, values, log_q, draw) for draw in {0, num_draws - 1}):
            return values, log_q
    except (*UNMAPPABLE, IndexError):
        pass
    draws: list[tuple[Sites, Tensor]] = []
    for _ in range(num_draws):
        trace = poutine.trace(guide).get_trace(*data)
        draws.append(({name: nodes(trace)[name]["value"] for name in names}, torch.as_tensor(trace.log_prob_sum())))
    values = {name: torch.stack([draw[name] for draw, _ in draws]) for name in names}
    return values, torch.stack([log_q for _, log_q in draws])


def _agrees(guide: Callable, data: tuple, single: Trace, values: Sites, log_q: Tensor, draw: int) -> bool:
    """Whether the guide, replayed alone at one of the draws, returns that draw and its density."""
    given = single.copy()
    for name in values:
        given.nodes[name] = given.nodes[name] | {"value": values[name][draw]}
    again = poutine.trace(poutine.replay(guide, trace=given)).get_trace(*data)
    same = all(torch.allclose(nodes(again)[name]["value"], values[name][draw], rtol=1e-4, atol=1e-6) for name in values)
    return same and torch.allclose(torch.as_tensor(again.log_prob_sum()), log_q[draw], rtol=1e-4, atol=1e-4)


def chunk_size_for(data: tuple, latent: int) -> int:
    """Return how many draws to make at once: 1,000, fewer if the data or the draws are large."""
    return max(1, min(1000, 20_000_000 // max(latent + size_of(data), 1)))
