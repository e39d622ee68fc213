"""Names that a user gives, resolved to rows, methods, guides and options of the catalogue."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from types import MappingProxyType
from typing import Any

from guidebook.catalog import ALIASES, METHODS, ROWS, Row
from guidebook.workflow.options import DATA_OPTIONS, parse, unknown


def find_row(name: str, settings: Iterable[str] | None = None) -> Row:
    """Return the row of a model, with what ``option=value`` texts leave of its methods.

    Raises ValueError with the nearest names if there is no such model or option.
    """
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


def methods_of(row: Row) -> list[str]:
    """Return the methods that can fit a model."""
    return [method for method in (*METHODS, *ALIASES) if method not in row.unavailable]


def split_method(row: Row, method: str, guide: str | None = None) -> tuple[str, str | None]:
    """Resolve ``svi``, ``svi:full_rank``, ``laplace``, … to a method and, for svi, the name of a guide."""
    name, _, suffix = method.partition(":")
    if suffix and guide:
        raise ValueError(f"give the guide once: --method {method} and --guide {guide} name two")
    guide = suffix or guide
    if name not in METHODS and name not in ALIASES:
        raise ValueError(unknown("method", name, [*METHODS, *ALIASES]))
    if guide and name != "svi":
        raise ValueError(f"{name} takes no guide (got {guide!r}): guides belong to svi")
    if name in row.unavailable:
        reason, nearest = row.unavailable[name]
        others = ", ".join(m for m in methods_of(row) if m != nearest)
        raise ValueError(f"{row.name} has no {name}: {reason}; nearest is {nearest}, and it has {others}")
    if name in ALIASES:
        name, guide = "svi", ALIASES[name]
    if name != "svi":
        return name, None
    guide = guide or row.default_guide
    if guide in row.unavailable:
        reason, nearest = row.unavailable[guide]
        raise ValueError(f"{row.name} has no guide {guide}: {reason}; nearest is {nearest}")
    if guide not in row.guides:
        raise ValueError(unknown(f"guide of {row.name}", guide, row.guides))
    return name, guide


def split_methods(
    row: Row, methods: str | None, reference: str | None
) -> tuple[dict[str, tuple[str, str | None]], str]:
    """Resolve a comma-separated list of methods, and which of them is the reference.

    By default it is the first of the row's own methods, and NUTS, else the first, of those given.
    """
    names = [name.strip() for name in methods.split(",")] if methods else list(row.default_methods)
    resolved: dict[str, tuple[str, str | None]] = {}
    for name in names:
        method, guide = split_method(row, name)
        label = f"{method}:{guide}" if guide and name not in ALIASES else name
        if label in resolved or (method, guide) in resolved.values():
            raise ValueError(f"--methods names {label} twice")
        resolved[label] = method, guide
    if len(resolved) < 2:
        raise ValueError(f"--methods needs two or more methods to compare, got {', '.join(resolved)}")
    if reference is None:
        return resolved, "nuts" if methods and "nuts" in resolved else next(iter(resolved))
    if reference == "svi":
        reference = "svi:mean_field"
    if reference not in resolved:
        raise ValueError(unknown("reference", reference, resolved))
    return resolved, reference


def options_of(row: Row) -> dict[str, Any]:
    """Return the model's options and those of the methods that can fit it."""
    options = dict(row.options)
    for name, method in METHODS.items():
        options |= {} if name in row.unavailable else method.options
    return options


def parse_options(
    row: Row, settings: Iterable[str], defaults: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Read ``option=value`` texts into the values of all options: the model's, its methods' and the data's.

    ``defaults`` take precedence over the options' own.
    """
    known = options_of(row) | DATA_OPTIONS
    known |= {name: known[name]._replace(default=value) for name, value in defaults.items()}
    values = parse(settings, known, row.name)
    if values["standardize"] is None:
        values["standardize"] = row.data.standardize
    return values


def bind(function: Callable, options: Mapping[str, Any], names: Iterable[str]) -> Callable:
    """Bind to a function those of the named options that it takes."""
    taken = signature(function).parameters
    return partial(function, **{name: options[name] for name in names if name in taken})
