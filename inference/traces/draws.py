"""Draws from a fitted guide, and the model's deterministic sites at given draws, for any model and guide.

The model runs at each draw as its author wrote it, with no dimension added on the left: ``torch.vmap`` does many at
once. The guide runs under a plate to the left of its own; where it does not take that (its density at a draw must be
what it is without the plate), and where the model cannot be mapped (a Python branch on a drawn value, say), draws are
made one after the other.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from torch import Tensor
from torch.utils import _pytree as pytree

Sites = dict[str, Tensor]
MOST_LOCAL = 10_000_000  # numbers that draws of the rows' own sites may come to, unless they are asked for


class GuideDraws(NamedTuple):
    """Draws of a guide, replayed through the model.

    Attributes
    ----------
    sites : dict of Tensor
        Shape (draw, *site): latent and deterministic sites of the model.
    log_weights : Tensor, shape (draw,), or None
        log p(x, z) - log q(z), in nats; None where the model has latent sites that the guide leaves out.
    """

    sites: Sites
    log_weights: Tensor | None


def nodes(trace: Trace) -> Mapping[str, Any]:
    """A trace's nodes by name, as plain mappings: Pyro's type has every entry of a node optional, its value too."""
    return trace.nodes


def is_latent(site: Mapping[str, Any]) -> bool:
    """Whether a node of a trace is a latent variable of the model (not data, a plate, or a deterministic value)."""
    return (
        site["type"] == "sample"
        and not site["is_observed"]
        and not _is_plate(site)
        and not site["infer"].get("is_auxiliary", False)
    )


def _is_plate(site: Mapping[str, Any]) -> bool:
    return type(site["fn"]).__name__ == "_Subsample"


def is_local(site: Mapping[str, Any], data: tuple) -> bool:
    """Whether a node lies in a plate over the rows of the data, so that there is a value for each row."""
    rows = len(data[0]) if data and isinstance(data[0], Tensor) and data[0].dim() else None
    return any(frame.size == rows for frame in site.get("cond_indep_stack", ()))


def plate_depth(trace: Trace) -> int:
    """How many dimensions on the right of its sites' batches a trace's plates take up."""
    frames = (frame for site in nodes(trace).values() for frame in site.get("cond_indep_stack", ()))
    return max((-frame.dim for frame in frames if frame.vectorized), default=0)


def is_deterministic(site: Mapping[str, Any]) -> bool:
    """Whether a node of a trace stands for ``pyro.deterministic``."""
    return site["type"] == "sample" and site["infer"].get("_deterministic", False)


def draw_guide(model: Callable, guide: Callable, data: tuple, num_draws: int, local: bool | None = True) -> GuideDraws:
    """Draw from a fitted guide and weigh each draw by the model.

    Parameters
    ----------
    model, guide : callable
        Any Pyro model and a guide of it, with their parameters in place.
    data : tuple
        Arguments of both.
    num_draws : int
    local : bool, optional
        Whether to keep sites with a value for each row; where left out, if they come to fewer than `MOST_LOCAL`
        numbers. They are drawn and weighed in any case.
    """
    with torch.no_grad(), pyro.validation_enabled(False):
        guide_trace = poutine.trace(guide).get_trace(*data)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*data)
    sites = nodes(model_trace)
    latent = {name for name, site in sites.items() if is_latent(site)}
    covered = latent <= set(guide_trace.nodes)
    latent &= set(guide_trace.nodes)
    apart = {n for n, site in sites.items() if "value" in site and is_local(site, data)}
    if local is None:
        local = num_draws * sum(sites[n]["value"].numel() for n in apart if _is_kept(sites[n])) <= MOST_LOCAL

    def one(draw: Sites) -> tuple[Sites, Tensor | float]:
        trace = poutine.trace(poutine.condition(model, data=draw)).get_trace(*data)
        found = {n: s["value"] for n, s in nodes(trace).items() if is_deterministic(s) and (local or n not in apart)}
        return found, trace.log_prob_sum()

    size = _chunk(data, sum(sites[name]["value"].numel() for name in latent))
    parts: list[tuple[Sites, Tensor]] = []
    for start in range(0, num_draws, size):
        with torch.no_grad(), pyro.validation_enabled(False):
            values, log_q = draw_chunk(guide, data, min(size, num_draws - start))
        values = {name: values[name].detach() for name in latent}
        deterministic, log_p = _many(one, values, data, size)
        kept = {name: value for name, value in values.items() if local or name not in apart}
        parts.append((kept | deterministic, log_p - log_q))
    names = parts[0][0]
    joined = {name: torch.cat([part[name] for part, _ in parts]) for name in names}
    return GuideDraws(joined, torch.cat([weights for _, weights in parts]) if covered else None)


def add_deterministic(model: Callable, draws: Sites, data: tuple) -> Sites:
    """Latent draws, shape (draw, *site), together with the model's deterministic sites at each of them."""

    def one(latent: Sites) -> Sites:
        trace = poutine.trace(poutine.condition(model, data=latent)).get_trace(*data)
        return {name: site["value"] for name, site in nodes(trace).items() if is_deterministic(site)}

    return draws | _many(one, draws, data, _chunk(data, sum(value[0].numel() for value in draws.values())))


def _is_kept(site: Mapping[str, Any]) -> bool:
    return is_latent(site) or is_deterministic(site)


def _chunk(data: tuple, latent: int) -> int:
    """How many draws to make at once: many, unless the data or the draws are large."""
    size = latent + sum(value.numel() for value in data if isinstance(value, Tensor))
    return max(1, min(1000, 20_000_000 // max(size, 1)))


def draw_chunk(guide: Callable, data: tuple, num_draws: int) -> tuple[Sites, Tensor]:
    """Values of the guide's sites, shape (draw, *site), and its log density at each draw."""
    single = poutine.trace(guide).get_trace(*data)
    names = [n for n in single.stochastic_nodes if not _is_plate(nodes(single)[n])]
    shapes = {name: nodes(single)[name]["value"].shape for name in names}
    depth = plate_depth(single)
    try:
        with pyro.plate("guidebook draws", num_draws, dim=-1 - depth):
            batch = poutine.trace(guide).get_trace(*data)
        batch.compute_log_prob()
        values = {name: nodes(batch)[name]["value"].reshape(num_draws, *shape) for name, shape in shapes.items()}
        terms = [nodes(batch)[name]["log_prob"] for name in names]
        terms = [term.expand(num_draws, *term.shape[1:]).reshape(num_draws, -1).sum(-1) for term in terms]
        log_q = torch.as_tensor(sum(terms))
        trusted = isinstance(guide, AutoGuide)  # Pyro's own take a plate
        if trusted or all(_fits(guide, data, single, values, log_q, draw) for draw in {0, num_draws - 1}):
            return values, log_q
    except (RuntimeError, ValueError, TypeError, NotImplementedError, IndexError):
        pass
    draws: list[tuple[Sites, Tensor]] = []
    for _ in range(num_draws):
        trace = poutine.trace(guide).get_trace(*data)
        draws.append(({name: nodes(trace)[name]["value"] for name in shapes}, torch.as_tensor(trace.log_prob_sum())))
    values = {name: torch.stack([draw[name] for draw, _ in draws]) for name in shapes}
    return values, torch.stack([log_q for _, log_q in draws])


def _fits(guide: Callable, data: tuple, single: poutine.Trace, values: Sites, log_q: Tensor, draw: int) -> bool:
    """Whether the guide, run by itself at one of the draws, returns that draw and its density."""
    given = single.copy()
    for name in values:
        given.nodes[name] = given.nodes[name] | {"value": values[name][draw]}
    again = poutine.trace(poutine.replay(guide, trace=given)).get_trace(*data)
    same = all(torch.allclose(nodes(again)[name]["value"], values[name][draw], rtol=1e-4, atol=1e-6) for name in values)
    return same and torch.allclose(torch.as_tensor(again.log_prob_sum()), log_q[draw], rtol=1e-4, atol=1e-4)


def _many(one: Callable, over: Sites, data: tuple, size: int) -> Any:
    """Apply ``one`` to every row of ``over`` and stack what it returns."""
    with torch.no_grad(), pyro.validation_enabled(False):
        try:
            return torch.vmap(one, chunk_size=size)(over)
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            length = len(next(iter(over.values())))
            rows = [one({name: value[row] for name, value in over.items()}) for row in range(length)]
            return pytree.tree_map(lambda *values: torch.stack(values), *rows)
