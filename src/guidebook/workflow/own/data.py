"""Data by argument name: keys of a .npz or a .json, columns of a .csv."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from guidebook.datasets.cells import number
from guidebook.datasets.readers.archives import check_unpacked
from guidebook.datasets.readers.csv import read_cells
from guidebook.datasets.table import listed, quoted, shown
from guidebook.inference.traces.arguments import as_tensor

Names = Mapping[str, Sequence[str]]  # of the columns of a matrix, or of the categories behind codes, by argument
NONE: Names = MappingProxyType({})
MATRIX = ("x", "X")  # arguments that get the numeric columns of a .csv that no other argument names
KINDS = "a .csv, .npz or .json"


class OwnData(NamedTuple):
    """What a file gives a model's arguments."""

    values: dict[str, Any]  # tensors, and plain numbers, truth values and words of a .json
    names: dict[str, tuple[str, ...]]  # see `Names`
    unused: tuple[str, ...]  # keys or columns that are no argument's


def read_arguments(source: str, arguments: Sequence[str], known: Names = NONE) -> OwnData:
    """Read the data of a model's arguments from a file.

    Parameters
    ----------
    source : str
        Path of a .npz (without pickles) or a .json with a key per argument, or of a .csv with a column per argument.
        An argument called x or X gets the numeric columns of a .csv that no other argument names, as a matrix.
    arguments : sequence of str
        Names of the model's arguments.
    known : mapping, optional
        Names that an earlier file gave: a matrix gets these columns in this order, and text the codes of these
        categories.

    Returns
    -------
    OwnData
        Numbers in float64 and int64. Text becomes codes from 0, in alphabetical order unless they are known.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of another kind, holds what no argument can be, lacks a known column or has another category.
    """
    where, path = shown(source), Path(source)
    readers = {".csv": _csv, ".npz": _npz, ".json": _json}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{where}: a model in a file of its own takes its data from {KINDS} file, by argument name")
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {where}")
    return readers[path.suffix.lower()](where, path, arguments, known)


def _json(where: str, path: Path, arguments: Sequence[str], known: Names) -> OwnData:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{where} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{where} holds a {type(found).__name__}, and an object with a key per argument is needed")
    return _by_key(where, {key: _array(f"{where}: {key!r}", value) for key, value in found.items()}, arguments, known)


def _array(what: str, value: Any) -> Any:
    if value is None:
        raise ValueError(f"{what} is null, and a value is needed")
    if isinstance(value, dict):
        raise ValueError(f"{what} is an object, and numbers are needed")
    if not isinstance(value, list):
        return value
    try:
        return np.array(value)
    except (RecursionError, ValueError):
        raise ValueError(f"{what} is ragged, its rows of different lengths, or nested too deeply") from None


def _npz(where: str, path: Path, arguments: Sequence[str], known: Names) -> OwnData:
    found = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            check_unpacked(where, archive)
            for key in archive.files:
                found[key] = archive[key]
    except Exception as error:  # a damaged file raises anything
        if str(error).startswith(f"{where}: its arrays"):
            raise
        pickled = "Object arrays" in str(error)
        why = "holds Python objects (pickled)" if pickled else "cannot be read, and seems damaged or is no .npz"
        raise ValueError(f"{where} {why}") from None
    return _by_key(where, {k: v.item() if v.ndim == 0 else v for k, v in found.items()}, arguments, known)


def _by_key(where: str, found: dict[str, Any], arguments: Sequence[str], known: Names) -> OwnData:
    values, names = {}, {}
    for key in (key for key in found if key in arguments):
        value = found[key]
        if isinstance(value, np.ndarray) and value.dtype.kind == "U":
            codes, names[key] = _coded(f"{where}: {key!r}", value.ravel().tolist(), known.get(key))
            values[key] = codes.reshape(value.shape)
        else:
            values[key] = as_tensor(f"{where}: {key!r}", value) if isinstance(value, np.ndarray) else value
    return OwnData(values, names, tuple(key for key in found if key not in arguments))


def _csv(where: str, path: Path, arguments: Sequence[str], known: Names) -> OwnData:
    with path.open("rb") as file:
        columns, lines, rows = read_cells(where, file)
    cells = {name: [row[place].strip() for row in rows] for place, name in enumerate(columns)}
    values: dict[str, Any] = {}
    names: dict[str, tuple[str, ...]] = {}
    for name in (name for name in columns if name in arguments):
        values[name], found = _column(f"{where}: column {quoted(name)}", cells[name], lines, known.get(name))
        names |= {name: found} if found else {}
    left = [name for name in columns if name not in arguments]
    matrix = next((name for name in MATRIX if name in arguments and name not in columns), None)
    if matrix is not None:
        numeric = [name for name in left if any(number(cell) is not None for cell in cells[name])]
        if matrix in known:
            if missing := [quoted(name) for name in known[matrix] if name not in numeric]:
                raise ValueError(f"{where}: no column {listed(missing)} of numbers, which the fit used for {matrix}")
            numeric = list(known[matrix])
        if numeric:
            parts = [_column(f"{where}: column {quoted(name)}", cells[name], lines)[0] for name in numeric]
            values[matrix] = torch.stack([part.double() for part in parts], 1)
            names[matrix] = tuple(numeric)
        left = [name for name in left if name not in numeric]
    return OwnData(values, names, tuple(left))


def _column(
    what: str, cells: list[str], lines: list[int], categories: Sequence[str] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Return a column as numbers, or as codes with their names; ValueError for a cell of another kind than the rest."""
    numbers = [number(cell) for cell in cells]
    for line, cell, value in zip(lines, cells, numbers, strict=True):
        if not cell:
            raise ValueError(f"{what}, line {line}: the value is missing")
        if value is not None and not np.isfinite(value):
            raise ValueError(f"{what}, line {line}: {quoted(cell)} is not finite")
    if categories is not None:
        return _coded(what, cells, categories)
    words = [place for place, value in enumerate(numbers) if value is None]
    if {cell.lower() for cell in cells} <= {"true", "false"}:
        return torch.tensor([cell.lower() == "true" for cell in cells]), ()
    if len(words) == len(cells):
        return _coded(what, cells, None)
    if words:
        raise ValueError(f"{what}, line {lines[words[0]]}: {quoted(cells[words[0]])} is not a number, as others are")
    if all(re.fullmatch(r"[+-]?\d{1,18}", cell) for cell in cells):
        return torch.tensor([int(cell) for cell in cells]), ()
    return torch.tensor(numbers, dtype=torch.float64), ()


def _coded(what: str, texts: list[str], categories: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Return the place of each text among the categories, and these; ValueError for another one."""
    categories = tuple(sorted(set(texts)) if categories is None else categories)
    places = {category: place for place, category in enumerate(categories)}
    if new := [text for text in texts if text not in places]:
        raise ValueError(f"{what}: {quoted(new[0])} is none of the categories of the fit, {listed(categories)}")
    return torch.tensor([places[text] for text in texts]), categories
