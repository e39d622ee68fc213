"""What can be read off a guide and a model by running them once: parameters, names, and where a number went bad."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from torch import Tensor

from .draws import nodes


def is_family(guide: Any) -> bool:
    """Whether ``guide`` is a guide family (marked, or an autoguide class) rather than a guide."""
    guide = _unwrapped(guide)
    return getattr(guide, "is_guide_family", False) or (inspect.isclass(guide) and issubclass(guide, AutoGuide))


def name_of(guide: Any) -> str:
    """Name of a guide or a guide family, ``functools.partial`` removed."""
    guide = _unwrapped(guide)
    return getattr(guide, "__name__", type(guide).__name__)


def copied(guide: Any) -> Any:
    """A guide that can be fitted without changing the one given."""
    if not isinstance(guide, torch.nn.Module):
        return deepcopy(guide)
    # An autoguide forgets its model when it is copied, and so does the one it was copied from, its master too.
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
    return all(_is_delta(nodes(trace)[name]["fn"]) for name in trace.stochastic_nodes)


def unconstrained_params(*functions: Callable) -> list[Tensor]:
    """What to optimise: parameters of modules, and those that plain functions keep in Pyro's (scoped) store.

    Raises
    ------
    ValueError
        If there is none.
    """
    found: dict[int, Tensor] = {}
    for function in functions:
        if isinstance(function, torch.nn.Module):
            found |= {id(p): p for p in function.parameters() if p.requires_grad}
    found |= {id(p): p for _, p in pyro.get_param_store().named_parameters() if p.requires_grad}
    if not found:
        raise ValueError("svi: the guide and the model have no parameters to fit")
    return list(found.values())


def constrained_params(model: Callable, guide: Callable, data: tuple) -> dict[str, Tensor]:
    """Parameters of guide and model by name, constrained, on the CPU."""
    with torch.no_grad():
        return {
            name: site["value"].detach().cpu().clone()
            for trace in reversed(_traces(model, guide, data))
            for name, site in nodes(trace).items()
            if site["type"] == "param"
        }


def split_params(
    model: Callable, guide: Callable, data: tuple, params: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Unconstrained parameters of the model, and those of the guide.

    Raises
    ------
    ValueError
        If one of the two has none.
    """
    _, trace = _traces(model, guide, data)
    values = [site["value"] for site in nodes(trace).values() if site["type"] == "param"]
    leaves = {id(getattr(value, "unconstrained", lambda value=value: value)()) for value in values}
    if isinstance(model, torch.nn.Module):
        leaves |= {id(p) for p in model.parameters()}
    of_model = [p for p in params if id(p) in leaves]
    of_guide = [p for p in params if id(p) not in leaves]
    if not of_model or not of_guide:
        who = "guide" if of_model else "model"
        raise ValueError(f"svi: alternate takes turns between two sets of parameters, and the {who} has none")
    return of_model, of_guide


def learned_sites(model: Callable, guide: Callable, data: tuple) -> dict[str, Tensor]:
    """Values of the model's own ``pyro.param`` statements by name, constrained; not those of its modules."""
    with torch.no_grad():
        _, trace = _traces(model, guide, data)
    return {
        name: site["value"].detach()
        for name, site in nodes(trace).items()
        if site["type"] == "param" and "$$$" not in name and "." not in name
    }


def culprit(model: Callable, guide: Callable, data: tuple) -> str:
    """A clause that names the first parameter, value or log density that is not finite; empty if none is."""
    with torch.no_grad(), pyro.validation_enabled(False):
        for where, trace in zip(("guide", "model"), _traces(model, guide, data), strict=True):
            for name, site in nodes(trace).items():
                if site["type"] == "param" and not torch.isfinite(site["value"]).all():
                    return f": parameter {name!r} of the {where} is not finite; try a smaller lr, or scale the data"
                if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample":
                    continue
                if not torch.isfinite(site["value"]).all():
                    return f": site {name!r} of the {where} has a value that is not finite"
                if not torch.isfinite(site["fn"].log_prob(site["value"])).all():
                    return f": the log density of site {name!r} in the {where} is not finite"
    return ""


def _unwrapped(guide: Any) -> Any:
    while hasattr(guide, "func"):  # functools.partial
        guide = guide.func
    return guide


def _is_delta(fn: Any) -> bool:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return type(fn).__name__ == "Delta"


def _traces(model: Callable, guide: Callable, data: tuple) -> tuple[Trace, Trace]:
    guide_trace = poutine.trace(guide).get_trace(*data)
    return guide_trace, poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*data)
