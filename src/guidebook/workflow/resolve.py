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


def find_row(name: str, settings: Iterable[str] | None = None) -> Row:
    """Return the row of a model, also of ``FILE.py:FUNCTION``, with what ``option=value`` texts leave of its methods.

    Raises ValueError with the nearest names if there is no such model or option.
    """
    if is_own(name):
        return own_row(name)
    if name not in ROWS:
        raise ValueError(unknown("model", name, ROWS))
    row = ROWS[name]
    return with_options(row, parse_options(row, settings or []))


def with_options(row: Row, options: Mapping[str, Any]) -> Row:
    """Return a row without the methods and guides that these values of its options leave without an answer."""
    gone = row.excluded(options) if row.excluded else {}
    left = {
        field: tuple(name for name in getattr(row, field) if not {name, name.removeprefix("svi:")} & {*gone})
        for field in ("default_methods", "ladder")
    }
    return row._replace(unavailable=row.unavailable | gone, **left)


def guide_of(row: Row, name: str) -> Guide:
    """Return a model's guide, also one in a user's file."""
    return own_guide(name) if is_own(name) else row.guides[name]


def bind(function: Callable, options: Mapping[str, Any], names: Iterable[str]) -> Callable:
    """Bind to a function those of the named options that it takes."""
    taken = signature(function).parameters
    return partial(function, **{name: options[name] for name in names if name in taken})
