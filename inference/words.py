"""Figures as a person reads them: rounded, listed, and in tables with columns in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

if TYPE_CHECKING:
    import pandas as pd

HEADINGS = {
    "judgement": "verdict",
    "seconds": "seconds",
    "elbo": "ELBO, nats",
    "k_hat": "k̂",
    "worst": "worst quantity",
    "mean_shift_in_sd": "mean shift, sd",
    "sd_ratio": "sd ratio",
    "wasserstein_in_sd": "W₁, sd",
    "error_of_shift": "error of shift",
    "error_of_ratio": "error of ratio",
}
MOST_DECIMALS = 3  # of nats; what lies below is Monte Carlo error


def table_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table as text: its columns by their `HEADINGS`, ELBOs with as many decimals as tell them apart."""
    import pandas as pd

    columns = {}
    for name, column in table.items():
        values = column.tolist()
        if name == "elbo":
            decimals = decimals_apart(values)
            words = [nats(value, decimals) for value in values]
        else:
            words = [value or "–" if isinstance(value, str) else number(value) for value in values]
        columns[HEADINGS.get(str(name), str(name))] = words
    return pd.DataFrame(columns, index=table.index)


def aligned(table: pd.DataFrame) -> str:
    """Return a table of text in columns: words to the left, figures to the right, whatever width letters have."""
    columns = [[str(table.index.name or ""), *map(str, table.index)], *([str(name), *table[name]] for name in table)]
    shown = []
    for place, column in enumerate(columns):
        width = max(map(cell_len, column))
        is_words = place == 0 or any(entry[:1].isalpha() for entry in column[1:])
        gaps = [" " * (width - cell_len(entry)) for entry in column]
        shown.append([entry + gap if is_words else gap + entry for entry, gap in zip(column, gaps, strict=True)])
    return "\n".join("  ".join(row).rstrip() for row in zip(*shown, strict=True))


def listed(values: Sequence[Any]) -> str:
    """Return at least one value as text: "a, b and c"."""
    *some, last = map(str, values)
    return f"{', '.join(some)} and {last}" if some else last


def number(value: Any) -> str:
    """Format to three significant digits, large numbers as whole ones; a dash if there is no figure."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    value = value + 0.0  # no negative zero
    return (f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}").replace("-", "−")


def nats(value: float | None, decimals: int = 1) -> str:
    """Format a log density, by default to a tenth: differences of one nat matter, however large it is."""
    return number(value) if value is None or not math.isfinite(value) else f"{value:,.{decimals}f}".replace("-", "−")


def decimals_apart(values: Iterable[float | None]) -> int:
    """Return the fewest decimals, one at least, at which log densities that differ look different."""
    known = {float(value) for value in values if value is not None and math.isfinite(value)}
    enough = (
        decimals for decimals in range(1, MOST_DECIMALS) if len({round(v, decimals) for v in known}) == len(known)
    )
    return next(enough, MOST_DECIMALS)
