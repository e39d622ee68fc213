"""One fit as one self-contained page of HTML: what it came to, its quantities, and figures of the model's own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..catalog import row_of
from ..inference import FitInfo
from ..inference.compare import Comparison
from ..inference.posterior import Posterior
from ..inference.words import number
from ..plots import Section
from ..workflow.files import atomic_write
from . import about, runs
from .ladder import NOTHING_TRIED, contents, figures_table, headline_of, rungs_of
from .made import made
from .render import render

MOST_QUANTITIES = 60  # shown


class Told(NamedTuple):
    """What is said of a fit in words.

    Attributes
    ----------
    title : str
    judgement : str
        The word in the badge.
    sentence : str
    findings : sequence of str
        The few figures that matter.
    columns : sequence of str
        Names of the data's columns.
    facts : sequence of (str, str)
        Terms and words about the data and how they were read.
    ended : str
        How the run ended; default: its own message.
    """

    title: str
    judgement: str
    sentence: str
    findings: Sequence[str]
    columns: Sequence[str]
    facts: Sequence[tuple[str, str]] = ()
    ended: str = ""


def write_fit(
    posterior: Posterior,
    path: str | Path,
    told: Told,
    quantities: pd.DataFrame,
    *,
    model: Callable[..., Any] | None = None,
    data: tuple = (),
    run: Mapping[str, Any] | None = None,
) -> Path:
    """Write a fit as one HTML file that needs no other file, script or network; return its path.

    Parameters
    ----------
    posterior : Posterior
    path : str or Path
        File to write; parent folders are created. An existing file is replaced whole or not at all.
    told : Told
    quantities : DataFrame
        A row per quantity: ``quantity``, ``mean``, ``sd``, ``low``, ``high``, ``r_hat`` and ``ess``.
    model : callable, optional
        The Pyro model, options bound with ``functools.partial``.
    data : tuple
        The model's arguments.
    run : dict, optional
        Record of the command that made the page, from which ``guidebook rerun`` repeats it.

    Raises
    ------
    OSError
        If the path cannot be written.
    """
    made_by = ":".join(filter(None, (posterior.info.method, posterior.info.guide)))
    name = posterior.info.chosen if isinstance(posterior.info, FitInfo) else made_by
    alone = Comparison({name: posterior}, {}, {}, pd.DataFrame(), {}, None, {})
    row, x = row_of(model), data[0] if data else None
    parts = [
        *(row.figures(alone, x, told.columns) if row and row.figures else ()),
        _quantities(quantities),
        runs.losses(alone),
        runs.objectives(alone),
        about.graph(model, data),
    ]
    if not isinstance(posterior.info, FitInfo):  # whose message stands at the top
        parts.append(runs.endings(alone, {name: told.ended or posterior.info.message}))
    shown = [part for part in parts if part is not None]
    tried = rungs_of(posterior.info) if isinstance(posterior.info, FitInfo) else NOTHING_TRIED
    page = render(
        "fit.html.j2",
        title=told.title,
        headline=headline_of(posterior.info, name, told.judgement),
        facts=told.facts,
        contents=contents(tried, shown),
        judgement=told.judgement,
        sentence=told.sentence,
        findings=told.findings,
        **tried,
        run=run,
        sections=shown,
        made=made([posterior.info.seed], run, data or None),
    )
    return atomic_write(path, page)


def _quantities(frame: pd.DataFrame) -> Section:
    """List the first quantities with their figures."""
    heads = {
        "quantity": "quantity",
        "mean": "mean",
        "sd": "sd",
        "low": "5 %",
        "high": "95 %",
        "r_hat": "R̂",
        "ess": "ESS",
    }
    shown = frame.head(MOST_QUANTITIES).to_dict("records")
    rows = [[str(row["quantity"]), *(number(row[name]) for name in list(heads)[1:])] for row in shown]
    text = "Posterior mean, standard deviation and central 90 % of each quantity; a point has a mean alone."
    if len(frame) > len(shown):
        text += f" The first {len(shown)} of {len(frame):,}; parameters.csv has all."
    table = figures_table([*heads.values()], rows, f"The figures of {len(rows):,} quantities")
    return Section("Quantities", text, tables=[table])
