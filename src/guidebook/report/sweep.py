"""A sweep as one self-contained page of HTML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..plots import Table
from ..workflow.files import atomic_write
from ..workflow.sweep import in_words, name_of
from ..workflow.sweep_output import HEADS, table_cells
from .made import made
from .render import render

COLUMNS = {
    "fits": "Seeds that were fitted; of how many, if some failed.",
    "judgements": "How good the fits are, without a reference; with counts, if seeds differ.",
    "elbo": "Evidence lower bound in nats, the mean over seeds ± their standard deviation. Compare it within one model "
    "and data set.",
    "log_likelihood": "Of points, in nats: mean over seeds ± their standard deviation.",
    "k_hat": "Pareto shape of the importance weights, the largest of all seeds: up to 0.7 usable.",
    "seconds": "Median wall time of a fit.",
}


def write_sweep(record: Mapping[str, Any], path: str | Path, *, command: str | None = None) -> Path:
    """Write a sweep as one HTML file that needs no other file, script or network; return its path.

    Parameters
    ----------
    record : dict
        As `guidebook sweep --json` prints it.
    path : str or Path
        File to write; parent folders are created. An existing file is replaced whole or not at all.
    command : str, optional
        The command that made it.

    Raises
    ------
    OSError
        If the path cannot be written.
    """
    rows, cells = table_cells(dict(record)), record["cells"]
    models = dict.fromkeys(cell["model"] for cell in cells)
    headline, *notes = in_words(dict(record))
    each = Table(
        ["cell", "judgement", "seconds", "how it ended"],
        [
            [
                name_of(cell),
                cell["judgement"] or "–",
                "–" if cell["seconds"] is None else f"{cell['seconds']:.1f}",
                cell["failed"] or cell["stopped_because"],
            ]
            for cell in cells
        ],
        f"All {len(cells)} fits",
    )
    page = render(
        "sweep.html.j2",
        title=f"Sweep over {', '.join(models)}",
        headline=headline,
        contents=["All methods", "Every fit"],
        notes=notes,
        heads={name: (HEADS[name], COLUMNS.get(name, "")) for name in rows[0]},
        rows=rows,
        cells=each,
        made=made([cell["seed"] for cell in cells], command=command),
    )
    return atomic_write(path, page)
