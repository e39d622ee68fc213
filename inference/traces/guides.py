"""Guides and guide families: which is which, what it is called, and a guide that can be fitted."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide

from .init import InitMessenger
from .sites import is_plate, nodes


def is_family(guide: Any) -> bool:
    """Whether ``guide`` is a guide family, ``model -> guide`` (marked, or an autoguide class), rather than a guide."""
    guide = _without_partial(guide)
    return getattr(guide, "is_guide_family", False) or (inspect.isclass(guide) and issubclass(guide, AutoGuide))


def display_name(function: Any) -> str:
    """Return the name of a guide, guide family or loss, without ``functools.partial``."""
    function = _without_partial(function)
    return getattr(function, "__name__", type(function).__name__)


def as_guide(guide: Any, model: Callable) -> Any:
    """Return a guide to fit: the family's guide of ``model``, or a copy of the guide given."""
    return guide(InitMessenger()(model)) if is_family(guide) else clone_guide(guide)


def clone_guide(guide: Any) -> Any:
    """Return a copy that can be fitted without changing the original."""
    if not isinstance(guide, torch.nn.Module):
        return deepcopy(guide)
    # deepcopy drops an autoguide's model, and its master, from the copy and from the original: put them back.
    kept = [(part.__dict__["_model"], part.master) if isinstance(part, AutoGuide) else None for part in guide.modules()]
    copy = deepcopy(guide)
    for new, old, state in zip(copy.modules(), guide.modules(), kept, strict=True):
        if state is not None:
            new.__dict__["_model"] = old.__dict__["_model"] = state[0]
            old.__dict__["master"] = state[1]
    return copy


def is_point(guide: Callable, data: tuple) -> bool:
    """Whether every latent variable of the guide is a point mass."""
    with torch.no_grad():
        trace = poutine.trace(guide).get_trace(*data)
    sites = (nodes(trace)[name] for name in trace.stochastic_nodes)
    return all(_is_delta(site["fn"]) for site in sites if not is_plate(site))


def _without_partial(function: Any) -> Any:
    while hasattr(function, "func"):
        function = function.func
    return function


def _is_delta(fn: Any) -> bool:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return type(fn).__name__ == "Delta"
