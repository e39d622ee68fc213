"""``guidebook rerun``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from guidebook.commands.options import Json, check_targets, write_json


def rerun(
    place: Annotated[Path, typer.Argument(metavar="REPORT|DIR", help="A report, or a folder, that a command wrote.")],
    json_file: Json = None,
) -> None:
    """Repeat a run, and say whether it came out the same: bit for bit, or else the largest difference."""
    from guidebook.workflow.manifest import read_run

    if not place.exists():
        raise FileNotFoundError(f"no such file or folder: {place}")
    record, folder = read_run(place)
    check_targets(None, None, json_file)
    os.environ.setdefault("OMP_NUM_THREADS", str(int(record.get("threads") or 1)))  # read when torch is imported

    from guidebook.workflow.rerun import repeat

    found = repeat(record, place, folder)
    write_json(found._asdict(), json_file)
    if str(json_file) != "-":
        print(found.sentence)
    if not found.same:
        raise typer.Exit(1)
