"""Names of models, methods, guides and options, checked before anything slow is imported.

They lie in ``names.json``, which is made of the catalogue by ``python -m guidebook.catalog.write_names``; a test holds
the two together. Rows of the catalogue can be asked in the same way.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from guidebook.workflow.options import DATA_OPTIONS, OWN_DATA_OPTIONS, Option, parse, unknown
from guidebook.workflow.own.file import OwnFunction, find_function, is_own, options_in

if TYPE_CHECKING:
    from guidebook.catalog import Row

FILE = Path(__file__).with_name("names.json")
_KINDS = {kind.__name__: kind for kind in (int, float, bool, str)}


class Choosing(NamedTuple):
    """What ``guidebook choose`` must know of a model."""

    incomparable: Mapping[str, str]  # option -> why densities at its values cannot be compared


class Data(NamedTuple):
    """What options of the data depend on."""

    standardize: bool


class Names(NamedTuple):
    """What a model of the catalogue has, by name; the fields are those of its `Row`."""

    name: str
    options: dict[str, Option]
    guides: dict[str, None]
    unavailable: dict[str, tuple[str, str]]  # reason, nearest
    default_methods: tuple[str, ...]
    default_method: str
    default_guide: str
    choosing: Choosing
    data: Data
    own: OwnFunction | None = None


def _options(found: dict[str, list[Any]]) -> dict[str, Option]:
    return {
        name: Option(_KINDS[kind], default, words, low, closed, tuple(choices))
        for name, (kind, default, words, low, closed, choices) in found.items()
    }


_KNOWN: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
ALIASES: dict[str, str] = _KNOWN["aliases"]  # methods that are svi with a guide
METHODS: dict[str, dict[str, Option]] = {name: _options(found) for name, found in _KNOWN["methods"].items()}
GUIDED = ("svi", "online")  # methods that take a guide


def _names(name: str, found: dict[str, Any]) -> Names:
    return Names(
        name,
        _options(found["options"]),
        dict.fromkeys(found["guides"]),
        {cell: (reason, nearest) for cell, (reason, nearest) in found["unavailable"].items()},
        tuple(found["default_methods"]),
        found["default_method"],
        found["default_guide"],
        Choosing(found["incomparable"]),
        Data(found["standardize"]),
    )


MODELS: dict[str, Names] = {name: _names(name, found) for name, found in _KNOWN["models"].items()}


def find_names(model: str) -> Names:
    """Return what a model has, also one in a user's file, which is not run: of its options, those that can be read."""
    if is_own(model):
        own = find_function(model)
        return _names(model, _KNOWN["own"])._replace(options=options_in(own) or {}, own=own)
    if model not in MODELS:
        raise ValueError(unknown("model", model, MODELS))
    return MODELS[model]


def check_data(model: str, data: str | None) -> None:
    """Refuse a file that is not there, and a data set that is not bundled."""
    if data is None or data in _KNOWN["data"] + _KNOWN["fetched"] or Path(data).exists():
        return
    if Path(data).suffix or Path(data).parent != Path() or is_own(model):
        raise FileNotFoundError(f"no such file: {data}")
    near = difflib.get_close_matches(data.lower(), _KNOWN["data"], n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    there = f"{meant}bundled are {', '.join(_KNOWN['data'])}; or give {_KNOWN['kinds']}"
    raise ValueError(f"unknown data set '{data}': {there}")


def check_settings(row: Names, settings: Iterable[str] | None) -> None:
    """Refuse options that neither the model nor its methods have, and values that they cannot take."""
    if row.own is None or options_in(row.own) is not None:
        parse_options(row, settings or ())


def methods_of(row: Row | Names) -> list[str]:
    """Return the methods that can fit a model."""
    return [method for method in (*METHODS, *ALIASES) if method not in row.unavailable]


def split_method(row: Row | Names, method: str | None, guide: str | None = None) -> tuple[str, str | None]:
    """Resolve ``svi``, ``svi:full_rank``, ``laplace``, … to a method and the name of its guide.

    That is None for methods without one, and for `online` if none is given: some models have steps of their own.
    """
    if method is None:
        method = "svi" if guide else row.default_method
    name, _, suffix = method.partition(":")
    if suffix and guide:
        raise ValueError(f"give the guide once: --method {method} and --guide {guide} name two")
    guide = suffix or guide
    if name not in METHODS and name not in ALIASES:
        raise ValueError(unknown("method", name, [*METHODS, *ALIASES]))
    if guide and name not in GUIDED:
        raise ValueError(f"{name} takes no guide (got {guide!r}): guides belong to {' and '.join(GUIDED)}")
    if name in row.unavailable:
        reason, nearest = row.unavailable[name]
        others = ", ".join(m for m in methods_of(row) if m != nearest)
        raise ValueError(f"{row.name} has no {name}: {reason}; nearest is {nearest}, and it has {others}")
    if name in ALIASES:
        name, guide = "svi", ALIASES[name]
    if name not in GUIDED or (name == "online" and not guide):
        return name, None
    guide = guide or row.default_guide
    if is_own(guide):
        find_function(guide)
        return name, guide
    if guide in row.unavailable:
        reason, nearest = row.unavailable[guide]
        raise ValueError(f"{row.name} has no guide {guide}: {reason}; nearest is {nearest}")
    if guide not in row.guides:
        raise ValueError(unknown(f"guide of {row.name}", guide, row.guides))
    return name, guide


def split_methods(
    row: Row | Names, methods: str | None, reference: str | None
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


def options_of(row: Row | Names) -> dict[str, Any]:
    """Return the model's options and those of the methods that can fit it; of one name, the model's."""
    options = dict(row.options)
    for name, method in METHODS.items():
        options |= {} if name in row.unavailable else {k: v for k, v in method.items() if k not in row.options}
    return options


def parse_options(
    row: Row | Names, settings: Iterable[str], defaults: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Read ``option=value`` texts into the values of all options: the model's, its methods' and the data's.

    ``defaults`` take precedence over the options' own.
    """
    known = OWN_DATA_OPTIONS | options_of(row) if row.own else options_of(row) | DATA_OPTIONS
    known |= {name: known[name]._replace(default=value) for name, value in defaults.items()}
    values = parse(settings, known, row.name)
    if values.get("standardize", False) is None:
        values["standardize"] = row.data.standardize
    return values
