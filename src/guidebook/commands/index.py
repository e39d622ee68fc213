"""``guidebook index``."""

from pathlib import Path
from typing import Annotated

import typer


def index_reports(
    folders: Annotated[list[Path], typer.Argument(help="Folders written by `guidebook compare --out`.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Page to write.")] = Path("reports/index.html"),
) -> None:
    """Write one page with the verdicts of several comparisons and links to their reports."""
    from guidebook.report import write_index
    from guidebook.workflow.command_line import command_line
    from guidebook.workflow.output import read_reports

    write_index(read_reports(folders, out.parent), out, command=command_line())
    print(out)
