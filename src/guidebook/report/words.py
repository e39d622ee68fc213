"""The words that explain the columns of a comparison's table, and the names of its quantities."""

from collections.abc import Mapping, Sequence
from typing import Any

from .. import plots
from ..inference.compare import Comparison
from ..inference.quantities import Coords, label
from ..inference.words import HEADINGS, decimals_apart, nats, number
from ..plots.colours import css

_EXPLAINED = {
    "seconds": "Wall-clock time of the fit alone.",
    "elbo": (
        "Evidence lower bound, estimated from the guide's draws. For one model and one data set, the guide with the "
        "higher ELBO is closer to the posterior in KL(q‖p). Samplers and points have none."
    ),
    "k_hat": (
        "Pareto shape of the importance weights p(x, z)/q(z): above 0.7, q misses mass in the tails or has another "
        "joint shape. It errs both ways, so it changes no verdict. Like the ELBO, it cannot see modes that the guide "
        "never visits."
    ),
    "worst": (
        "The quantity farthest from the reference; a mean shift of 0.25 sd counts as much as an sd wrong by 25 %. The "
        "next three columns are for this quantity."
    ),
    "mean_shift_in_sd": "Difference of the means, in standard deviations of the reference.",
    "sd_ratio": "Standard deviation over the reference's; below one, the posterior is overconfident.",
    "wasserstein_in_sd": (
        "Wasserstein distance of order one between the two marginal distributions, in standard deviations of the "
        "reference: how far probability has to be moved on average."
    ),
}
COLUMNS = {name: (HEADINGS[name], words) for name, words in _EXPLAINED.items()}


def table_rows(rows: Sequence[Mapping[Any, Any]]) -> list[dict[str, str]]:
    """Return rows of a comparison's table as text: ``method``, ``judgement`` and what is in `COLUMNS`."""
    decimals = decimals_apart(row.get("elbo") for row in rows)
    return [
        {column: number(row.get(column)) for column in COLUMNS if column not in ("worst", "elbo")}
        | {"method": row["method"], "judgement": row.get("judgement") or "", "worst": row.get("worst") or "–"}
        | {"elbo": nats(row.get("elbo"), decimals)}
        for row in rows
    ]


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
    """Return name, colour in CSS and dash pattern of every posterior; no pattern for the reference, an area."""
    entries = []
    for name, look in plots.looks(comparison).items():
        pattern = "0" if look.dash == "-" else " ".join(str(1.6 * length) for length in look.dash[1])
        entries.append((name, css(look.colour), "" if name == comparison.reference else pattern))
    return entries
