"""Draws from a fitted guide, and the model's deterministic sites at given draws, for any model and guide.

Each draw runs the model as its author wrote it, with no dimension added on the left: ``torch.vmap`` does many at once,
and where it cannot (a Python branch on a drawn value, say) they are done one after the other.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor

Sites = dict[str, Tensor]


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


def is_latent(site: Mapping[str, Any]) -> bool:
    """Whether a node of a trace is a latent variable of the model (not data, a plate, or a deterministic value)."""
    return (
        site["type"] == "sample"
        and not site["is_observed"]
        and type(site["fn"]).__name__ != "_Subsample"
        and not site["infer"].get("is_auxiliary", False)
    )


def is_deterministic(site: Mapping[str, Any]) -> bool:
    """Whether a node of a trace stands for ``pyro.deterministic``."""
    return site["type"] == "sample" and site["infer"].get("_deterministic", False)


def draw_guide(model: Callable, guide: Callable, data: tuple, num_draws: int) -> GuideDraws:
    """Draw from a fitted guide and weigh each draw by the model.

    Parameters
    ----------
    model, guide : callable
        Any Pyro model and a guide of it, with their parameters in place.
    data : tuple
        Arguments of both.
    num_draws : int
    """
    covered = True

    def one(_: Tensor) -> tuple[Sites, Tensor]:
        nonlocal covered
        guide_trace = poutine.trace(guide).get_trace(*data)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*data)
        latent = {name for name, site in model_trace.nodes.items() if is_latent(site)}
        covered = latent <= set(guide_trace.nodes)
        sites = {
            name: site["value"]
            for name, site in model_trace.nodes.items()
            if (name in latent and name in guide_trace.nodes) or is_deterministic(site)
        }
        return sites, model_trace.log_prob_sum() - guide_trace.log_prob_sum()

    sites, log_weights = _many(one, torch.zeros(num_draws), data)
    return GuideDraws(sites, log_weights if covered else None)


def add_deterministic(model: Callable, draws: Sites, data: tuple) -> Sites:
    """Latent draws, shape (draw, *site), together with the model's deterministic sites at each of them."""

    def one(latent: Sites) -> Sites:
        trace = poutine.trace(poutine.condition(model, data=latent)).get_trace(*data)
        return {name: site["value"] for name, site in trace.nodes.items() if is_deterministic(site)}

    return draws | _many(one, draws, data)


def _many(one: Callable, over: Any, data: tuple) -> Any:
    """Apply ``one`` to every row of ``over`` and stack what it returns."""
    leaves, spec = torch.utils._pytree.tree_flatten(over)
    size = sum(value.numel() for value in data if isinstance(value, Tensor))
    chunk = max(1, min(1000, 20_000_000 // max(size, 1)))
    with torch.no_grad(), pyro.validation_enabled(False):
        try:
            return torch.vmap(one, chunk_size=chunk, randomness="different")(over)
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            rows = [one(torch.utils._pytree.tree_unflatten(list(row), spec)) for row in zip(*leaves, strict=True)]
            return torch.utils._pytree.tree_map(lambda *values: torch.stack(values), *rows)
