"""Given values for the parameters of a model and a guide, for the time of one estimate."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from pyro import poutine
from torch import Tensor

from ..traces.params import is_weight
from ..traces.sites import nodes

MOST_NAMES = 10  # that a sentence lists


@contextmanager
def with_params(
    model: Callable, guide: Callable | None, params: Mapping[str, Tensor], data: tuple
) -> Iterator[tuple[Callable, Callable | None]]:
    """Yield the model and the guide with their parameters at ``params``, and restore modules' weights afterwards.

    A ``pyro.param`` statement returns the value given. A weight of a module, whether by ``pyro.module`` or in a
    ``PyroModule``, is read from the module itself, so that it is overwritten in place.

    Raises
    ------
    ValueError
        If a ``pyro.param`` statement has an initial value only, a shape is wrong, or a name is not used. Without a
        guide, names that may be a guide's are left alone if all the model's own are given.
    """
    weights: dict[str, torch.nn.Parameter] = {}
    there: list[str] = []
    functions: list[Callable | None] = []
    for function in (model, guide):
        statements: dict[str, Tensor] = {}
        for name, node in [] if function is None else nodes(poutine.trace(function).get_trace(*data)).items():
            if node["type"] != "param":
                continue
            there.append(name)
            initial = node["args"][1] if len(node["args"]) > 1 else None
            if name in params:
                _check_shape(name, node["value"], params[name])
                if is_weight(node):
                    weights[name] = node["args"][1]
                else:
                    statements[name] = params[name]
            elif initial is not None and not is_weight(node):  # it would start anew
                raise ValueError(f"evidence: parameter {name!r} has no value: give it in params")
        functions.append(poutine.substitute(function, data=statements) if function and statements else function)
    unused = [name for name in params if name not in there]
    if unused and (guide is not None or not set(there) <= set(params)):
        raise ValueError(
            f"evidence: params has {_listed(unused)}, which nothing uses: the parameters are {_listed(there)}"
        )

    before = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(params[name])
        yield functions[0], functions[1]  # pyright: ignore[reportReturnType] (the first is the model's)
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])


def _check_shape(name: str, there: Tensor, given: Tensor) -> None:
    if given.shape != there.shape:
        shapes = f"{tuple(there.shape)}, and params has it in shape {tuple(given.shape)}"
        raise ValueError(f"evidence: parameter {name!r} has shape {shapes}")


def _listed(names: list[str]) -> str:
    first = ", ".join(repr(name) for name in names[:MOST_NAMES])
    return f"{first} and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else first or "none"
