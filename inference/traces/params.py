"""Parameters of a model and a guide: those to optimise, their constrained values, and the first that went bad."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import constraints, transform_to

from .sites import is_plate, nodes

Leaf = tuple[Tensor, Any]  # what is optimised, and the transform of it to the parameter's value


def trace_pair(model: Callable, guide: Callable, data: tuple) -> tuple[Trace, Trace]:
    """Return a trace of the guide, and one of the model at the guide's draw."""
    guide_trace = poutine.trace(guide).get_trace(*data)
    return guide_trace, poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*data)


def trace_at(function: Callable, values: dict[str, Tensor], data: tuple) -> Trace:
    """Return a trace of a model or guide with some sites at given values, log densities included."""
    trace = poutine.trace(poutine.condition(function, data=values)).get_trace(*data)
    trace.compute_log_prob()
    return trace


def unconstrained_params(*functions: Callable) -> list[Tensor]:
    """Return the leaves to optimise: parameters of modules, then those of functions, from Pyro's (scoped) store."""
    leaves = [p for function in functions if isinstance(function, torch.nn.Module) for p in function.parameters()]
    leaves += [p for _, p in pyro.get_param_store().named_parameters()]
    if found := {id(p): p for p in leaves if p.requires_grad}:
        return list(found.values())
    raise ValueError("svi: the guide and the model have no parameters to fit")


def model_leaves(model: Callable, trace: Trace, params: Sequence[Tensor]) -> list[Tensor]:
    """Return those of the unconstrained ``params`` that belong to the model, given a trace of it."""
    leaves = {id(leaf) for leaf, _ in leaves_by_name(trace).values()}
    if isinstance(model, torch.nn.Module):
        leaves |= {id(p) for p in model.parameters()}
    return [p for p in params if id(p) in leaves]


def leaves_by_name(*traces: Trace) -> dict[str, Leaf]:
    """Return the leaves behind the parameters in the traces, by name, each with its transform."""
    stored = pyro.get_param_store().get_state()["constraints"]  # a module's statements do not repeat them
    found: dict[str, Leaf] = {}
    for trace in traces:
        for name, site in nodes(trace).items():
            if site["type"] == "param":
                value = site["value"]
                leaf = value.unconstrained() if hasattr(value, "unconstrained") else value
                found[name] = leaf, transform_to(stored.get(name, constraints.real))
    return found


def misfit(values: Mapping[str, Tensor], leaves: Mapping[str, Leaf]) -> str:
    """Return which of some parameters has no value, or one of another shape, as a clause; empty if all have one."""
    for name, (leaf, transform) in leaves.items():
        if name not in values:
            return f"parameter {name!r} has no value: there is {', '.join(values) or 'none of any'}"
        shape = transform(leaf).shape
        if values[name].shape != shape:
            return f"parameter {name!r} has shape {tuple(shape)} here, and is given in {tuple(values[name].shape)}"
    return ""


@torch.no_grad()
def set_leaves(method: str, values: Mapping[str, Tensor], leaves: Mapping[str, Leaf]) -> None:
    """Set all of some parameters to constrained values, in place; a ValueError says which has none that fits."""
    if wrong := misfit(values, leaves):
        raise ValueError(f"{method}: {wrong}")
    for name, (leaf, transform) in leaves.items():
        found = transform.inv(values[name].to(leaf))
        if not bool(torch.isfinite(found).all()):
            raise ValueError(f"{method}: the value of parameter {name!r} is not finite, or outside its support")
        leaf.copy_(found)


def constrained_params(*traces: Trace) -> dict[str, Tensor]:
    """Return the parameters in the traces by name: constrained copies on the CPU."""
    return {
        name: site["value"].detach().cpu().clone()
        for trace in traces
        for name, site in nodes(trace).items()
        if site["type"] == "param"
    }


def statement_params(trace: Trace) -> dict[str, Tensor]:
    """Return those `constrained_params` that ``pyro.param`` statements make, not a module's weights."""
    found = constrained_params(trace).items()
    return {n: v for n, v in found if "$$$" not in n and "." not in n and not is_weight(nodes(trace)[n])}


def is_weight(site: Mapping[str, Any]) -> bool:
    """Whether a parameter's node stands for a weight of a module, which reads it from itself."""
    return len(site["args"]) > 1 and isinstance(site["args"][1], torch.nn.Parameter)


def find_nonfinite(model: Callable, guide: Callable, data: tuple) -> str:
    """Return a clause that names the first parameter, value or log density that is not finite; empty if all are."""
    with torch.no_grad(), pyro.validation_enabled(False):
        for owner, trace in zip(("guide", "model"), trace_pair(model, guide, data), strict=True):
            for name, site in nodes(trace).items():
                if site["type"] == "param" and not torch.isfinite(site["value"]).all():
                    return f": parameter {name!r} of the {owner} is not finite; try a smaller lr, or scale the data"
                if site["type"] != "sample" or is_plate(site):
                    continue
                if not torch.isfinite(site["value"]).all():
                    return f": site {name!r} of the {owner} has a value that is not finite"
                if not torch.isfinite(site["fn"].log_prob(site["value"])).all():
                    return f": the log density of site {name!r} in the {owner} is not finite"
    return ""
