"""Whether a model has an evidence: a flat prior has no integral, so that nothing with it has."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.distributions import ImproperUniform, MaskedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent

from ..traces.params import trace_at
from ..traces.sites import is_latent, nodes


def refuse_improper(model: Callable, data: tuple) -> None:
    """Raise ValueError, naming the site, if a latent site is an ``ImproperUniform``, which has no draws."""
    with _RefuseImproper():
        model(*data)


def refuse_masked(model: Callable, data: tuple) -> None:
    """Raise ValueError, naming the site, if entries of a latent site are masked and their value matters.

    Masked (``.mask``, ``poutine.mask``) entries have a flat prior. They do no harm if no other density depends on them,
    such as those that ``obs_mask=`` makes where a value was observed.
    """
    trace = trace_at(model, {}, data)
    masked = {name: _masked(site) for name, site in nodes(trace).items() if is_latent(site)}
    masked = {name: entries for name, entries in masked.items() if entries.any()}
    if not masked:
        return
    with torch.enable_grad():
        values = {name: nodes(trace)[name]["value"].detach().clone().requires_grad_() for name in masked}
        total = trace_at(model, values, data).log_prob_sum()
        if not (isinstance(total, Tensor) and total.requires_grad):
            return
        slopes = torch.autograd.grad(total, list(values.values()), allow_unused=True)
    for (name, entries), slope in zip(masked.items(), slopes, strict=True):
        if slope is not None and (slope[entries] != 0).any():
            raise ValueError(_flat(name))


class _RefuseImproper(Messenger):
    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        while isinstance(fn, Independent | MaskedDistribution):
            fn = fn.base_dist
        if isinstance(fn, ImproperUniform) and not msg["is_observed"]:
            raise ValueError(_flat(msg["name"]))


def _flat(name: str) -> str:
    return f"evidence: site {name!r} has a flat prior, so that the model has no evidence"


def _masked(site: Mapping[str, Any]) -> Tensor:
    """Return which entries of a site's value have no density of their own; shape of the value."""
    fn, shape = site["fn"], site["value"].shape
    masks = [(site["mask"], len(fn.event_shape))]
    while isinstance(fn, Independent | MaskedDistribution):
        if isinstance(fn, MaskedDistribution):
            masks.append((fn._mask, len(fn.event_shape)))
        fn = fn.base_dist
    masked = torch.zeros(shape, dtype=torch.bool, device=site["value"].device)
    for mask, event_dims in masks:
        if mask is not None:
            kept = torch.as_tensor(mask, device=masked.device)
            masked = masked | ~kept.reshape(kept.shape + (1,) * event_dims)
    return masked
