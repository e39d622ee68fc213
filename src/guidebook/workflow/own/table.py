"""Columns of a .csv as arguments of a user's own model: numbers, truth values, or codes of categories."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guidebook.datasets.cells import flaw_of, is_date, is_written_number
from guidebook.datasets.columns import Column, read_commas
from guidebook.datasets.flaws import column_flaws, gap_flaws, refuse
from guidebook.datasets.readers.csv import read_cells
from guidebook.datasets.selection import Selection, no_column
from guidebook.datasets.table import listed, quoted, typed
from guidebook.workflow.own.values import Names, OwnData, coded

MATRIX = ("x", "X")  # arguments that get the numeric columns that no other argument names
MOST_WHOLE = 2**53  # below which float64 holds every whole number


def read_table(
    where: str, path: Path, arguments: Sequence[str], known: Names, selection: Selection, *, is_new: bool
) -> OwnData:
    """Read the arguments' columns of a .csv; parameters are those of `read_arguments`, ``where`` opens errors."""
    with path.open("rb") as file:
        found = read_cells(where, file)
    if is_new:  # columns that the fit left out need not be there
        there = {part: tuple(n for n in getattr(selection, part) if n in found.columns) for part in ("id", "drop")}
        selection = selection._replace(**there, columns=(), categories=())
    if absent := [name for name in selection.names() if name not in found.columns]:
        raise ValueError(no_column(where, absent, found.columns))
    as_text = {*selection.id, *selection.categories, *(name for name in known if name in arguments)}
    columns = {}
    for place, name in enumerate(found.columns):
        if name not in selection.drop:
            columns[name] = Column(name, name in as_text)
            columns[name].extend([row[place] for row in found.rows])
    by_name = [name for name in columns if name in arguments]
    if idle := [name for name in selection.categories if name not in by_name]:
        raise ValueError(f"{where}: column {quoted(idle[0])} is to be a category, and is no argument of the model")
    matrix = next((name for name in MATRIX if name in arguments and name not in columns), None)
    if selection.columns and matrix is None:
        raise ValueError(f"{where}: columns are chosen for an argument x, and the model has none without a column")
    in_matrix = _in_matrix(where, columns, by_name, matrix, known, selection) if matrix else []
    used = [column for name, column in columns.items() if name in by_name or name in in_matrix]
    if found.delimiter != ",":
        read_commas(where, used, found.lines)
    flaws = column_flaws([columns[name] for name in in_matrix], [*selection.columns, *known.get(matrix or "", ())])
    settled = {name for flaw in flaws for name in flaw.columns}
    rest = [column for column in used if column.name not in settled]
    flaws += gap_flaws(rest, found.lines, selection._replace(imputable=False), is_new=is_new)
    refuse(where, flaws, selection)
    kept = _without_gaps(where, used, found.lines)

    values: dict[str, Any] = {}
    names: dict[str, tuple[str, ...]] = {}
    for name in by_name:
        what = f"{where}: column {quoted(name)}"
        values[name], of_codes = _argument(what, columns[name], found.lines, kept, known.get(name))
        names |= {name: of_codes} if of_codes else {}
    if matrix and in_matrix:
        parts = [_numbers(f"{where}: column {quoted(n)}", columns[n], found.lines, kept) for n in in_matrix]
        values[matrix], names[matrix] = torch.from_numpy(np.stack(parts, 1)), tuple(in_matrix)
    told = {*by_name, *in_matrix, *selection.id, *selection.drop}
    ids = {name: [columns[name].texts[row] for row in kept] for name in selection.id if name in columns}
    unused = tuple(name for name in found.columns if name not in told)
    return OwnData(values, names, unused, kept, ids, len(found.lines) - len(kept))


def _in_matrix(
    where: str,
    columns: Mapping[str, Column],
    by_name: Sequence[str],
    matrix: str,
    known: Names,
    selection: Selection,
) -> list[str]:
    """Return the columns of the matrix: those of the fit, those asked for, or all of numbers that are left."""
    left = [name for name in columns if name not in by_name and name not in selection.id]
    numeric = [name for name in left if _holds_numbers(columns[name])]
    if matrix not in known:
        return list(selection.columns) or numeric
    if missing := [quoted(name) for name in known[matrix] if name not in numeric]:
        raise ValueError(f"{where}: no column {listed(missing)} of numbers, which the fit used for {matrix}")
    return list(known[matrix])


def _holds_numbers(column: Column) -> bool:
    """Whether a column has numbers, perhaps with decimal commas."""
    return column.is_number or any(flaw_of(text.replace(",", ".", 1)) is None for text in column.words.values())


def _without_gaps(where: str, used: Sequence[Column], lines: Sequence[int]) -> list[int]:
    """Return the rows without gaps, from 0; ValueError if there is none."""
    rows = {row for column in used for row in column.missing}
    kept = [row for row in range(len(lines)) if row not in rows]
    if not kept:
        raise ValueError(f"{where}: every row has a gap in a column that the model takes, and none is left")
    return kept


def _argument(
    what: str, column: Column, lines: Sequence[int], kept: Sequence[int], categories: Sequence[str] | None
) -> tuple[Tensor, tuple[str, ...]]:
    """Return a column as numbers, or as codes with their names; ValueError for a cell of another kind than the rest."""
    words = column.words
    texts = [words[row] for row in kept if row in words]
    if column.is_text:
        return coded(what, texts, column.levels() if categories is None else categories)
    if len(texts) == len(kept):
        if {text.lower() for text in texts} <= {"true", "false"}:
            return torch.tensor([text.lower() == "true" for text in texts]), ()
        _check_words(what, column.name, texts)
        return coded(what, texts, None)
    numbers = _numbers(what, column, lines, kept)
    is_whole = column.pointed is None and (numbers % 1 == 0).all() and (abs(numbers) < MOST_WHOLE).all()
    return torch.from_numpy(numbers.astype(np.int64) if is_whole else numbers), ()


def _check_words(what: str, name: str, texts: Sequence[str]) -> None:
    """Raise ValueError for a column of dates, or of numbers in a way of writing that is not read."""
    otherwise = f", or --categories {typed(name)}, if each is a category"
    if all(map(is_date, texts)):
        raise ValueError(f"{what} holds dates: give numbers instead, such as days since a start{otherwise}")
    if sum(map(is_written_number, texts)) > len(texts) / 2:
        raise ValueError(
            f"{what}: {quoted(texts[0])} looks like a number with a separator or a unit: write plain numbers, such as "
            f"1234.5{otherwise}"
        )


def _numbers(what: str, column: Column, lines: Sequence[int], kept: Sequence[int]) -> np.ndarray:
    """Return a column as float64; ValueError for text and for what is not finite."""
    words = column.words
    for row in kept:
        if row in words:
            flaw = flaw_of(words[row]) or ""
            others = (
                f", as others are; --categories {typed(column.name)} takes categories"
                if flaw.endswith("number")
                else ""
            )
            raise ValueError(f"{what}, line {lines[row]}: {flaw}{others}")
    return np.frombuffer(column.numbers, dtype=np.float64)[list(kept)]
