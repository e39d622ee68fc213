"""Figures as text, and the words that explain them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from .. import plots
from ..inference.compare import Comparison

COLUMNS = {
    "seconds": ("seconds", "Wall-clock time of the fit alone."),
    "elbo": (
        "ELBO",
        "Evidence lower bound in nats, estimated from the guide's draws. Between guides of one model and one data set "
        "the higher is the closer to the posterior in KL(q‖p); for samplers and points there is none.",
    ),
    "k_hat": (
        "k̂",
        "Pareto shape of the importance weights p(x, z)/q(z): below 0.5 good, up to 0.7 usable; above, q misses mass "
        "in the tails. Like the ELBO it cannot see a mode that the guide never visits.",
    ),
    "worst": (
        "worst quantity",
        "Where the posterior is farthest from the reference, a mean shift of 0.25 sd counting as much as an sd "
        "wrong by 25 %. The three figures after it are for this quantity.",
    ),
    "mean_shift_in_sd": ("mean shift", "Difference of the means, in standard deviations of the reference."),
    "sd_ratio": ("sd ratio", "Standard deviation over the reference's: below one the posterior is too sure of itself."),
    "wasserstein_in_sd": (
        "W₁",
        "Wasserstein distance of order one between the two marginal distributions, in standard deviations of the "
        "reference: how far probability has to be moved on average.",
    ),
}


class Table(NamedTuple):
    """A table of a section; rows of text, the first cell heads its row. Folded away where ``summary`` names it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str = ""


class Section(NamedTuple):
    """A part of the page: its heading, how to read it, and what it shows: figures side by side or one ``wide``."""

    title: str
    text: str
    figures: Sequence[Markup] = ()
    tables: Sequence[Table] = ()
    legend: bool = False
    wide: bool = False


def table_row(row: Mapping[Any, Any]) -> dict[str, str]:
    """A row of a comparison's table as text: its ``method`` and its columns."""
    words = {column: number(row.get(column)) for column in COLUMNS if column not in ("worst", "elbo")}
    words |= {"method": row["method"], "judgement": row.get("judgement") or "", "worst": row.get("worst") or "–"}
    return words | {"elbo": nats(row.get("elbo"))}


def legend(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Name, colour and dash pattern of every posterior; no pattern for the reference, which is an area."""
    entries = []
    for name, look in plots.looks(comparison).items():
        pattern = "0" if look.dash == "-" else " ".join(str(1.6 * length) for length in look.dash[1])
        entries.append((name, look.colour, "" if name == comparison.reference else pattern))
    return entries


def number(value: Any) -> str:
    """Three significant digits, whole numbers in full; a dash where there is no figure."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    value = value + 0.0  # no minus before a zero
    return (f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}").replace("-", "−")


def nats(value: float | None) -> str:
    """A log density, to a tenth: differences of a nat matter however large it is."""
    return number(value) if value is None or not math.isfinite(value) else f"{value:,.1f}".replace("-", "−")
