"""``guidebook predict``."""

import os
from pathlib import Path
from typing import Annotated

import typer


def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `run --out` or `fit --out` wrote.")],
    data: Annotated[str, typer.Option(metavar="FILE", help="New rows, with the columns of those fitted.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:FUNCTION", help="Your own model of the fit.", show_default="the one fitted"),
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="FILE|-", help="Table to write, a line per row; - for standard output.")
    ] = "-",
) -> None:
    """Say of new rows what a saved fit says of those it was made from: segments, factors, topics, predictions."""
    from guidebook.workflow.fitted import read_record
    from guidebook.workflow.names import check_data

    check_data(read_record(folder)["model"], data)

    from guidebook.workflow import predict as predicting
    from guidebook.workflow.files import atomic_write, check_writable, is_stream
    from guidebook.workflow.rows import as_csv

    if out != "-" and not is_stream(Path(out)):
        check_writable(Path(os.path.realpath(out)).parent)
    table = predicting.predict(folder, data, model)
    if out == "-":
        print(as_csv(table), end="")
    else:
        atomic_write(out, as_csv(table))
        print(f"{len(table):,} rows: {out}")
