"""The log likelihood of a user's model, for each thing that it observes, at each draw."""

from collections.abc import Callable, Mapping

import torch
from pyro import poutine
from torch import Tensor

from guidebook.inference.traces.isolate import isolated
from guidebook.inference.traces.prepare import prepare
from guidebook.inference.traces.sites import is_deterministic, is_plate, nodes
from guidebook.inference.traces.validation import unvalidated
from guidebook.inference.traces.vmap import map_rows

CHUNK = 500  # draws at once


def pointwise_of_own(model: Callable, draws: Mapping[str, Tensor], args: tuple) -> Tensor:
    """Return log p(observation | draw) in nats, (chain, draw, n), of all observed sites in their order.

    Raises
    ------
    ValueError
        If the model has discrete latent sites, given which observations are not independent.
    """
    prepared = prepare("choose", model, args, least_dtype=torch.float64)
    if prepared.summed:
        raise ValueError(
            f"choose: {min(prepared.summed)} is discrete, and rows are judged one by one only in models without such "
            "sites: sum it out in the model"
        )
    latent = prepared.log_joint().latent
    rows = {name: draws[name].to(prepared.dtype).flatten(0, 1) for name in latent}

    def densities(values: dict[str, Tensor]) -> Tensor:
        found = nodes(poutine.trace(poutine.condition(prepared.model, data=values)).get_trace(*prepared.data))
        observed = [s for n, s in found.items() if s["type"] == "sample" and s["is_observed"] and n not in values]
        kept = [s for s in observed if not is_plate(s) and not is_deterministic(s)]
        return torch.cat([s["fn"].log_prob(s["value"]).reshape(-1) for s in kept])

    with isolated(0, prepared.dtype), torch.no_grad(), unvalidated():
        found = map_rows(densities, rows, chunk_size=CHUNK)
    return found.unflatten(0, next(iter(draws.values())).shape[:2])
