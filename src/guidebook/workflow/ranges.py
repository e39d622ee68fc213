"""The option that ``guidebook choose`` varies, and its values: ``num_components=1..8``, ``prior_scale=.1,1,10``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from guidebook.workflow.names import Names, options_of
from guidebook.workflow.options import DATA_OPTIONS, Option, parse, unknown

if TYPE_CHECKING:
    from guidebook.catalog import Row

MOST_VALUES = 100
_EXAMPLE = "such as num_components=1..8 or prior_scale=0.1,1,10"


class Range(NamedTuple):
    """An option of the model, and the values to fit it at, in the order given."""

    option: str
    values: tuple[Any, ...]


def split_range(row: Row | Names, settings: Iterable[str]) -> tuple[Range, list[str]]:
    """Return the one range among ``option=value`` texts, and the texts that fix the other options.

    Raises
    ------
    ValueError
        If there is no range or more than one, if its option is unknown or not the model's, or if its values are none,
        one, out of bounds or not comparable.
    """
    ranges, fixed = [], []
    for setting in settings:
        name, _, text = setting.partition("=")
        is_range = name not in DATA_OPTIONS and (".." in text or "," in text)
        (ranges if is_range else fixed).append(setting)
    if not ranges:
        raise ValueError(f"choose: give one option several values, {_EXAMPLE}: {_known(row)}")
    names = [setting.partition("=")[0] for setting in ranges]
    if len(ranges) > 1:
        raise ValueError(f"choose: varies one option at a time, got {' and '.join(names)}")
    name, text = names[0], ranges[0].partition("=")[2]
    if name in [setting.partition("=")[0] for setting in fixed]:
        raise ValueError(f"choose: {name} is given twice, once as a range")
    if name not in row.options:
        if name in options_of(row):
            raise ValueError(f"choose: {name} is an option of a method, and only the model's can vary: {_known(row)}")
        raise ValueError("choose: " + unknown(f"option of {row.name}", name, row.options))
    if name in row.choosing.incomparable:
        raise ValueError(
            f"choose: densities at different values of {name} cannot be compared: {row.choosing.incomparable[name]}"
        )
    return Range(name, _values(name, text, row.options[name], row.name)), fixed


def _values(name: str, text: str, option: Option, of: str) -> tuple[Any, ...]:
    parts = [part.strip() for part in text.split(",")]
    if ".." in text:
        parts = _whole_numbers(name, text, option)
    if "" in parts:
        raise ValueError(f"choose: {name}={text} has an empty value")
    values = [parse([f"{name}={part}"], {name: option}, of)[name] for part in parts]
    repeated = next((value for value in values if values.count(value) > 1), None)
    if repeated is not None:
        raise ValueError(f"choose: {name}={text} has {repeated} twice")
    if len(values) < 2:
        raise ValueError(f"choose: {name}={text} holds one value, and there is nothing to choose from")
    return tuple(values)


def _whole_numbers(name: str, text: str, option: Option) -> list[str]:
    """Return the numbers from A to B of "A..B", both included, as texts."""
    if option.kind is not int:
        raise ValueError(f"choose: A..B counts whole numbers, and {name} is none: list its values, as in {name}=a,b,c")
    ends = re.fullmatch(r"\s*(\d{1,9})\s*\.\.\s*(\d{1,9})\s*", text)
    if not ends:
        raise ValueError(f"choose: {name}={text} is no range: write A..B with whole numbers, as in {name}=1..8")
    first, last = int(ends[1]), int(ends[2])
    if last < first:
        raise ValueError(f"choose: {name}={text} runs backwards: write {name}={last}..{first}")
    if last - first >= MOST_VALUES:
        raise ValueError(
            f"choose: {name}={text} holds {last - first + 1:,} values, and at most {MOST_VALUES} are fitted"
        )
    return [str(value) for value in range(first, last + 1)]


def _known(row: Row | Names) -> str:
    return f"{row.name} has {', '.join(name for name in row.options if name not in row.choosing.incomparable)}"
