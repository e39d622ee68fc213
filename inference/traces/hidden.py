"""Rows of what a model observes, and the model without the density of some of them: for cross-validation.

Arguments are not taken apart, so that groups, effects per row and neighbours in time stay what they are. What a model
does with its data besides observing them, such as taking off their mean, it does with all rows.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from .generate import is_data
from .isolate import isolated
from .prepare import prepare
from .rows import RowDensities
from .sites import nodes


class ObservedRows(NamedTuple):
    """The rows that a model observes: entries of sites of one shape, or sites of a single number each."""

    sites: tuple[str, ...]
    shape: tuple[int, ...]  # of each site's log density

    @property
    def number(self) -> int:
        """Number of rows."""
        return math.prod(self.shape) if self.shape else len(self.sites)

    def hidden(self, model: Callable, out: Tensor) -> Callable:
        """Return the model without the density of some rows; ``out`` has shape (row), True for those."""
        kept = ~out
        if self.shape:
            return Hide(dict.fromkeys(self.sites, kept.reshape(self.shape)))(model)
        return Hide(dict(zip(self.sites, kept, strict=True)))(model)


class Hide(Messenger):
    """Leaves entries of observed sites out of the density: ``kept`` has True for the others, in its shape, by site."""

    def __init__(self, kept: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.kept = kept

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and msg["name"] in self.kept:
            kept = self.kept[msg["name"]].to(msg["value"].device)
            msg["mask"] = kept if msg["mask"] is None else kept & msg["mask"]


def observed_rows(method: str, model: Callable, data: tuple) -> ObservedRows:
    """Return the rows that a model observes, as `log_likelihood` has them.

    A ValueError, in the method's name, says if it observes none or a single one, if sites have different rows, or if
    rows share a discrete site that is summed out.
    """
    prepared = prepare(method, model, data, exact=False)
    with isolated(0, prepared.dtype), torch.no_grad():
        rows = RowDensities(prepared.log_joint())
        found = rows({name: nodes(prepared.trace)[name]["value"] for name in rows.joint.latent}).likelihood
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    if not shapes:
        raise ValueError(f"{method}: the model observes nothing")
    if len(set(shapes.values())) > 1:
        words = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{method}: it is not clear which rows go together: observed sites have shapes {words}")
    sites = {name: nodes(prepared.trace)[name] for name in rows.plain}
    for group in rows.shared:
        sites |= {name: nodes(prepared.trace)[name] for name in group.sites if is_data(nodes(prepared.trace)[name])}
    shape = next(iter(shapes.values()))
    if rows.shared and any(tuple(site["fn"].batch_shape) != shape for site in sites.values()):
        raise ValueError(f"{method}: rows of {', '.join(sites)} share a discrete site: none can be left out alone")
    observed = ObservedRows(tuple(sites), shape)
    if observed.number < 2:
        raise ValueError(f"{method}: {', '.join(found)} has one density for all rows, so that none can be left out")
    return observed
