"""A comparison as one self-contained page of HTML: verdicts, figures, the runs behind them, and the model's graph."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from ..catalog import coords_of, row_of
from ..inference.compare import Comparison
from ..plots import plot_comparison
from ..workflow.files import atomic_write
from . import about, runs, sections
from .calibration import write_calibration
from .choice import write_choice
from .fit import Told, write_fit
from .ladder import write_ladder
from .render import render
from .words import COLUMNS, legend, table_row, titles

__all__ = [
    "Told",
    "plot_comparison",
    "write_calibration",
    "write_choice",
    "write_fit",
    "write_html",
    "write_index",
    "write_ladder",
]


def write_html(
    comparison: Comparison,
    path: str | Path,
    *,
    model: Callable[..., Any] | None = None,
    data: tuple | Tensor | None = None,
    columns: Sequence[str] | None = None,
    title: str | None = None,
) -> Path:
    """Write a comparison as one HTML file that needs no other file, script or network; return its path.

    Parameters
    ----------
    comparison : Comparison
        The result of ``compare``.
    path : str or Path
        File to write; parent folders are created. An existing file is replaced whole or not at all.
    model : callable, optional
        The Pyro model, options bound with ``functools.partial``: for its name, its graph and, if it is one of
        `guidebook.models`, the figures that its row in the catalogue brings.
    data : tuple, optional
        The model's arguments: for the graph and for figures that show the data.
    columns : sequence of str, optional
        Names of the data's columns: for figures of the data, and in the titles of quantities that ``compare`` was not
        told to name by them (``coords``).
    title : str, optional
        Title of the page; default: model and reference.

    Raises
    ------
    OSError
        If the path cannot be written.
    ValueError
        If ``columns`` does not have one name per column of the data.
    """
    data = (data,) if isinstance(data, Tensor) else data
    x = next((value for value in data or () if isinstance(value, Tensor) and value.dim() == 2), None)
    if columns is not None and x is not None and len(columns) != x.shape[1]:
        raise ValueError(f"write_html: {len(columns)} names for {x.shape[1]} columns")
    row = row_of(model)
    coords = {}
    if columns is not None and x is not None and row is not None and row.summarise is None:
        coords = coords_of(model, x, columns)
    parts = [
        sections.posteriors(comparison, titles(comparison, coords)),
        sections.pair(comparison),
        *(row.figures(comparison, x, columns) if row and row.figures else ()),
        runs.losses(comparison),
        runs.objectives(comparison),
        runs.chains(comparison),
        about.graph(model, data),
        runs.endings(comparison),
    ]
    name, _ = about.name_and_options(model)
    page = render(
        "report.html.j2",
        title=title or f"{name + ': p' if name else 'P'}osteriors compared with {comparison.reference}",
        facts=about.facts(comparison, model, data),
        picture=runs.errors(comparison),
        verdicts=comparison.verdicts.values(),
        columns=COLUMNS,
        rows=[table_row(row) for row in comparison.table.reset_index().to_dict("records")],
        sections=[part for part in parts if part is not None],
        legend=legend(comparison),
        versions=[(package, version(package)) for package in ("guidebook", "pyro-ppl", "torch")],
    )
    return atomic_write(path, page)


def write_index(reports: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Write a page that links to several reports and repeats their verdicts; return its path.

    Parameters
    ----------
    reports : sequence of mapping
        For each report ``title``; ``href``, a link relative to this page; ``verdicts``, pairs of judgement and
        sentence (``comparison.verdicts.values()``); and, optionally, ``rows``: mappings with ``method`` and the
        columns of ``comparison.table`` (``comparison.table.reset_index().to_dict("records")``).
    path : str or Path
        As for `write_html`.

    Raises
    ------
    OSError
        If the path cannot be written.
    KeyError
        If a report lacks a title, a link or verdicts.
    """
    entries = [
        {key: report[key] for key in ("title", "href", "verdicts")}
        | {"rows": [table_row(row) for row in report.get("rows", ())]}
        for report in reports
    ]
    page = render("index.html.j2", title="Posteriors compared", reports=entries, columns=COLUMNS)
    return atomic_write(path, page)
