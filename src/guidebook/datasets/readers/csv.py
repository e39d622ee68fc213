"""Comma-separated text; every error names the line and the column."""

import csv
import io
import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from ..cells import comma_number, flaw_of, number
from ..columns import Column, encoded, read_commas
from ..flaws import Flaw, Levels, cell_flaws, column_flaws, label_flaws, level_flaws, refuse
from ..selection import Selection, used_columns
from ..table import Table, listed, place, quoted, target_column
from .text import count_words

_CELLS = 200_000  # read at once


def read_csv(
    where: str,
    file: BinaryIO,
    target: str | None,
    supervised: bool,
    selection: Selection = Selection(),  # noqa: B008 (immutable)
    sources: Levels | None = None,
    vocabulary: Sequence[str] | None = None,
) -> Table:
    """Read a .csv; ``where``: name used in error messages.

    ``sources`` and ``vocabulary`` are those of an earlier table, whose columns to make again.
    """
    text = _decoded(where, file.read())
    delimiter = _delimiter(text)
    records = _records(where, text, delimiter)
    line, first = next(records, (0, []))
    if not line:
        raise ValueError(f"{where}: the file is empty")
    first = [" ".join(cell.split()) for cell in first]
    names = [f"x{index}" for index in range(len(first))]
    if _is_header(where, line, first, target, selection, delimiter):
        names = _named(where, line, first)
    else:
        records = itertools.chain([(line, first)], records)
    if sources is not None:
        selection = selection._replace(id=tuple(name for name in selection.id if name in names))
    label = target_column(where, target, names, supervised)
    is_new = sources is not None
    used = used_columns(where, names, selection, None if label is None else names[label], is_new=is_new)
    texts = {*selection.id, *selection.categories, *([selection.text] if selection.text else [])}
    texts |= {names[label]} if label is not None else set()
    found = {name: Column(name, name in texts) for name in {*used, *texts}}
    lines = _read(where, records, names, found)
    if not lines:
        raise ValueError(f"{where}: there is a header ({listed(names)}) and no row of data")

    columns, kept = [found[name] for name in used], np.ones(len(lines), dtype=bool)
    labels = None if label is None or not supervised else found[names[label]]
    unlabelled = label_flaws(labels, lines, selection.missing) if labels is not None else []
    if labels is not None:
        kept &= [flaw_of(labels.texts[row], is_label=True) is None for row in range(len(lines))]
    if selection.text:
        refuse(where, unlabelled, selection)
        documents = [columns[0].texts[row] for row in range(len(lines))]
        if selection.missing == "drop":
            kept[columns[0].missing] = False
        x, made = count_words(where, documents, selection.stop_words, vocabulary)
        sources = {selection.text: None}
    else:
        if delimiter != ",":
            read_commas(where, columns, lines)
        flaws = _flaws(columns, lines, selection, sources)
        refuse(where, flaws + unlabelled, selection)
        x, made, sources = _matrix(columns, sources, len(lines))
        if selection.missing == "drop":
            kept &= ~np.isnan(x).any(1)
    if not kept.any():
        raise ValueError(f"{where}: every row has a gap, and none is left: drop the columns that are mostly empty")
    rows = np.flatnonzero(kept).tolist()
    table = Table(
        x if len(rows) == len(x) else x[kept],
        made,
        ids={name: [found[name].texts[row] for row in rows] for name in selection.id},
        rows=rows,
        left_out=len(x) - len(rows),
        sources=sources,
    )
    if labels is None:
        return table
    return table._replace(labels=[labels.texts[row] for row in rows], target=f"the target {quoted(labels.name)}")


def _flaws(columns: Sequence[Column], lines: Sequence[int], selection: Selection, sources: Levels | None) -> list[Flaw]:
    """Return what is wrong with the columns, and with the cells of those that are data."""
    flaws = column_flaws(columns, selection.columns) if sources is None else level_flaws(columns, lines, sources)
    settled = {name for flaw in flaws for name in flaw.columns}
    rest = [column for column in columns if column.name not in settled]
    return flaws + cell_flaws(rest, lines, selection, sources)


def _matrix(columns: Sequence[Column], sources: Levels | None, num_rows: int) -> tuple[np.ndarray, list[str], Levels]:
    """Return the columns as numbers, the numbers' names, and the levels of categories."""
    if sources is None:
        sources = {column.name: None if column.is_number else column.levels() for column in columns}
    made, names = [], []
    for column in columns:
        values, of_column = encoded(column, sources[column.name])
        made.append(values)
        names += of_column
    x = np.concatenate(made, axis=1) if made else np.zeros((num_rows, 0))
    return np.ascontiguousarray(x), names, sources


def _read(where: str, records: Iterator[tuple[int, list[str]]], names: list[str], found: Mapping[str, Column]) -> array:
    """Read the records into the columns that are used; return the line on which each begins."""
    lines, rows = array("q"), []
    used = [(index, found[name]) for index, name in enumerate(names) if name in found]

    def flush() -> None:
        cells = list(zip(*rows, strict=True))
        for index, column in used:
            column.extend(cells[index])
        rows.clear()

    for line, cells in records:
        if (width := len(cells)) < len(names):
            missing = f"there is none for column {quoted(names[width])}"
            raise ValueError(f"{where}: line {line} has {width} of {len(names)} cells: {missing}")
        if width > len(names):
            beyond = f"one or more follow the last column, {quoted(names[-1])}"
            raise ValueError(f"{where}: line {line} has {width} cells, not {len(names)}: {beyond}")
        lines.append(line)
        rows.append(cells)
        if len(rows) * width >= _CELLS:
            flush()
    if rows:
        flush()
    return lines


def _named(where: str, line: int, names: list[str]) -> list[str]:
    """Return the names of a header; ValueError unless there is one for each column. Pandas leaves out its index's."""
    names = ["index" if not index and not name and "index" not in names else name for index, name in enumerate(names)]
    seen: set[str] = set()
    for index, name in enumerate(names):
        if not name:
            raise ValueError(f"{where}: line {line}: column {index + 1} of {len(names)} has no name")
        if name in seen:
            raise ValueError(f"{where}: line {line}: two columns are called {quoted(name)}")
        seen.add(name)
    return names


class Cells(NamedTuple):
    """A .csv with a header as text."""

    columns: list[str]
    lines: list[int]  # on which each row begins
    rows: list[list[str]]
    delimiter: str


def read_cells(where: str, file: BinaryIO) -> Cells:
    """Read a .csv with a header as text; ``where``: name used in error messages."""
    text = _decoded(where, file.read())
    delimiter = _delimiter(text)
    records = list(_records(where, text, delimiter))
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
    return Cells(columns, [line for line, _ in rows], [cells for _, cells in rows], delimiter)


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


def _is_header(
    where: str, line: int, first: list[str], target: str | None, selection: Selection, delimiter: str
) -> bool:
    """Whether the first record names the columns; an error where it is neither names nor data.

    Data are numbers or missing; where ``target`` is a position ("2" or "x2"), the cell there may be anything.
    """
    numeric = [number(cell) is not None or (delimiter != "," and comma_number(cell) is not None) for cell in first]
    asked = {name for name in (target, *selection.names()) if name is not None}
    if not any(numeric) or any(name in asked and not is_one for name, is_one in zip(first, numeric, strict=True)):
        return True
    label = place(target and target.removeprefix("x"), len(first))
    texts = [k for k, cell in enumerate(first) if cell.strip() and not numeric[k] and k != label]
    if not texts:
        return False
    text, figure = first[texts[0]], first[numeric.index(True)]
    raise ValueError(
        f"{where}: line {line} is neither names nor numbers: column 'x{texts[0]}' has {quoted(text)}, "
        f"which is not a number as {quoted(figure)} is; name every column, or none"
        + ("; labels in a file without names need --target INDEX" if target is None else "")
    )
