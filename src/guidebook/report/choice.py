"""A choice between values of an option as one self-contained page of HTML."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import plots
from ..inference.choice import RULE, Choice
from ..inference.words import nats, number
from ..workflow.files import atomic_write
from .made import made
from .render import render

COLUMNS = {
    "elpd": (
        "elpd",
        "Expected log predictive density: log densities, in nats, of rows under fits that have not seen them, summed "
        "over all rows. Higher is better. ± is one standard error over rows.",
    ),
    "difference": (
        "difference",
        "Elpd less that of the best, ± its standard error, paired over rows: most of what makes the elpd itself "
        "uncertain is common to all values (Vehtari, Gelman and Gabry 2017).",
    ),
    "num_parameters": (
        "p_loo",
        "Effective number of parameters: by how many nats the density of the rows is higher if they are seen.",
    ),
    "num_unreliable": (
        "k̂ high",
        "Rows whose leave-one-out density is not to be relied on: Pareto's k̂ is above its limit of about 0.7.",
    ),
    "bic": (
        "BIC",
        "Log likelihood at its maximum (EM) less ½ log n per parameter, in nats: higher is better (Schwarz 1978). Many "
        "programs print −2 times this.",
    ),
    "icl": (
        "ICL",
        "BIC less the entropy of the rows' components, in nats: higher is better, and components that overlap cost "
        "(Biernacki, Celeux and Govaert 2000).",
    ),
    "laplace_evidence": (
        "evidence",
        "Log evidence in nats by Laplace's method around the maximum of the likelihood, up to a constant; higher is "
        "better (Minka 2000).",
    ),
    "perplexity": (
        "perplexity",
        "Of half the tokens of documents that were not fitted, per token; lower is better (Wallach et al. 2009). ± is "
        "one standard error over documents.",
    ),
    "seconds": ("seconds", "Wall-clock time of the fits."),
}


def write_choice(
    choice: Choice,
    path: str | Path,
    *,
    title: str | None = None,
    facts: Sequence[tuple[str, str]] = (),
    run: Mapping[str, Any] | None = None,
) -> Path:
    """Write a choice as one HTML file that needs no other file, script or network; return its path.

    Parameters
    ----------
    choice : Choice
    path : str or Path
        File to write; parent folders are created. An existing file is replaced whole or not at all.
    title : str, optional
    facts : sequence of (str, str)
        Terms and words for the head of the page.
    run : dict, optional
        Record of the command that made the page, from which ``guidebook rerun`` repeats it.

    Raises
    ------
    OSError
        If the path cannot be written.
    """
    values = ", ".join(map(str, choice.table.index))
    figure = plots.plot_choice(choice)
    columns = choice.table.dropna(axis="columns", how="all").columns
    shown = {name: words for name, words in COLUMNS.items() if name in columns}
    for name in columns:
        if name not in COLUMNS and not str(name).endswith("error"):
            shown[str(name)] = (str(name), "")
    page = render(
        "choice.html.j2",
        title=title or f"{choice.option}: {values}",
        headline=_headline(choice),
        facts=facts,
        contents=["What it rests on"],
        run=run,
        sentence=choice.sentence,
        notes=choice.notes,
        rule=RULE,
        option=choice.option,
        chosen=str(choice.chosen),
        columns=shown,
        rows=[
            {"value": str(value), **{name: _cell(name, row) for name in shown}}
            for value, row in zip(choice.table.index, choice.table.to_dict("records"), strict=True)
        ],
        figure=plots.to_svg(figure, f"Criteria at {choice.option} of {values}", "choice"),
        made=made(run=run),
    )
    return atomic_write(path, page)


def _headline(choice: Choice) -> str:
    """Say which value is chosen, and whether another one predicts better by a little."""
    value = f"{choice.option}={choice.chosen}"
    if choice.chosen == choice.best:
        return f"{value} predicts new rows best."
    return f"{value} predicts new rows as well as any, and is the simplest that does."


def _cell(name: str, row: Mapping[Any, Any]) -> str:
    """Format a figure with its error, if it has one."""
    value, error = row[name], row.get("error" if name == "elpd" else f"{name}_error")
    if name in ("num_unreliable", "seconds", "num_parameters"):
        return "–" if math.isnan(value) else f"{value:.{0 if name == 'num_unreliable' else 1}f}"
    words = nats(value) if name != "perplexity" else number(value)
    return words if error is None or math.isnan(error) or not error else f"{words} ± {nats(error)}"
