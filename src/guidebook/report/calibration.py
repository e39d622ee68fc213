"""A calibration as one self-contained page of HTML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import plots
from ..inference.calibrate import Calibration
from ..workflow.files import atomic_write
from .made import made
from .render import render

COLUMNS = {
    "mean_shift_in_sd": (
        "mean shift",
        "Mean of the draws less that of the posterior, in sds of the posterior, as far as ranks tell. ± is one "
        "standard error.",
    ),
    "sd_ratio": ("sd ratio", "Sd of the draws over that of the posterior; below one, intervals are too narrow."),
    "p_value": (
        "p",
        "Probability of ranks so far from uniform if the draws are those of the posterior, adjusted for the number of "
        "quantities (Säilynoja et al. 2022; Holm 1979). Below 0.05 counts as off.",
    ),
    "p_symmetry": (
        "p of symmetry",
        "Likewise of ranks so far from symmetric: a guide's spread may be wrong by design, and its means right all "
        "the same (Yao et al. 2018).",
    ),
    "direction": ("draws are", "In which direction the draws are off, where p is below 0.05."),
}


def write_calibration(
    calibration: Calibration,
    path: str | Path,
    *,
    title: str | None = None,
    facts: Sequence[tuple[str, str]] = (),
    run: Mapping[str, Any] | None = None,
) -> Path:
    """Write a calibration as one HTML file that needs no other file, script or network; return its path.

    Parameters
    ----------
    calibration : Calibration
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
    page = render(
        "calibration.html.j2",
        title=title or f"{calibration.method}: calibration",
        facts=facts,
        run=run,
        judgement=calibration.judgement,
        sentence=calibration.sentence,
        columns=COLUMNS,
        rows=[_row(name, row) for name, row in calibration.quantities.items()],
        figure=plots.to_svg(plots.plot_calibration(calibration), "Ranks beside the uniform distribution", "ranks"),
        made=made(run=run),
    )
    return atomic_write(path, page)


def _row(name: str, row: dict[str, Any]) -> dict[str, str]:
    shift = f"{row['mean_shift_in_sd']:+.2f} ± {_error(row['error_of_shift'])}".replace("-", "−")
    return {
        "name": name,
        "mean_shift_in_sd": shift,
        "sd_ratio": f"{row['sd_ratio']:.2f} ± {_error(row['error_of_ratio'])}",
        "p_value": f"{row['p_value']:.2g}",
        "p_symmetry": f"{row['p_symmetry']:.2g}",
        "direction": row["direction"],
    }


def _error(value: float | None) -> str:
    return "∞" if value is None else f"{value:.2f}"
