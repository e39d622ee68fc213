"""What every reader returns, how a target is looked up, and how error messages quote what they found."""

import difflib
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

KINDS = "a .csv, .npy, .npz or .mtx file"
HINT = "; if the column holds labels, give --set target=NAME"


class Table(NamedTuple):
    """What a reader finds.

    Attributes
    ----------
    x : ndarray, shape (n, d), float64
        Features, all finite.
    columns : list of str, length d
    labels : sequence of str or ndarray, shape (n,), optional
        Labels as they stand.
    target : str
        What to call the labels in error messages.
    classes : sequence of str, optional
        Names of labels 0, 1, …; default: the labels themselves.
    """

    x: np.ndarray
    columns: list[str]
    labels: Sequence[str] | np.ndarray | None = None
    target: str = "the target"
    classes: Sequence[str] | None = None


def target_column(where: str, target: str | None, columns: list[str], supervised: bool) -> int | None:
    """Index of the column that ``target`` names, None if there is none."""
    if target is None:
        if supervised:
            raise ValueError(
                f"{where}: which column holds the labels? give --set target=NAME; columns are {listed(columns)}"
            )
        return None
    name = " ".join(target.split())
    if name in columns:
        return columns.index(name)
    index = place(target, len(columns))
    if index is not None:
        return index
    near = difflib.get_close_matches(name, columns, n=1)
    meant = f"did you mean {listed(near)}? " if near else ""
    raise ValueError(f"{where}: no column {quoted(target)}: {meant}columns are {listed(columns)}")


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


def quoted(text: str) -> str:
    """A text as error messages quote it."""
    return repr(short(text.strip()))


def listed(texts: Sequence[str], most: int = 12) -> str:
    """The first ``most`` texts, separated by commas."""
    return ", ".join([shown(short(text)) for text in texts[:most]] + ["…"] * (len(texts) > most))


def flaw_of(cell: str, *, is_label: bool = False) -> str | None:
    """What is wrong with a cell: a label may be any text, other cells are finite numbers."""
    value = number(cell)
    if not cell.strip():
        return "the value is missing"
    if value is None:
        return None if is_label else f"{quoted(cell)} is not a number"
    if math.isfinite(value):
        return None
    return f"{quoted(cell)} is {'not a number (NaN)' if math.isnan(value) else 'infinite'}"


def number(cell: str) -> float | None:
    """The number that a cell stands for, infinite and NaN ones among them; None for text."""
    try:
        return None if "_" in cell else float(cell)  # float reads 1_000
    except ValueError:
        return None
