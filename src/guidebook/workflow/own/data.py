"""Data by argument name: keys of a .npz or a .json, columns of a .csv."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.datasets.readers.archives import check_unpacked
from guidebook.datasets.selection import Selection
from guidebook.datasets.table import shown
from guidebook.inference.traces.arguments import as_tensor
from guidebook.workflow.own.table import read_table
from guidebook.workflow.own.values import NONE, Names, OwnData, coded

KINDS = "a .csv, .npz or .json"


def read_arguments(
    source: str,
    arguments: Sequence[str],
    known: Names = NONE,
    selection: Selection = Selection(),  # noqa: B008 (immutable)
    *,
    is_new: bool = False,
) -> OwnData:
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
    selection : Selection
        Which columns of a .csv identify the rows, are left out, belong to the matrix or are categories, and what is
        done about gaps.
    is_new : bool
        Whether the file is another than the one fitted: columns that the fit left out need not be there.

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
    kind = path.suffix.lower()
    if kind not in (".csv", ".npz", ".json"):
        raise ValueError(f"{where}: a model in a file of its own takes its data from {KINDS} file, by argument name")
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {where}")
    if kind == ".csv":
        return read_table(where, path, arguments, known, selection, is_new=is_new)
    if not is_new and (selection.names() or selection.needs_file()):
        raise ValueError(f"{where}: columns are chosen, and rows with gaps dropped, in a .csv")
    return (_npz if kind == ".npz" else _json)(where, path, arguments, known)


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
    if None in value:
        raise ValueError(f"{what} has a missing value, null, at place {value.index(None)}: leave that row out")
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
            codes, names[key] = coded(f"{where}: {key!r}", value.ravel().tolist(), known.get(key))
            values[key] = codes.reshape(value.shape)
        else:
            values[key] = as_tensor(f"{where}: {key!r}", value) if isinstance(value, np.ndarray) else value
    return OwnData(values, names, tuple(key for key in found if key not in arguments))
