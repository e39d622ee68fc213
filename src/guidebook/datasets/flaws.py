"""What is wrong with a text file's columns, all of it in one sentence, and what to type instead."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .cells import flaw_of, is_date, is_identifier, is_written_number, number
from .columns import Column
from .selection import Selection
from .table import listed, quoted, typed

MOST_LEVELS = 60  # of a category
FEWEST_ROWS = 10  # from which on values that are all different count as an identifier
_IMPUTING = ", for gmm, ppca and factor_analysis"  # said where the model is not known
MOST_SAID = 3  # cells, or categories, of different columns

Levels = Mapping[str, list[str] | None]  # of the columns used: of categories; None for numbers


class Flaw(NamedTuple):
    """One thing that is wrong.

    Attributes
    ----------
    words : str
        It in words, with what to type.
    option : str or None
        The option that settles it without further thought: "drop", "id", or "missing"; None if there is none.
    columns : tuple of str
        The columns that are no data.
    """

    words: str
    option: str | None = None
    columns: tuple[str, ...] = ()


def refuse(where: str, flaws: Sequence[Flaw], selection: Selection) -> None:
    """Raise ValueError with all that is wrong; for several things, with the options that settle them together."""
    if not flaws:
        return
    sentence = f"{where}: {'; '.join(flaw.words for flaw in flaws)}"
    if len(flaws) > 1 and all(flaw.option for flaw in flaws):
        options = []
        for part in ("id", "drop"):
            named = [name for flaw in flaws if flaw.option == part for name in flaw.columns]
            options += [f"--{part} {','.join(map(typed, (*getattr(selection, part), *named)))}"] if named else []
        options += ["--missing drop"] if any(flaw.option == "missing" for flaw in flaws) else []
        sentence += f". All at once: {' '.join(options)}"
    raise ValueError(sentence)


def column_flaws(columns: Sequence[Column], wanted: Sequence[str]) -> list[Flaw]:
    """Return which columns are no data, and why; ``wanted`` are those named as data."""
    found: dict[str, list[Column]] = {kind: [] for kind in _WORDS}
    for column in columns:
        kind = _kind(column, columns[0], wanted)
        if kind is not None:
            found[kind].append(column)
    return [
        Flaw(_WORDS[kind](of_kind), _SETTLED_BY[kind], tuple(column.name for column in of_kind))
        for kind, of_kind in found.items()
        if of_kind
    ]


def cell_flaws(
    columns: Sequence[Column], lines: Sequence[int], selection: Selection, sources: Levels | None = None
) -> list[Flaw]:
    """Return the first cell of each column, by line, that holds no value of its kind, as in ``sources``; then gaps.

    ``sources`` are given for new rows only.
    """
    bad = []
    for place, column in enumerate(columns):
        is_number = column.is_number if sources is None else sources[column.name] is None
        first = next(((row, flaw) for row, text in column.words.items() if (flaw := flaw_of(text))), None)
        if is_number and first is not None:
            row, flaw = first
            if sources is None and number(column.texts[row]) is None:
                name = typed(column.name)
                flaw += f": --drop {name} leaves the column out, --categories {name} takes categories"
            bad.append((row, place, flaw))
    said = [
        Flaw(f"line {lines[row]}, column {quoted(columns[place].name)}: {flaw}") for row, place, flaw in sorted(bad)
    ]
    return _first(said) + gap_flaws(columns, lines, selection, is_new=sources is not None)


def gap_flaws(
    columns: Sequence[Column], lines: Sequence[int], selection: Selection, *, is_new: bool = False
) -> list[Flaw]:
    """Return the first gap, by line, and how many rows have one, unless these are not refused."""
    gaps = sorted((row, place) for place, column in enumerate(columns) for row in column.missing)
    if selection.missing != "refuse" or not gaps:
        return []
    row, place = gaps[0]
    text, count = columns[place].texts[row], len({row for row, _ in gaps})
    absent = "the value is missing" if not text else f"{text!r} stands for a missing value"
    many = "1 row has" if count == 1 else f"{count:,} rows have"
    words = f"line {lines[row]}, column {quoted(columns[place].name)}: {absent} ({many} gaps)"
    if is_new:
        return [Flaw(f"{words}: the fit was made without gaps, so fill in or leave out such rows")]
    impute = "" if selection.imputable is False else ", --missing impute fills them in"
    known = _IMPUTING if selection.imputable is None else ""
    return [Flaw(f"{words}: --missing drop leaves such rows out{impute}{known}", "missing")]


def level_flaws(columns: Sequence[Column], lines: Sequence[int], sources: Levels) -> list[Flaw]:
    """Return, per column, the first category that the fit has not seen."""
    found = []
    for column in columns:
        levels = sources[column.name] or ()
        new = next(((row, text) for row, text in column.words.items() if text not in levels), None)
        if levels and new is not None:
            row, text = new
            words = (
                f"line {lines[row]}, column {quoted(column.name)}: {quoted(text)} is a category that the fit has not"
            )
            found.append(Flaw(f"{words} seen; it knows {listed(levels)}"))
    return _first(found)


def label_flaws(labels: Column, lines: Sequence[int], policy: str) -> list[Flaw]:
    """Return the first cell that is no label, and how many there are, unless such rows are to be dropped."""
    flaws = [(row, flaw) for row, text in labels.texts.items() if (flaw := flaw_of(text, is_label=True))]
    if not flaws or policy == "drop":
        return []
    row, flaw = flaws[0]
    many = "1 row has" if len(flaws) == 1 else f"{len(flaws):,} rows have"
    words = f"line {lines[row]}, column {quoted(labels.name)}: {flaw} ({many} no label)"
    return [Flaw(f"{words}: --missing drop leaves such rows out", "missing")]


def _kind(column: Column, first: Column, wanted: Sequence[str]) -> str | None:
    """Return why a column is no data; None if it is."""
    words, filled = column.words, len(column.numbers) - len(column.missing)
    if not filled:
        return "empty"
    if column.is_number:
        return "identifiers" if column.name not in wanted and _counts_rows(column, first) else None
    if sum(map(is_date, words.values())) == filled:
        return "dates"
    if not column.is_text and sum(map(is_written_number, words.values())) > filled / 2:
        return "written"
    levels = column.levels()
    if len(levels) == 1:
        return "constant"
    if len(levels) == filled >= FEWEST_ROWS or len(levels) > MOST_LEVELS:
        length = sum(len(text.split()) for text in words.values()) / filled
        return "documents" if length > 4 else "identifiers"
    return None


def _counts_rows(column: Column, first: Column) -> bool:
    """Whether whole numbers, all different, are called an identifier or number the rows of the file."""
    values = np.frombuffer(column.numbers, dtype=np.float64)
    if len(values) < FEWEST_ROWS or column.texts or (values % 1).any() or len(np.unique(values)) < len(values):
        return False
    return is_identifier(column.name) or bool(
        column is first and values[0] in (0, 1) and (np.diff(values) == 1).all() and len(values) >= 2 * FEWEST_ROWS
    )


def _documents(columns: Sequence[Column]) -> str:
    counted = f"--text {typed(columns[0].name)} counts its words, for lda and mixture"
    return f"{_named(columns, 'holds', 'hold')} free text: {counted}, or {_left_out(columns)}"


def _identifiers(columns: Sequence[Column]) -> str:
    names, it = _names(columns), "it" if len(columns) == 1 else "them"
    looks = _named(columns, "looks like an identifier", "look like identifiers")
    kept = f"--id {names} keeps {it} for the output, --drop {names} leaves {it} out"
    return f"{looks}: {kept}, --columns takes {it} as data all the same"


def _dates(columns: Sequence[Column]) -> str:
    holds = _named(columns, "holds dates", "hold dates")
    return f"{holds}: give numbers instead, such as days since a start, or {_left_out(columns)}"


def _written(columns: Sequence[Column]) -> str:
    first = next(iter(columns[0].words.values()))
    looks = f"{_named(columns, '', '').strip()}: {quoted(first)} looks like a number with a separator or a unit"
    return f"{looks}: write plain numbers, such as 1234.5, or {_left_out(columns)}"


def _constant(columns: Sequence[Column]) -> str:
    value = quoted(columns[0].levels()[0]) if len(columns) == 1 else "the same"
    return f"{_named(columns, 'is', 'are')} {value} in every row: {_left_out(columns)}"


def _empty(columns: Sequence[Column]) -> str:
    return f"{_named(columns, 'is empty', 'are empty')}: {_left_out(columns)}"


_WORDS = {
    "documents": _documents,
    "identifiers": _identifiers,
    "dates": _dates,
    "written": _written,
    "constant": _constant,
    "empty": _empty,
}
_SETTLED_BY = {
    "documents": None,  # dropped by some models, counted by others
    "identifiers": "id",
    "dates": "drop",
    "written": None,  # numbers that should be mended rather than dropped
    "constant": "drop",
    "empty": "drop",
}


def _named(columns: Sequence[Column], one: str, several: str) -> str:
    names = listed([quoted(column.name) for column in columns])
    return f"column {names} {one}" if len(columns) == 1 else f"columns {names} {several}"


def _left_out(columns: Sequence[Column]) -> str:
    return f"leave {'it' if len(columns) == 1 else 'them'} out with --drop {_names(columns)}"


def _names(columns: Sequence[Column]) -> str:
    return ",".join(typed(column.name) for column in columns[:12])


def _first(flaws: Sequence[Flaw]) -> list[Flaw]:
    """Return the first few flaws, and how many columns have others."""
    more = len(flaws) - MOST_SAID
    if more <= 0:
        return [*flaws]
    return [*flaws[:MOST_SAID], Flaw(f"{more} more {'column has' if more == 1 else 'columns have'} such cells")]
