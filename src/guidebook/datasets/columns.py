"""Columns of a text file: numbers, or categories with one column of zeros and ones per level but the first."""

import math
from array import array
from collections.abc import Mapping, Sequence

import numpy as np

from .cells import MISSING, comma_number, flaw_of, is_date, is_identifier, is_written_number, number
from .table import listed, quoted, short, shown

MOST_LEVELS = 60  # of a category
FEWEST_ROWS = 10  # from which on values that are all different count as an identifier


class Column:
    """A column as it is read: numbers, and the text of cells that are none."""

    def __init__(self, name: str, is_text: bool = False) -> None:
        self.name, self.is_text = name, is_text
        self.numbers = array("d")  # NaN where there is text
        self.texts: dict[int, str] = {}  # by row
        self.pointed: tuple[int, str] | None = None  # the first number with a decimal point
        self._known: dict[str, str] = {}

    def extend(self, cells: Sequence[str]) -> None:
        """Add the cells of further rows."""
        start, joined = len(self.numbers), "".join(cells)
        if self.pointed is None and not self.is_text and "." in joined:
            found = ((row, cell) for row, cell in enumerate(cells, start) if "." in cell and number(cell) is not None)
            self.pointed = next(found, None)
        try:
            values = [] if self.is_text or "_" in joined else [*map(float, cells)]
        except ValueError:
            values = []
        if len(values) == len(cells) and all(map(math.isfinite, values)):
            self.numbers.extend(values)
            return
        for row, cell in enumerate(cells, start):
            value = None if self.is_text else number(cell)
            if value is None or not math.isfinite(value):
                text = cell.strip()
                self.texts[row] = self._known.setdefault(text, text)
                value = math.nan
            self.numbers.append(value)

    @property
    def missing(self) -> list[int]:
        """Rows without a value."""
        return [row for row, text in self.texts.items() if text in MISSING]

    @property
    def words(self) -> dict[int, str]:
        """Text that stands for a value, by row."""
        return {row: text for row, text in self.texts.items() if text not in MISSING}

    @property
    def is_number(self) -> bool:
        """Whether numbers are what the column holds, perhaps with flaws."""
        return not self.is_text and (len(self.texts) < len(self.numbers) or not self.words)

    def levels(self) -> list[str]:
        """Return the values of a category: numbers by size, before others by alphabet."""
        texts = set(self.words.values())
        values = {text: number(text) for text in texts}
        return sorted(texts, key=lambda text: (values[text] is None, values[text] or 0.0, text))


def read_commas(where: str, columns: Sequence[Column], lines: Sequence[int]) -> None:
    """Read "1,5" as a number, if there is any such; ValueError if other numbers have a decimal point."""
    numeric = [column for column in columns if not column.is_text]
    commas = ((column, row, text) for column in numeric for row, text in column.words.items() if comma_number(text))
    first = next(commas, None)
    if first is None:
        return
    for column in numeric:
        if column.pointed is not None:
            row, text = column.pointed
            raise ValueError(
                f"{where}: line {lines[row]}, column {quoted(column.name)}: {quoted(text)} has a point, and "
                f"{quoted(first[2])} in line {lines[first[1]]} a decimal comma: write all numbers in one way"
            )
        for row, text in list(column.texts.items()):
            value = comma_number(text)
            if value is not None:
                column.numbers[row] = value
                del column.texts[row]


def check_columns(where: str, columns: Sequence[Column], wanted: Sequence[str]) -> None:
    """Raise ValueError for columns that are no data; ``wanted`` are those named as data."""
    dates, identifiers, documents = [], [], []
    for column in columns:
        words, filled = column.words, len(column.numbers) - len(column.missing)
        if not filled:
            raise ValueError(
                f"{where}: column {quoted(column.name)} is empty: leave it out with --drop {_typed(column.name)}"
            )
        if column.is_number:
            identifiers += [column.name] if column.name not in wanted and _counts_rows(column, columns[0]) else []
            continue
        if sum(map(is_date, words.values())) == filled:
            dates.append(column.name)
            continue
        levels = column.levels()
        if not column.is_text and sum(map(is_written_number, words.values())) > filled / 2:
            raise ValueError(
                f"{where}: column {quoted(column.name)}: {quoted(next(iter(words.values())))} looks like a number with "
                "a separator or a unit: write plain numbers, such as 1234.5"
            )
        if len(levels) == 1:
            raise ValueError(
                f"{where}: column {quoted(column.name)} is {quoted(levels[0])} in every row: leave it out with "
                f"--drop {_typed(column.name)}"
            )
        if len(levels) == filled >= FEWEST_ROWS or len(levels) > MOST_LEVELS:
            length = sum(len(text.split()) for text in words.values()) / filled
            (documents if length > 4 else identifiers).append(column.name)
    for names, what, hint in (
        (dates, "holds dates", "give numbers instead, such as days since a start"),
        (identifiers, "looks like an identifier", "--id {name} keeps it for the output"),
        (documents, "holds free text", "--text {name} counts its words, for lda and mixture"),
    ):
        if names:
            verb = what if len(names) == 1 else what.replace("holds", "hold").replace("looks", "look", 1)
            many = "column" if len(names) == 1 else "columns"
            shown = listed([quoted(name) for name in names])
            dropped = ",".join(map(_typed, names[:12]))
            raise ValueError(
                f"{where}: {many} {shown} {verb}: {hint.format(name=_typed(names[0]))}, --drop {dropped} leaves "
                f"{'it' if len(names) == 1 else 'them'} out"
                + ("; --columns takes it as data all the same" if names is identifiers else "")
            )


def check_cells(
    where: str,
    columns: Sequence[Column],
    lines: Sequence[int],
    policy: str,
    sources: Mapping[str, list[str] | None] | None = None,
) -> None:
    """Raise ValueError for the first cell, by line, that holds no value of its column's kind, as in ``sources``."""
    flaws = []
    for place, column in enumerate(columns):
        for row, text in column.texts.items():
            if text in MISSING:
                flaw = f"{_absent(text)}{_gaps(columns)}" if policy == "refuse" else None
            elif column.is_number if sources is None else sources[column.name] is None:
                flaw = flaw_of(text)
                if flaw and number(text) is None and sources is None:
                    name = _typed(column.name)
                    flaw += f"; --drop {shown(name)} leaves the column out, --categories {shown(name)} takes categories"
            else:
                flaw = None
            if flaw:
                flaws.append((row, place, flaw))
                break
    if flaws:
        row, place, flaw = min(flaws)
        raise ValueError(f"{where}: line {lines[row]}, column {quoted(columns[place].name)}: {flaw}")


def encoded(column: Column, levels: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    """Return a column as one or several of numbers, (n, m), with their names; NaN for missing values.

    The first level is the reference: it has zeros in all columns.
    """
    if levels is None:
        return np.frombuffer(column.numbers, dtype=np.float64)[:, None], [column.name]
    codes = {level: code for code, level in enumerate(levels)}
    values = np.zeros((len(column.numbers), len(levels)))
    for row, text in column.texts.items():
        values[row] = np.nan if text in MISSING else 0.0
        if text not in MISSING:
            values[row, codes[text]] = 1.0
    return values[:, 1:], [f"{column.name}={level}" for level in levels[1:]]


def check_levels(where: str, column: Column, levels: Sequence[str], lines: Sequence[int]) -> None:
    """Raise ValueError for a category that the fit has not seen."""
    known = set(levels)
    for row, text in column.words.items():
        if text not in known:
            raise ValueError(
                f"{where}: line {lines[row]}, column {quoted(column.name)}: {quoted(text)} is a category that the fit "
                f"has not seen; it knows {listed(levels)}"
            )


def _counts_rows(column: Column, first: Column) -> bool:
    """Whether whole numbers, all different, are called an identifier or number the rows of the file."""
    values = np.frombuffer(column.numbers, dtype=np.float64)
    if len(values) < FEWEST_ROWS or column.texts or (values % 1).any() or len(np.unique(values)) < len(values):
        return False
    return is_identifier(column.name) or bool(
        column is first and values[0] in (0, 1) and (np.diff(values) == 1).all() and len(values) >= 2 * FEWEST_ROWS
    )


def _typed(name: str) -> str:
    """Return a name as it stands in a command to type."""
    return shown(short(name))


def _absent(text: str) -> str:
    return "the value is missing" if not text else f"{text!r} stands for a missing value"


def _gaps(columns: Sequence[Column]) -> str:
    rows = len({row for column in columns for row in column.missing})
    many = "1 row has" if rows == 1 else f"{rows:,} rows have"
    return f" ({many} gaps): --missing drop leaves such rows out, --missing impute fills them in by the model"
