"""Arguments by name: a model, or its guide, as a function of data by position, which is how methods call it."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from .arguments import as_arguments


class Keywords:
    """A function whose last arguments by position are arguments by name of another.

    Parameters
    ----------
    func : callable
        The function; it keeps its name in error messages and reports.
    names : sequence of str or None
        Of its arguments that are given by position after all others; None for one that is not passed on.
    keywords : mapping
        Values of further arguments, held fixed.
    """

    def __init__(self, func: Callable[..., Any], names: Sequence[str | None], keywords: Mapping[str, Any]) -> None:
        self.func, self.names, self.keywords = func, tuple(names), dict(keywords)

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return _call(self.func, args, self.names, self.keywords)


class KeywordModule(torch.nn.Module):
    """`Keywords` for a module, whose parameters stay in sight."""

    def __init__(self, func: torch.nn.Module, names: Sequence[str | None], keywords: Mapping[str, Any]) -> None:
        super().__init__()
        self.func, self.names, self.keywords = func, tuple(names), dict(keywords)

    def forward(self, *args: Any) -> Any:
        """Call the module."""
        return _call(self.func, args, self.names, self.keywords)


def _call(func: Callable[..., Any], args: tuple, names: tuple[str | None, ...], keywords: Mapping[str, Any]) -> Any:
    first = len(args) - len(names)
    named = {name: value for name, value in zip(names, args[first:], strict=True) if name is not None}
    return func(*args[:first], **keywords, **named)


def by_position(
    method: str, model: Callable[..., Any], data: Sequence[Any], named: Mapping[str, Any] | None
) -> tuple[Callable[..., Any], tuple]:
    """Return a model and its data as methods call it: arrays and frames as tensors, ``named`` ones by position.

    ValueError, in the method's name, for what cannot be a tensor, or a name that is no argument of the model.
    """
    args = as_arguments(method, data, [f"argument {place} of the data" for place in range(1, len(data) + 1)])
    if not named:
        return model, args
    check_names(method, model, list(named))
    values = as_arguments(method, list(named.values()), [f"argument {name!r}" for name in named])
    tensors, keywords = split(dict(zip(named, values, strict=True)))
    return with_keywords(model, list(tensors), keywords), (*args, *tensors.values())


def with_keywords(func: Any, names: Sequence[str | None], keywords: Mapping[str, Any]) -> Any:
    """Return a model or a guide that takes the named arguments by position, the others held fixed.

    A guide takes those that it knows. A guide family is returned as it is: it makes guides of the model. An autoguide
    is returned as a copy whose model takes them so.
    """
    from .guides import clone_guide, is_family  # which imports what imports this file

    if not callable(func) or is_family(func):
        return func
    if isinstance(func, AutoGuide):
        copy = clone_guide(func)
        for part in copy.modules():
            if isinstance(part, AutoGuide) and part.model is not None:
                vars(part)["_model"] = (with_keywords(part.model, names, keywords),)
        return copy
    taken = parameters_of(func)
    if taken and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        keywords = {name: value for name, value in keywords.items() if name in taken}
        names = [name if name in taken else None for name in names]
    if isinstance(func, torch.nn.Module):
        return KeywordModule(func, names, keywords)
    return Keywords(func, names, keywords)


def parameters_of(func: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function, or of a module's ``forward``; empty if they cannot be known."""
    try:
        return inspect.signature(func.forward if isinstance(func, torch.nn.Module) else func).parameters
    except (TypeError, ValueError):
        return {}


def argument_names(model: Callable[..., Any], count: int) -> list[str]:
    """Return the names of a model's arguments by position, "argument 3" where they have none."""
    last = [name or "" for name in model.names] if isinstance(model, Keywords | KeywordModule) else []
    while isinstance(model, partial | Keywords | KeywordModule):
        model = model.func
    try:
        names = [
            parameter.name
            for parameter in inspect.signature(getattr(model, "forward", model)).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):  # a callable that does not say
        names = []
    names = [*names, *(f"argument {position}" for position in range(len(names), count))][: count - len(last)]
    return names + last


def check_names(method: str, model: Callable[..., Any], names: Sequence[str]) -> None:
    """Raise ValueError for a name that is no argument of the model, with the nearest one."""
    taken = parameters_of(model)
    if not taken or any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    for name in names:
        if name not in taken:
            near = difflib.get_close_matches(name, taken, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"{method}: the model has no argument {name!r}: {hint}it has {', '.join(taken)}")


def split(named: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return arguments by name apart: tensors, which are data, and others, which are options."""
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in named.items() if name not in tensors}
