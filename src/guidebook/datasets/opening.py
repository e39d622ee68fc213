"""From a path to a table: which reader a file or a folder needs, and what cannot be opened at all."""

import os
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from .readers.csv import Levels, read_csv
from .readers.images import read_images, what_is_in
from .readers.matrix_market import read_mtx
from .readers.numpy import read_npy, read_npz
from .readers.text import read_texts
from .selection import Selection, no_column
from .table import KINDS, Table, did_you_mean, shown

_READERS = {".csv": read_csv, ".npy": read_npy, ".npz": read_npz, ".mtx": read_mtx}


def read_source(
    source: str,
    target: str | None,
    supervised: bool,
    selection: Selection,
    bundled: Sequence[str] = (),
    *,
    sources: Levels | None = None,
    vocabulary: Sequence[str] | None = None,
) -> Table:
    """Read a file or a folder; ``sources`` and ``vocabulary`` are those of an earlier table, to make its columns again.

    Raises
    ------
    FileNotFoundError
        If nothing is there.
    OSError
        If it cannot be read.
    ValueError
        If it is of a kind that is not read, or holds no such data; ``bundled`` are names that may have been meant.
    """
    where = shown(source)
    kind = _kind(source, bundled)
    if kind in ("text", "images"):
        return _read_folder(where, Path(source), kind, target, selection, vocabulary)
    read: Any = _READERS[kind]
    if kind == ".csv":
        read = partial(read_csv, selection=selection, sources=sources, vocabulary=vocabulary)
    elif selection.needs_file() and sources is None:
        raise ValueError(f"{where}: identifiers, categories, documents and gaps are read from a .csv")
    try:
        with open(source, "rb") as file:
            table = read(where, file, target, supervised)
    except OSError as error:
        _refuse(where, error)
    return table if kind == ".csv" else _selected(where, table, selection)


def _selected(where: str, table: Table, selection: Selection) -> Table:
    """Return the columns of an array that are asked for."""
    if absent := [name for name in selection.names() if name not in table.columns]:
        raise ValueError(no_column(where, absent, table.columns))
    if not selection.columns and not selection.drop:
        return table
    places = {name: place for place, name in enumerate(table.columns) if name not in selection.drop}
    names = [name for name in selection.columns or places if name in places]
    return table._replace(x=table.x[:, [places[name] for name in names]], columns=names)


def _read_folder(
    where: str, folder: Path, kind: str, target: str | None, selection: Selection, vocabulary: Sequence[str] | None
) -> Table:
    if target is not None or selection.names():
        raise ValueError(f"{where}: a folder has no columns to choose from")
    return read_texts(where, folder, selection.stop_words, vocabulary) if kind == "text" else read_images(where, folder)


def _kind(source: str, bundled: Sequence[str]) -> str:
    """Return the ending of a file that is read, or "text" or "images" for a folder; raise for anything else."""
    where, suffix = shown(source), Path(source).suffix.lower()
    try:
        mode = os.stat(source).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        if suffix or os.path.dirname(source):
            raise FileNotFoundError(f"no such file: {where}") from None
        meant = did_you_mean(source.lower(), bundled)
        there = f"{meant}bundled are {', '.join(bundled)}; or give {KINDS}"
        raise ValueError(f"unknown data set '{where}': {there}") from None
    except OSError as error:
        _refuse(where, error)
    if stat.S_ISDIR(mode):
        return what_is_in(where, Path(source))
    if suffix not in _READERS:
        ending = f"ending in {suffix}" if suffix else "without an ending"
        raise ValueError(f"{where}: files {ending} are not read; give {KINDS}")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{where}: this is not a regular file")
    return suffix


def _refuse(where: str, error: OSError) -> NoReturn:
    raise type(error)(f"{where}: cannot be read: {error.strerror or error}") from error
