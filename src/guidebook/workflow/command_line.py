"""The command that is running, as it was typed."""

import shlex
import sys
from pathlib import Path


def command_line() -> str | None:
    """Return the running ``guidebook`` command; None if Python called the function that asks."""
    program, *words = sys.argv
    path = Path(program)
    if "guidebook" not in (path.stem, path.parent.name if path.stem == "__main__" else ""):  # python -m another
        return None
    return shlex.join(["guidebook", *words])
