"""Comma-separated text; every error names the line and the column."""

import csv
import io
import itertools
import math
from array import array
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from ..table import HINT, Table, flaw_of, listed, number, place, quoted, target_column


def read_csv(where: str, file: BinaryIO, target: str | None, supervised: bool) -> Table:
    """Read a .csv; ``where``: name used in error messages."""
    text = _decoded(where, file.read())
    records = _records(where, text, _delimiter(text))
    line, first = next(records, (0, []))
    if not line:
        raise ValueError(f"{where}: the file is empty")
    first = [" ".join(cell.split()) for cell in first]
    columns = [f"x{index}" for index in range(len(first))]
    if _is_header(where, line, first, target):
        columns = first
        for index, column in enumerate(columns):
            if not column:
                raise ValueError(f"{where}: line {line}: column {index + 1} of {len(columns)} has no name")
            if column in columns[:index]:
                raise ValueError(f"{where}: line {line}: two columns are called {quoted(column)}")
    else:
        records = itertools.chain([(line, first)], records)
    label = target_column(where, target, columns, supervised)
    kept = [column for index, column in enumerate(columns) if index != label]

    rows, values, labels = 0, array("d"), []
    for line, cells in records:
        if (width := len(cells)) < len(columns):
            missing = f"there is none for column {quoted(columns[width])}"
            raise ValueError(f"{where}: line {line} has {width} of {len(columns)} cells: {missing}")
        if width > len(columns):
            beyond = f"one or more follow the last column, {quoted(columns[-1])}"
            raise ValueError(f"{where}: line {line} has {width} cells, not {len(columns)}: {beyond}")
        if label is not None:
            labels.append(cells.pop(label))
            if supervised and (flaw := flaw_of(labels[-1], is_label=True)):
                raise ValueError(f"{where}: line {line}, column {quoted(columns[label])}: {flaw}")
        try:
            numbers = [float(cell) for cell in cells]
        except ValueError:
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)) or "_" in "".join(cells):  # float reads 1_000
            column, cell = next((column, cell) for column, cell in zip(kept, cells, strict=True) if flaw_of(cell))
            hint = "" if label is not None or flaw_of(cell, is_label=True) else HINT
            raise ValueError(f"{where}: line {line}, column {quoted(column)}: {flaw_of(cell)}{hint}")
        values.extend(numbers)
        rows += 1
    if not rows:
        raise ValueError(f"{where}: there is a header ({listed(columns)}) and no row of data")
    x = np.array(values, dtype=np.float64).reshape(rows, len(kept))
    if label is None or not supervised:
        return Table(x, kept)
    return Table(x, kept, labels, f"the target {quoted(columns[label])}")


def read_cells(where: str, file: BinaryIO) -> tuple[list[str], list[int], list[list[str]]]:
    """Read a .csv with a header as text: names of the columns, the line of each row, and its cells."""
    text = _decoded(where, file.read())
    records = list(_records(where, text, _delimiter(text)))
    if not records:
        raise ValueError(f"{where}: the file is empty")
    (line, first), *rows = records
    columns = [" ".join(cell.split()) for cell in first]
    if any(number(cell) is not None for cell in columns):
        raise ValueError(
            f"{where}: line {line} has numbers: name the columns there, since arguments find theirs by name"
        )
    if len(set(columns)) < len(columns):
        raise ValueError(f"{where}: line {line}: two columns are called {quoted(max(columns, key=columns.count))}")
    if not rows:
        raise ValueError(f"{where}: there is a header ({listed(columns)}) and no row of data")
    for line, cells in rows:
        if len(cells) != len(columns):
            raise ValueError(f"{where}: line {line} has {len(cells)} cells, and there are {len(columns)} columns")
    return columns, [line for line, _ in rows], [cells for _, cells in rows]


def _decoded(where: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        utf16 = " (it looks like UTF-16)" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        byte = f"byte 0x{raw[error.start]:02x}{utf16}"
        raise ValueError(f"{where}: line {line} is not UTF-8 text: {byte}; save it as UTF-8") from error


def _delimiter(text: str) -> str:
    """A tab, semicolon or comma: the first that splits all of the first lines, else what splits line 1 most.

    Tab and semicolon come before the comma, which may be a decimal one beside them.
    """
    widths = {}
    for delimiter in "\t;,":
        with io.StringIO(text, newline="") as stream:
            rows = csv.reader(stream, delimiter=delimiter, skipinitialspace=True)
            try:
                widths[delimiter] = [len(row) for row in itertools.islice(rows, 20) if row] or [0]
            except csv.Error:
                widths[delimiter] = [0]
    whole = (delimiter for delimiter, width in widths.items() if min(width) > 1)
    return next(whole, max(",;\t", key=lambda delimiter: widths[delimiter][0]))


def _records(where: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Records and the lines they start on; blank lines may only end the file."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    line, blank = 1, 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{where}: line {line} is not well-formed: {error}") from error
        if len(cells) > 1 or (cells and cells[0].strip()):
            if blank:
                raise ValueError(f"{where}: line {blank} is blank, and data follow it")
            yield line, cells
        else:
            blank = blank or line
        line = reader.line_num + 1


def _is_header(where: str, line: int, first: list[str], target: str | None) -> bool:
    """Whether the first record names the columns; an error where it is neither names nor data.

    Data are numbers or missing; where ``target`` is a position ("2" or "x2"), the cell there may be anything.
    """
    numeric = [number(cell) is not None for cell in first]
    if not any(numeric) or (target in first and not numeric[first.index(target)]):
        return True
    label = place(target and target.removeprefix("x"), len(first))
    texts = [k for k, cell in enumerate(first) if cell.strip() and not numeric[k] and k != label]
    if not texts:
        return False
    text, figure = first[texts[0]], first[numeric.index(True)]
    raise ValueError(
        f"{where}: line {line} is neither names nor numbers: column 'x{texts[0]}' has {quoted(text)}, "
        f"which is not a number as {quoted(figure)} is; name every column, or none"
        + ("; labels in a file without names need --set target=INDEX" if target is None else "")
    )
