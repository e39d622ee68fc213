"""Columns of a text file: numbers, or categories with one column of zeros and ones per level but the first."""

import math
from array import array
from collections.abc import Sequence

import numpy as np

from .cells import MISSING, comma_number, is_grouped, number
from .table import quoted


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
            either = f", this one as {text.replace('.', ',').strip()} or {text.replace('.', '').strip()}"
            raise ValueError(
                f"{where}: line {lines[row]}, column {quoted(column.name)}: {quoted(text)} has a point, and "
                f"{quoted(first[2])} in line {lines[first[1]]} a decimal comma: write all numbers in one way"
                + (either if is_grouped(text) else "")
            )
        for row, text in list(column.texts.items()):
            value = comma_number(text)
            if value is not None:
                column.numbers[row] = value
                del column.texts[row]


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
