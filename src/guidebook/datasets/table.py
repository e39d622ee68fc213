"""What every reader returns, how a target is looked up, and how error messages quote what they found."""

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

KINDS = "a .csv, .npy, .npz or .mtx file"


class Table(NamedTuple):
    """What a reader finds."""

    x: np.ndarray  # (n, d), float64; NaN only where values are to be imputed
    columns: list[str]
    labels: Sequence[str] | np.ndarray | None = None  # as they stand
    target: str = "the target"  # what error messages call the labels
    classes: Sequence[str] | None = None  # names of labels 0, 1, …; default: the labels themselves
    ids: Mapping[str, Sequence[str]] = MappingProxyType({})  # columns that identify the rows, by name
    rows: Sequence[int] | None = None  # places of the rows in the file, from 0; default: all of them
    left_out: int = 0  # number of rows left out for their gaps
    sources: Mapping[str, list[str] | None] | None = None  # the file's columns behind ``x``, with levels of categories


def check_matrix(what: str, values: Any) -> None:
    """Refuse what is not a matrix of real numbers with rows and columns; ``values`` may be sparse."""
    if values.ndim != 2:
        raise ValueError(f"{what}: the shape is {values.shape}, and (rows, columns) is needed")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{what}: values are of type {values.dtype}, and real numbers are needed")
    if 0 in values.shape:
        raise ValueError(f"{what}: the shape is {values.shape}: no {'columns' if values.shape[0] else 'rows'}")


def finite(what: str, values: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Return a matrix as contiguous float64; ``columns`` are its columns' numbers in the file."""
    with np.errstate(over="ignore"):  # of long doubles
        x = np.asarray(values, dtype=np.float64, order="C")
    is_finite = np.isfinite(x)
    if not is_finite.all():
        row, column = np.argwhere(~is_finite)[0].tolist()
        flaw = "NaN" if np.isnan(x[row, column]) else "infinite"
        raise ValueError(f"{what}: row {row}, column {columns[column]}: the value is {flaw}")
    return x


def target_column(where: str, target: str | None, columns: list[str], supervised: bool) -> int | None:
    """Index of the column that ``target`` names, None if there is none."""
    if target is None:
        if supervised:
            which = "which column holds the labels? give --target NAME"
            raise ValueError(f"{where}: {which}; columns are {listed(columns)}")
        return None
    name = " ".join(target.split())
    if name in columns:
        return columns.index(name)
    index = place(target, len(columns))
    if index is not None:
        return index
    raise ValueError(f"{where}: no column {quoted(target)}: {did_you_mean(name, columns)}columns are {listed(columns)}")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Ask whether the nearest of the known names was meant."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {listed(near)}? " if near else ""


def place(text: str | None, length: int) -> int | None:
    """``text`` as an index into ``length`` things, counted from 0; None if it is not one."""
    if text is None or not re.fullmatch(r"\s*[+-]?\d{1,9}\s*", text) or not -length <= int(text) < length:
        return None
    return int(text) % length


def shown(text: str) -> str:
    """Text on one line."""
    return text if text.isprintable() else repr(text)[1:-1]


def short(text: str) -> str:
    """At most 60 characters of a text."""
    return text if len(text) <= 60 else text[:59] + "…"


def typed(name: str) -> str:
    """A name as it stands in a command to type."""
    name = shown(short(name))
    return name if re.fullmatch(r"[\w.-]+", name) else shlex.quote(name)


def quoted(text: str) -> str:
    """A text as error messages quote it."""
    return repr(short(text.strip()))


def listed(texts: Sequence[str], most: int = 12) -> str:
    """The first ``most`` texts, separated by commas."""
    return ", ".join([shown(short(text)) for text in texts[:most]] + ["…"] * (len(texts) > most))
