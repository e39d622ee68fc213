"""A sweep as a table for a person, and as a file for a program."""

import csv
import io
from typing import Any

from guidebook.inference.words import nats, number
from guidebook.workflow.sweep import in_words

HEADS = {
    "model": "model",
    "data": "data",
    "method": "method",
    "fits": "fits",
    "judgements": "judgement",
    "elbo": "ELBO",
    "log_likelihood": "log likelihood",
    "k_hat": "k̂",
    "seconds": "seconds",
}
LEAST_WIDTH = 110  # characters


def table_cells(record: dict[str, Any]) -> list[dict[str, str]]:
    """Return the rows of the table in words, by the columns of `HEADS` that have an entry."""
    rows = [{name: _cell(name, row) for name in HEADS} for row in record["table"]]
    used = [name for name in HEADS if any(row[name] != "–" for row in rows)]
    return [{name: row[name] for name in used} for row in rows]


def _cell(name: str, row: dict[str, Any]) -> str:
    value = row[name]
    if name == "fits":
        whole = row["fits"] + row["failed"]
        words = str(whole) if not row["failed"] else f"{row['fits']} of {whole}"
        return words + (f", {row['unconverged']} not settled" if row["unconverged"] else "")
    if name == "judgements":
        if len(value) == 1:
            return next(iter(value))
        return ", ".join(f"{count} {each}" for each, count in value.items()) or "–"
    if value is None:
        return "–"
    if name in ("elbo", "log_likelihood"):
        spread = row[f"{name}_sd"]
        return nats(value) + (f" ± {nats(spread)}" if spread else "")
    return number(value) if name in ("k_hat", "seconds") else str(value)


def print_sweep(record: dict[str, Any]) -> None:
    """Print the table of a sweep and what is to be said of it."""
    from rich.console import Console
    from rich.table import Table

    rows = table_cells(record)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in rows[0]:
        table.add_column(HEADS[name], justify="left" if name in ("model", "data", "method", "judgements") else "right")
    for row in rows:
        table.add_row(*row.values())
    console = Console(markup=False)
    console.width = max(console.width, LEAST_WIDTH)
    console.print(table)
    print("\n".join(in_words(record)))


def as_csv(record: dict[str, Any]) -> str:
    """Return the cells of a sweep, one per line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*record["cells"][0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(record["cells"])
    return text.getvalue()
