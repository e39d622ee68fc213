"""Numbers as text, and the words that explain the columns of the table."""

import math
from collections.abc import Mapping
from typing import Any

from .. import plots
from ..inference.compare import Comparison
from ..inference.quantities import Coords, label

COLUMNS = {
    "seconds": ("seconds", "Wall-clock time of the fit alone."),
    "elbo": (
        "ELBO",
        "Evidence lower bound in nats, estimated from the guide's draws. For one model and one data set, the guide "
        "with the higher ELBO is closer to the posterior in KL(q‖p). Samplers and points have none.",
    ),
    "k_hat": (
        "k̂",
        "Pareto shape of the importance weights p(x, z)/q(z): above 0.7, q misses mass in the tails or has another "
        "joint shape. It errs both ways, so it changes no verdict. Like the ELBO, it cannot see modes that the guide "
        "never visits.",
    ),
    "worst": (
        "worst quantity",
        "The quantity farthest from the reference; a mean shift of 0.25 sd counts as much as an sd wrong by 25 %. The "
        "next three columns are for this quantity.",
    ),
    "mean_shift_in_sd": ("mean shift", "Difference of the means, in standard deviations of the reference."),
    "sd_ratio": ("sd ratio", "Standard deviation over the reference's; below one, the posterior is overconfident."),
    "wasserstein_in_sd": (
        "W₁",
        "Wasserstein distance of order one between the two marginal distributions, in standard deviations of the "
        "reference: how far probability has to be moved on average.",
    ),
}


def table_row(row: Mapping[Any, Any]) -> dict[str, str]:
    """Return a row of a comparison's table as text: its ``method`` and its columns."""
    words = {column: number(row.get(column)) for column in COLUMNS if column not in ("worst", "elbo")}
    words |= {"method": row["method"], "judgement": row.get("judgement") or "", "worst": row.get("worst") or "–"}
    return words | {"elbo": nats(row.get("elbo"))}


def titles(comparison: Comparison, coords: Coords) -> dict[str, str]:
    """Return what to call every quantity: its label, by ``coords`` if the comparison itself has only numbers."""
    if any(name != numbered for name, numbered in comparison.numbered.items()):
        return {name: name for name in comparison.numbered}
    found = {}
    for name in comparison.numbered:
        site, _, index = name.removesuffix("]").partition("[")
        at = [int(place) for place in index.split(",")] if site in coords and index else []
        found[name] = label(site, at, coords) if at else name
    return found


def legend(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Return name, colour and dash pattern of every posterior; no pattern for the reference, which is an area."""
    entries = []
    for name, look in plots.looks(comparison).items():
        pattern = "0" if look.dash == "-" else " ".join(str(1.6 * length) for length in look.dash[1])
        entries.append((name, look.colour, "" if name == comparison.reference else pattern))
    return entries


def number(value: Any) -> str:
    """Format to three significant digits, large numbers as whole ones; a dash if there is no figure."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    value = value + 0.0  # no negative zero
    return (f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}").replace("-", "−")


def nats(value: float | None) -> str:
    """Format a log density to a tenth: differences of one nat matter, however large it is."""
    return number(value) if value is None or not math.isfinite(value) else f"{value:,.1f}".replace("-", "−")
