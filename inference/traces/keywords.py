"""Arguments by name: a model, or its guide, as a function of data by position, which is how methods call it."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor


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
