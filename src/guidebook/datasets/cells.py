"""What a cell of a text file may hold: a number, a number with a decimal comma, a date, nothing."""

import math
import re

MISSING = frozenset({"", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "?", "-", "."})
_COMMA = re.compile(r"[+-]?((\d+|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?|\d{1,3}(\.\d{3}){2,})")
_GROUPED = re.compile(r"[+-]?\d{1,3}(\.\d{3})+")
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2}))([T ]\d{1,2}:\d{2}.*)?"
    r"|\d{1,2}:\d{2}(:\d{2})?"
)
_WRITTEN = re.compile(r"[€$£]?\s*[+-]?[\d.,'\s]*\d[\d.,'\s]*\s*[%€$£]?")


def number(cell: str) -> float | None:
    """Return the number that a cell stands for, infinite and NaN ones among them; None for text."""
    try:
        return None if "_" in cell else float(cell)  # float reads 1_000
    except ValueError:
        return None


def comma_number(cell: str) -> float | None:
    """Return the number that a cell with a decimal comma stands for, as in "1.234,5"; None for any other text."""
    if not _COMMA.fullmatch(cell.strip()):
        return None
    return float(cell.replace(".", "").replace(",", "."))


def is_grouped(cell: str) -> bool:
    """Whether the point in a cell may group thousands, as in "1.234"."""
    return _GROUPED.fullmatch(cell.strip()) is not None


def is_date(cell: str) -> bool:
    """Whether a cell is a date, a time, or both, in figures."""
    return _DATE.fullmatch(cell) is not None


def is_written_number(cell: str) -> bool:
    """Whether a cell is a number with separators of thousands or a unit, which `number` does not read."""
    return _WRITTEN.fullmatch(cell) is not None


def is_identifier(name: str) -> bool:
    """Whether a column's name says that it identifies the rows."""
    return re.search(r"(?i:(^|[\W_])(id|ids|uuid|guid|key|nr|index|identifier)$)|[a-z]I[dD]$", name) is not None


def flaw_of(cell: str, *, is_label: bool = False) -> str | None:
    """Return what is wrong with a cell: a label may be any text, other cells are finite numbers."""
    value = number(cell)
    text = cell.strip()
    shown = repr(text if len(text) <= 60 else text[:59] + "…")
    if not text:
        return "the value is missing"
    if value is None:
        return None if is_label else f"{shown} is not a number"
    if math.isfinite(value):
        return None
    return f"{shown} is {'not a number (NaN)' if math.isnan(value) else 'infinite'}"
