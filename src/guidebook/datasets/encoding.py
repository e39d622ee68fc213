"""How a file became numbers, as plain JSON, so that the rows of another file become numbers in the same way."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .selection import Selection
from .table import Table, listed, quoted, shown


class Encoding(NamedTuple):
    """The steps from a file's columns to a model's.

    Attributes
    ----------
    columns : list of str
        Names of the model's columns, words and pixels among them.
    sources : dict or None
        The columns of a .csv that were used, in order: None for numbers, or the levels of a category, of which the
        first is the reference. None for other files.
    id : sequence of str
        Columns that identify the rows.
    text : str or None
        The column with documents.
    stop_words : str
        As given to `Selection`.
    missing : str
        What is done about missing values.
    centre, scale : list of float, or None
        What is taken off each of the model's columns and then divides it; None if they are not standardised.
    top : float
        The largest value: what white is in images.
    classes : list of two str, or None
        What label 0 and label 1 are called.
    """

    columns: list[str]
    sources: dict[str, list[str] | None] | None = None
    id: Sequence[str] = ()
    text: str | None = None
    stop_words: str = "english"
    missing: str = "refuse"
    centre: list[float] | None = None
    scale: list[float] | None = None
    top: float = 1.0
    classes: list[str] | None = None

    @classmethod
    def of(cls, table: Table, selection: Selection) -> "Encoding":
        """Return the encoding of a table as it was read."""
        return cls(
            columns=list(table.columns),
            sources=None if table.sources is None else dict(table.sources),
            id=list(table.ids),
            text=selection.text,
            stop_words=selection.stop_words,
            missing=selection.missing,
        )

    def selection(self) -> Selection:
        """Return what to read from another file."""
        sources = self.sources or {}
        categories = tuple(name for name, levels in sources.items() if levels is not None)
        columns = () if self.text else tuple(sources)
        return Selection(columns, (), tuple(self.id), categories, self.text, self.stop_words, self.missing)

    def standardized(self, x: np.ndarray) -> np.ndarray:
        """Return columns less ``centre``, over ``scale``."""
        return x if self.centre is None else (x - np.array(self.centre)) / np.array(self.scale)


def with_scales(where: str, encoding: Encoding, x: np.ndarray) -> Encoding:
    """Return an encoding that brings columns to mean 0 and standard deviation 1; a constant one becomes zeros.

    ValueError for a spread that no float64 holds.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        centre, sd, constant = np.nanmean(x, 0), np.nanstd(x, 0), np.nanmin(x, 0) == np.nanmax(x, 0)
    for column, is_constant, spread in zip(encoding.columns, constant, sd, strict=True):
        if not is_constant and not 0 < spread < math.inf:
            what = f"column {quoted(column)} cannot be standardized"
            raise ValueError(f"{where}: {what}: its spread leaves float64's range")
    return encoding._replace(centre=centre.tolist(), scale=np.where(constant, 1.0, sd).tolist())


def in_order(where: str, table: Table, columns: Sequence[str]) -> Table:
    """Return a table of numbers with these columns, by name; columns without names are taken by their places."""
    if list(table.columns) == list(columns):
        return table
    places = {name: place for place, name in enumerate(table.columns)}
    missing = [name for name in columns if name not in places]
    if not missing:
        return table._replace(x=table.x[:, [places[name] for name in columns]], columns=list(columns))
    if len(table.columns) == len(columns) and table.columns == [f"x{place}" for place in range(len(columns))]:
        return table._replace(columns=list(columns))
    raise ValueError(f"{where}: no column {listed([quoted(name) for name in missing], 5)}, which the fit used")


def read_encoding(record: Any) -> Encoding:
    """Return the encoding in a saved record; ValueError if it holds none."""
    try:
        encoding = Encoding(**record)
        if not isinstance(encoding.columns, list) or not isinstance(encoding.sources, dict | None):
            raise TypeError("columns must be a list, and sources an object or null")
        widths = {len(part) for part in (encoding.centre, encoding.scale) if part is not None}
        if widths - {len(encoding.columns)}:
            raise ValueError(f"{widths} scales for {len(encoding.columns)} columns")
    except TypeError as error:
        raise ValueError(f"the record's encoding cannot be read: {shown(str(error))}") from None
    return encoding
