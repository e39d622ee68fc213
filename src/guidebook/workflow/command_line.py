"""The command that is running, as it was typed."""

import shlex
import sys
from pathlib import Path


def command_line() -> str | None:
    """Return the running ``guidebook`` command; None if Python called the function that asks."""
    program, *words = sys.argv
    if Path(program).stem not in ("guidebook", "__main__"):
        return None
    return shlex.join(["guidebook", *words])
