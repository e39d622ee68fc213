"""Names that a user gives, resolved to rows, methods, guides and options of the catalogue."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from types import MappingProxyType
from typing import Any

from guidebook.catalog import ALIASES, METHODS, ROWS, Guide, Row
from guidebook.workflow.options import DATA_OPTIONS, parse, unknown
from guidebook.workflow.own.file import is_own
from guidebook.workflow.own.model import own_guide, own_row


def find_row(name: str) -> Row:
    """Return the row of a model, also of ``FILE.py:FUNCTION``; ValueError with the nearest names if there is none."""
    if is_own(name):
        return own_row(name)
    if name not in ROWS:
        raise ValueError(unknown("model", name, ROWS))
    return ROWS[name]


def methods_of(row: Row) -> list[str]:
    """Return the methods that can fit a model."""
    return [method for method in (*METHODS, *ALIASES) if method not in row.unavailable]


def guide_of(row: Row, name: str) -> Guide:
    """Return a model's guide, also one in a user's file."""
    return own_guide(name) if is_own(name) else row.guides[name]


def split_method(row: Row, method: str | None, guide: str | None = None) -> tuple[str, str | None]:
    """Resolve ``svi``, ``svi:full_rank``, ``laplace``, … to a method and, for svi, the name of a guide."""
    if method is None:
        method = "svi" if guide else row.default_method
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
    if is_own(guide):
        own_guide(guide)
        return name, guide
    if guide in row.unavailable:
        reason, nearest = row.unavailable[guide]
        raise ValueError(f"{row.name} has no guide {guide}: {reason}; nearest is {nearest}")
    if guide not in row.guides:
        raise ValueError(unknown(f"guide of {row.name}", guide, row.guides))
    return name, guide


def split_methods(
    row: Row, methods: str | None, reference: str | None
) -> tuple[dict[str, tuple[str, str | None]], str]:
    """Resolve a comma-separated list of methods, and which of them is the reference (default: NUTS, else the first)."""
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
        return resolved, "nuts" if "nuts" in resolved else next(iter(resolved))
    if reference == "svi":
        reference = "svi:mean_field"
    if reference not in resolved:
        raise ValueError(unknown("reference", reference, resolved))
    return resolved, reference


def options_of(row: Row) -> dict[str, Any]:
    """Return the model's options and those of the methods that can fit it; of one name, the model's."""
    options = dict(row.options)
    for name, method in METHODS.items():
        options |= {} if name in row.unavailable else {k: v for k, v in method.options.items() if k not in row.options}
    return options


def parse_options(
    row: Row, settings: Iterable[str], defaults: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Read ``option=value`` texts into the values of all options: the model's, its methods' and the data's.

    ``defaults`` take precedence over the options' own.
    """
    known = options_of(row) | ({} if row.own else DATA_OPTIONS)
    known |= {name: known[name]._replace(default=value) for name, value in defaults.items()}
    values = parse(settings, known, row.name)
    if values.get("standardize", False) is None:
        values["standardize"] = row.data.standardize
    return values


def bind(function: Callable, options: Mapping[str, Any], names: Iterable[str]) -> Callable:
    """Bind to a function those of the named options that it takes."""
    taken = signature(function).parameters
    return partial(function, **{name: options[name] for name in names if name in taken})
