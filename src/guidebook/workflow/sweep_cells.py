"""The cells of ``guidebook sweep``: models × methods × data × seeds, checked before anything slow is imported."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from guidebook.workflow.names import Names, check_data, find_names, options_of, split_method
from guidebook.workflow.options import DATA_OPTIONS, parse
from guidebook.workflow.own.file import is_own

MOST_SEEDS = 10_000


class Cell(NamedTuple):
    """One fit of a sweep: what ``guidebook run`` is given."""

    model: str
    method: str  # svi with its guide: svi:full_rank
    data: str | None
    seed: int
    settings: tuple[str, ...]
    counts: dict[str, int | None]  # steps, draws, warmup, chains
    device: str | None
    judged: bool


class Gap(NamedTuple):
    """A model that has no such method or guide."""

    model: str
    method: str
    reason: str


def sweep_cells(
    models: str,
    methods: str | None,
    data: str | None,
    seeds: str,
    settings: Sequence[str],
    **options: Any,
) -> tuple[list[Cell], list[Gap]]:
    """Return the cells of lists separated by commas, and the pairs that do not exist.

    ``options`` are the last fields of `Cell`. Settings go to those models that have the option.

    Raises
    ------
    ValueError, OSError
        For a name that no model has, a value that an option cannot take, a file that is not there, or a sweep without
        any cell.
    """
    rows = {_absolute_model(name): find_names(name) for name in _listed(models, "MODELS")}
    taken = _settings(rows, settings)
    sources = [_absolute_data(name) for name in _listed(data, "--data")] if data else [None]
    for model in rows:
        for source in sources:
            check_data(model, source)
    found: dict[str, list[str]] = {}
    gaps: list[Gap] = []
    for model, row in rows.items():
        given = _listed(methods, "--methods") if methods else list(row.default_methods)
        found[model] = []
        for name in given:
            try:
                method, guide = split_method(row, name)
            except ValueError as error:
                gaps.append(Gap(model, name, str(error)))
                continue
            label = f"{method}:{guide}" if guide else method
            if label in found[model]:
                raise ValueError(f"--methods names {label} twice")
            found[model].append(label)
    _check_gaps(rows, gaps)
    numbers = _seeds(seeds)
    cells = [
        Cell(model, method, source, seed, taken[model], **options)
        for model in rows
        for source in sources
        for method in found[model]
        for seed in numbers
    ]
    return cells, gaps


def _listed(text: str, what: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise ValueError(f"{what}: {text!r} has an empty name")
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{what} names {repeated} twice")
    return names


def _check_gaps(rows: dict[str, Names], gaps: list[Gap]) -> None:
    """Raise ValueError for a method that no model has, such as a slip of the pen."""
    for gap in gaps:
        if len([other for other in gaps if other.method == gap.method]) == len(rows):
            raise ValueError(gap.reason)


def _settings(rows: dict[str, Names], settings: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return each model's own among the settings."""
    taken: dict[str, tuple[str, ...]] = {model: () for model in rows}
    for setting in settings:
        name = setting.partition("=")[0]
        owners = [m for m, row in rows.items() if row.own or name in options_of(row) | DATA_OPTIONS]
        for model in owners or rows:
            row = rows[model]
            if not row.own:
                parse([setting], options_of(row) | DATA_OPTIONS, row.name)
            taken[model] += (setting,)
    return taken


def _seeds(text: str) -> list[int]:
    """Return the seeds of "A..B", both included, or of a list."""
    if ends := re.fullmatch(r"\s*(\d{1,10})\s*\.\.\s*(\d{1,10})\s*", text):
        first, last = int(ends[1]), int(ends[2])
        if not 0 <= last - first < MOST_SEEDS:
            raise ValueError(f"--seeds: {text} must run upwards, over at most {MOST_SEEDS:,} seeds")
        found = list(range(first, last + 1))
    elif all(re.fullmatch(r"\s*\d{1,10}\s*", part) for part in text.split(",")):
        found = [int(part) for part in text.split(",")]
    else:
        raise ValueError(f"--seeds takes A..B or a list such as 0,1,2; got {text!r}")
    if len({*found}) < len(found) or max(found) >= 2**32:
        raise ValueError(f"--seeds: {text} must be different numbers below {2**32}")
    return found


def _absolute_model(name: str) -> str:
    """Return a model's name as workers in other folders can use it."""
    if not is_own(name):
        return name
    path, _, function = name.rpartition(":")
    return f"{Path(path).resolve()}:{function}"


def _absolute_data(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name
