"""The parts of a report's page: sections with figures and tables."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup


class Table(NamedTuple):
    """A table of text, whose first column holds row headings. Under a ``summary`` it can be folded away, or is."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str = ""
    open: bool = False


class Section(NamedTuple):
    """A heading, how to read what follows, and figures (side by side unless ``wide``) and tables."""

    title: str
    text: str
    figures: Sequence[Markup] = ()
    tables: Sequence[Table] = ()
    legend: bool = False
    wide: bool = False
