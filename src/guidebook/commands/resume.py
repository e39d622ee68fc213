"""``guidebook resume``."""

from pathlib import Path
from typing import Annotated

import typer


def resume(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder given as --checkpoint.")],
) -> None:
    """Go on with a run, fit or compare that was stopped, from its checkpoint."""
    from guidebook.cli import app  # which has this command
    from guidebook.workflow.resume import read_command

    app(read_command(folder), standalone_mode=False)
