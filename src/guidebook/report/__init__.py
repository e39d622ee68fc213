"""A comparison as one self-contained page of HTML: verdicts, figures, the runs behind them, and the model's graph."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..catalog import coords_of, row_of
from ..inference.compare import Comparison
from ..inference.mcmc.chains import without_raw_disagreement
from ..inference.verdict import is_sampler
from ..plots import plot_comparison
from ..workflow.files import atomic_write
from . import about, runs, sections
from .calibration import write_calibration
from .choice import write_choice
from .explorer import marginal_curves, write_explorer
from .fit import Told, write_fit
from .ladder import write_ladder
from .made import made
from .render import render, slug
from .sweep import write_sweep
from .words import COLUMNS, legend, table_rows, titles

__all__ = [
    "Told",
    "marginal_curves",
    "plot_comparison",
    "write_calibration",
    "write_choice",
    "write_explorer",
    "write_fit",
    "write_html",
    "write_index",
    "write_ladder",
    "write_sweep",
]


def write_html(
    comparison: Comparison,
    path: str | Path,
    *,
    model: Callable[..., Any] | None = None,
    data: tuple | Tensor | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    columns: Sequence[str] | None = None,
    title: str | None = None,
    run: Mapping[str, Any] | None = None,
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
        The model's arguments: for the graph and for figures that show the data. Arrays and data frames will do.
    model_kwargs : mapping, optional
        Further arguments of the model by name: data or options.
    columns : sequence of str, optional
        Names of the data's columns: for figures of the data, and in the titles of quantities that ``compare`` was not
        told to name by them (``coords``).
    title : str, optional
        Title of the page; default: model and reference.
    run : dict, optional
        Record of the command that made the page, from which ``guidebook rerun`` repeats it.

    Raises
    ------
    OSError
        If the path cannot be written.
    ValueError
        If ``columns`` does not have one name per column of the data.
    """
    data = (data,) if isinstance(data, Tensor) else data
    model, data = about.bound("write_html", model, data, model_kwargs)
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
        runs.endings(comparison, {name: _ended(comparison, name) for name in comparison.posteriors}),
    ]
    name, _ = about.name_and_options(model)
    picture, shown = runs.errors(comparison), [part for part in parts if part is not None]
    page = render(
        "comparison.html.j2",
        title=title or f"{name + ': p' if name else 'P'}osteriors compared with {comparison.reference}",
        headline=comparison.headline,
        facts=about.facts(comparison, model, data),
        contents=[
            *([picture.title] if picture else []),
            "Verdicts",
            "The numbers behind the verdicts",
            *(part.title for part in shown),
        ],
        run=run,
        picture=picture,
        verdicts=comparison.verdicts.values(),
        columns=COLUMNS,
        rows=table_rows(comparison.table.reset_index().to_dict("records")),
        sections=shown,
        legend=legend(comparison),
        made=made((posterior.info.seed for posterior in comparison.posteriors.values()), run, data),
    )
    return atomic_write(path, page)


def _ended(comparison: Comparison, name: str) -> str:
    """Return how a run ended; that raw sites disagree says nothing if what is compared agrees."""
    posterior = comparison.posteriors[name]
    if is_sampler(posterior) and not np.any(comparison.quantities[name]["disagrees"]):
        return without_raw_disagreement(posterior)
    return posterior.info.message


def write_index(reports: Sequence[Mapping[str, Any]], path: str | Path, *, command: str | None = None) -> Path:
    """Write a page that links to several reports and repeats their verdicts; return its path.

    Parameters
    ----------
    reports : sequence of mapping
        For each report ``title``; ``href``, a link relative to this page; ``verdicts``, pairs of judgement and
        sentence (``comparison.verdicts.values()``); and, optionally, ``headline`` (``comparison.headline``) and
        ``rows``: mappings with ``method`` and the columns of ``comparison.table``
        (``comparison.table.reset_index().to_dict("records")``).
    path : str or Path
        As for `write_html`.
    command : str, optional
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
        | {"headline": report.get("headline", ""), "rows": table_rows(report.get("rows", ()))}
        for report in reports
    ]
    titles_so_far: list[str] = []
    for entry in entries:
        again = titles_so_far.count(entry["title"])
        entry["id"] = slug(entry["title"]) + (f"-{again + 1}" if again else "")
        titles_so_far.append(entry["title"])
    about_page = {"title": "Posteriors compared", "made": made(command=command)}
    contents = list(dict.fromkeys(titles_so_far))
    page = render("index.html.j2", **about_page, contents=contents, reports=entries, columns=COLUMNS)
    return atomic_write(path, page)
