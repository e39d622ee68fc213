"""Comparisons and fits in folders and JSON files, as the commands have stored them, for a page that shows several."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

COMPARISON, FIT, MARGINALS, CHOICE = "comparison.json", "result.json", "marginals.json", "choice.json"
_OF_COMPARISON = {"model": str, "data": str, "reference": str, "methods": list}
_OF_METHOD = {"name": str, "seconds": float, "judgement": str, "verdict": str, "worst": dict, "quantities": dict}
_OF_FIT = {"model": str, "data": str, "chosen": str, "sentence": str, "rungs": list}


class Stored(NamedTuple):
    """What `read_stored` has found: records of ``compare`` and of ``fit``, as their ``--json`` prints them."""

    comparisons: list[dict[str, Any]]
    fits: list[dict[str, Any]]


def read_stored(places: Iterable[Path]) -> Stored:
    """Read comparisons and fits.

    Parameters
    ----------
    places : iterable of Path
        Folders that ``compare --out`` or ``fit --out`` wrote, folders of such folders, or files that ``compare --json``
        or ``fit --json`` wrote. Comparisons from folders have their ``marginals``.

    Raises
    ------
    FileNotFoundError
        If there is no such place.
    ValueError
        If it holds no comparison and no fit.
    """
    found = Stored([], [])
    for place in places:
        files = list(_files(place))
        if not files:
            raise ValueError(f"explore: {place} holds no comparison: make one with guidebook compare --out {place}")
        for file in files:
            _add(found, file)
    return found


def _files(place: Path) -> Iterator[Path]:
    if not place.exists():
        raise FileNotFoundError(f"explore: no such file or folder: {place}")
    if not place.is_dir():
        yield place
        return
    for folder in (place, *sorted(place.iterdir())):
        yield from (file for name in (COMPARISON, FIT) if (file := folder / name).is_file())


def _add(found: Stored, file: Path) -> None:
    record = _read(file)
    if _has(record, _OF_COMPARISON) and all(_has(method, _OF_METHOD) for method in record["methods"]):
        marginals = file.with_name(MARGINALS)
        beside = {"marginals": _read(marginals)} if file.name == COMPARISON and marginals.is_file() else {}
        found.comparisons.append(record | beside)
    elif _has(record, _OF_FIT):
        found.fits.append(record)
    elif file.name != FIT:  # of one method, which has no ladder
        raise ValueError(f"explore: {file} is neither a comparison nor a fit")


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"explore: {file} is no JSON") from None


def _has(record: Any, needed: dict[str, type]) -> bool:
    return isinstance(record, dict) and all(isinstance(record.get(key), kind) for key, kind in needed.items())
