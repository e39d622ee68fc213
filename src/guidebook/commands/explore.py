"""``guidebook explore``."""

from pathlib import Path
from typing import Annotated

import typer


def explore(
    places: Annotated[
        list[Path],
        typer.Argument(
            help="Folders by `compare --out` or `fit --out`, folders of such, or files by `--json`.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Page to write.")] = Path("reports/explorer.html"),
) -> None:
    """Write one page in which to pick a model, a method and a quantity, and see the posterior over the reference."""
    from guidebook.workflow.stored import read_stored

    found = read_stored(places)

    from guidebook.report import write_explorer
    from guidebook.workflow.command_line import command_line

    write_explorer(found.comparisons, out, ladders=found.fits, command=command_line())
    print(out)
