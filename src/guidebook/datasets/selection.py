"""Which columns of a file are used, and as what."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .table import did_you_mean, listed, quoted


class Selection(NamedTuple):
    """What is asked of a file's columns.

    Attributes
    ----------
    columns : tuple of str
        The columns to use; none: all that nothing else is said of.
    drop : tuple of str
        Columns to leave out, whatever they hold.
    id : tuple of str
        Columns that identify the rows: kept for the output, and not used as data.
    categories : tuple of str
        Columns of numbers, or of numbers and text, whose values are categories.
    text : str or None
        The column with documents, whose words are counted; all others are then left out.
    stop_words : str
        "english" leaves common words of English out of documents, "none" keeps them.
    missing : str
        What to do about missing values: "refuse"; "drop" the rows; or leave NaN for the model to "impute".
    imputable : bool, optional
        Whether the model that the rows are for can impute, for what a refusal advises. Default: not known.
    """

    columns: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    text: str | None = None
    stop_words: str = "english"
    missing: str = "refuse"
    imputable: bool | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Selection":
        """Read a selection from the values of options, in which names are separated by commas."""
        given = {name: options[name] for name in cls._fields if options.get(name) is not None}
        for name in ("columns", "drop", "id", "categories"):
            if name in given:
                given[name] = tuple(" ".join(part.split()) for part in given[name].split(",") if part.strip())
        return cls(**given)

    def names(self) -> list[str]:
        """Return every column that is named."""
        return [*self.columns, *self.drop, *self.id, *self.categories, *([self.text] if self.text else [])]

    def needs_file(self) -> bool:
        """Whether anything is asked for that only a .csv or a folder can give."""
        return bool(self.id or self.categories or self.text or self.missing != "refuse")


def used_columns(
    where: str, columns: list[str], selection: Selection, target: str | None, *, is_new: bool = False
) -> list[str]:
    """Return the columns to use as data; ValueError for a name that is not there or is given two parts to play.

    ``is_new`` says that the selection is that of an earlier fit.
    """
    known = set(columns)
    if absent := [name for name in selection.names() if name not in known]:
        raise ValueError(no_column(where, absent, columns, ", which the fit used" if is_new else ""))
    parts = {"target": [target], "drop": selection.drop, "id": selection.id, "columns": selection.columns}
    parts |= {"text": [selection.text]} if selection.text else {}
    played: dict[str, str] = {}
    for part, names in parts.items():
        for name in names:
            if name is not None and played.setdefault(name, part) != part:
                raise ValueError(f"{where}: column {quoted(name)} is given both as {played[name]} and as {part}")
    if selection.text:
        return [selection.text]
    left = selection.columns or [name for name in columns if name not in played]
    unused = next((name for name in selection.categories if name not in left), None)
    if unused is not None:
        raise ValueError(f"{where}: column {quoted(unused)} is to be a category, and is not used")
    return list(left)


def no_column(where: str, names: Sequence[str], columns: Iterable[str], which: str = "") -> str:
    """Return a sentence: there are no such columns, these are the nearest, and these there are."""
    columns, names = list(columns), list(dict.fromkeys(names))
    near = did_you_mean(names[0], columns) if len(names) == 1 else ""
    many = "column" if len(names) == 1 else "columns"
    absent = listed([quoted(name) for name in names], 5)
    return f"{where}: no {many} {absent}{which}: {near}columns are {listed(columns)}"
