"""Cells of the catalogue: from the names a user gives to functions with their options bound, or to a reason."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from guidebook.catalog import FAMILIES, METHODS, ROWS, SHORT, Row
from guidebook.workflow.options import DATA_OPTIONS, parse, unknown


def row(name: str) -> Row:
    """The row of a model; ValueError with the nearest names where there is none."""
    if name not in ROWS:
        raise ValueError(unknown("model", name, ROWS))
    return ROWS[name]


def methods_of(row: Row) -> list[str]:
    """Methods that can fit a model."""
    return [method for method in (*METHODS, *SHORT) if method not in row.empty]


def guides_of(row: Row) -> list[str]:
    """Guides that svi can fit to a model, those of its explicit latent variables last."""
    return [*row.guides, *row.latent_guides]


def split_method(row: Row, method: str, guide: str | None = None) -> tuple[str, str | None]:
    """Resolve ``svi``, ``svi:full_rank``, ``laplace``, … to a method and, for svi, the name of a guide.

    Raises
    ------
    ValueError
        If there is no such method or guide, or the cell of the catalogue is empty: with the reason.
    """
    name, _, suffix = method.partition(":")
    if suffix and guide:
        raise ValueError(f"give the guide once: --method {method} and --guide {guide} name two")
    guide = suffix or guide
    if name not in METHODS and name not in SHORT:
        raise ValueError(unknown("method", name, [*METHODS, *SHORT]))
    if guide and name != "svi":
        raise ValueError(f"{name} takes no guide (got {guide!r}): guides belong to svi")
    if name in row.empty:
        reason, nearest = row.empty[name]
        others = ", ".join(m for m in methods_of(row) if m != nearest)
        raise ValueError(f"{row.name} has no {name}: {reason}; nearest is {nearest}, and it has {others}")
    if name in SHORT:
        name, guide = "svi", SHORT[name]
    if name != "svi":
        return name, None
    guide = guide or row.default_guide
    if guide in row.empty:
        reason, nearest = row.empty[guide]
        raise ValueError(f"{row.name} has no guide {guide}: {reason}; nearest is {nearest}")
    if guide not in guides_of(row):
        raise ValueError(unknown(f"guide of {row.name}", guide, guides_of(row)))
    return name, guide


def split_methods(
    row: Row, methods: str | None, reference: str | None
) -> tuple[dict[str, tuple[str, str | None]], str]:
    """Resolve a comma-separated list of methods, and which of them is the reference (NUTS, else the first).

    Raises
    ------
    ValueError
        As `split_method`; for fewer than two methods, one named twice, or a reference that is not among them.
    """
    names = [name.strip() for name in methods.split(",")] if methods else list(row.compared)
    resolved: dict[str, tuple[str, str | None]] = {}
    for name in names:
        method, guide = split_method(row, name)
        label = f"{method}:{guide}" if guide and name not in SHORT else name
        if label in resolved or (method, guide) in resolved.values():
            raise ValueError(f"--methods names {label} twice")
        resolved[label] = method, guide
    if len(resolved) < 2:
        raise ValueError(f"--methods needs two or more methods to compare, got {', '.join(resolved)}")
    if reference is None:
        return resolved, "nuts" if "nuts" in resolved else next(iter(resolved))
    if reference == "svi":
        reference = "svi:mean_field"
    if reference not in resolved:
        raise ValueError(unknown("reference", reference, resolved))
    return resolved, reference


def options_of(row: Row) -> dict[str, Any]:
    """The model's options and those of the methods that can fit it."""
    return row.options | {k: o for method in methods_of(row) for k, o in METHODS.get(method, {}).items()}


def parse_options(
    row: Row, settings: Iterable[str], defaults: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Read ``option=value`` texts into values, defaults filled in: the model's options, the methods' and the data's.

    ``defaults`` go before the options' own.

    Raises
    ------
    ValueError
        As `guidebook.workflow.options.parse`.
    """
    known = options_of(row) | DATA_OPTIONS
    known |= {name: known[name]._replace(default=value) for name, value in defaults.items()}
    values = parse(settings, known, row.name)
    if values["standardize"] is None:
        values["standardize"] = row.standardize
    return values


def bound(function: Callable, row: Row, options: dict[str, Any]) -> Callable:
    """A model, a guide or a maker of steps, with those of the model's options in place that it takes."""
    taken = inspect.signature(function).parameters
    return partial(function, **{name: options[name] for name in row.options if name in taken})


def bound_guide(row: Row, name: str, options: dict[str, Any]) -> Callable:
    """A guide or a family by name; a hand-written guide gets the model's options."""
    guide = (row.guides | row.latent_guides)[name]
    return guide if name in FAMILIES else bound(guide, row, options)
