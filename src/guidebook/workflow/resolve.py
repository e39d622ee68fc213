"""Names that a user gives, resolved to rows, methods, guides and options of the catalogue."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from typing import Any

from guidebook.catalog import ROWS, Guide, Row
from guidebook.workflow.names import methods_of, options_of, parse_options, split_method, split_methods
from guidebook.workflow.options import unknown
from guidebook.workflow.own.file import is_own
from guidebook.workflow.own.model import own_guide, own_row

__all__ = [
    "bind",
    "find_row",
    "guide_of",
    "methods_of",
    "options_of",
    "parse_options",
    "split_method",
    "split_methods",
]


def find_row(name: str) -> Row:
    """Return the row of a model, also of ``FILE.py:FUNCTION``; ValueError with the nearest names if there is none."""
    if is_own(name):
        return own_row(name)
    if name not in ROWS:
        raise ValueError(unknown("model", name, ROWS))
    return ROWS[name]


def guide_of(row: Row, name: str) -> Guide:
    """Return a model's guide, also one in a user's file."""
    return own_guide(name) if is_own(name) else row.guides[name]


def bind(function: Callable, options: Mapping[str, Any], names: Iterable[str]) -> Callable:
    """Bind to a function those of the named options that it takes."""
    taken = signature(function).parameters
    return partial(function, **{name: options[name] for name in names if name in taken})
