"""Guides and guide families: which is which, what it is called, and a guide that can be fitted."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace

from .handlers import FullPlates
from .init import InitMessenger, InitToValues
from .isolate import isolated
from .log_joint import LogJoint
from .potential import Potential, find_start
from .sites import is_delta, is_plate, nodes
from .validation import unvalidated


def is_family(guide: Any) -> bool:
    """Whether ``guide`` is a guide family, ``model -> guide`` (marked, or an autoguide class), rather than a guide."""
    guide = _without_partial(guide)
    return getattr(guide, "is_guide_family", False) or (inspect.isclass(guide) and issubclass(guide, AutoGuide))


def preferred_options(guide: Any) -> dict[str, Any]:
    """Return the options that a guide family prefers to `svi`'s defaults: ``loss``, ``num_particles``."""
    return dict(getattr(_without_partial(guide), "preferred", {}))


def display_name(function: Any) -> str:
    """Return the name of a guide, guide family or loss, without ``functools.partial``."""
    function = _without_partial(function)
    return getattr(function, "__name__", type(function).__name__)


def as_guide(guide: Any, model: Callable) -> Any:
    """Return a guide to fit: the family's guide of ``model``, or a copy of the guide given."""
    return guide(InitMessenger()(model)) if is_family(guide) else clone_guide(guide)


def check_guide(guide: Any, model: Callable, method: str = "svi") -> None:
    """Raise ValueError for what is neither a guide nor a guide family, saying what to write."""
    if not callable(guide):
        in_order = {"svi": "svi(model, guide, *data)", "online": "online(model, guide, rows)"}
        written = in_order.get(method, f"{method}(model, *data, guide=guide)")
        raise ValueError(
            f"{method}: guide must be a guide or a guide family, got {type(guide).__name__}: write "
            f"{written}, with mean_field of guidebook.guides as the guide, for example"
        )
    if not is_family(guide) and not isinstance(guide, torch.nn.Module) and _makes_guides(guide, model):
        raise ValueError(
            f"{method}: {display_name(guide)} takes a model and returns a guide, so it is a guide family: mark it with "
            "guidebook.guides.families.guide_family, or give a class of autoguides, or functools.partial of one"
        )


def check_reparameterised(method: str, name: str, trace: Trace) -> None:
    """Raise ValueError unless the draws of a guide, here its trace, are functions of noise and parameters."""
    sites = {site: nodes(trace)[site]["fn"] for site in trace.stochastic_nodes if not is_plate(nodes(trace)[site])}
    if all(is_delta(fn) for fn in sites.values()):
        raise ValueError(f"{method}: the guide {name} is a point, without noise to fix: fit it by svi")
    for site, fn in sites.items():
        if not fn.has_rsample:
            raise ValueError(
                f"{method}: the guide's site {site!r} ({type(fn).__name__}) is not reparameterised, so that its draws "
                "cannot be fixed while parameters move: fit the guide by svi"
            )


def _makes_guides(function: Callable, model: Callable) -> bool:
    try:
        required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        with isolated(0), torch.no_grad():
            return len(required) == 1 and callable(function(model))
    except Exception:  # it does not take a model
        return False


def family_guide(family: Callable, model: Callable, joint: LogJoint) -> Callable:
    """Return the family's guide of a model, started where its density ``joint`` (of all rows) is finite.

    It draws the latent sites that are not summed out; if there are none, nothing.
    """
    if not joint.latent:
        return no_guide
    subsamples = model is not joint.model
    if joint.summed:
        model = poutine.block(model, hide=sorted(joint.summed))
    guide = as_guide(family, model)
    with torch.no_grad(), torch.random.fork_rng(), unvalidated():
        trace = poutine.trace(FullPlates(clone_guide(guide)) if subsamples else guide).get_trace(*joint.data)
        values = {name: nodes(trace)[name]["value"] for name in joint.latent if name in trace.nodes}
        if len(values) < len(joint.latent) or torch.isfinite(joint(values)):
            return guide
        potential = Potential(joint)
        start = potential.constrained(find_start("svi", potential))
    return family(InitToValues(start)(model))


def no_guide(*_: Any) -> None:
    """Draw nothing: the guide of a model without latent sites, of which the parameters are to be learnt."""


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
    return all(is_delta(site["fn"]) for site in sites if not is_plate(site))


def _without_partial(function: Any) -> Any:
    while hasattr(function, "func"):
        function = function.func
    return function
