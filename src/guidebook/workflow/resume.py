"""Commands with a checkpoint: written down in its folder, so that ``guidebook resume`` can give them again."""

import json
import os
import shlex
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from guidebook.workflow.files import as_json, atomic_write
from guidebook.workflow.own.file import functions_in

FILE = "command.json"
COMMANDS = ("run", "fit", "compare")  # that take --checkpoint
FREE = ("checkpoint", "every", "out", "json_file")  # options that may differ when a command goes on


def note_command(folder: Path, command: str, options: Mapping[str, Any]) -> None:
    """Write the command that is running down in the folder of its checkpoint; relative paths keep their meaning.

    A ValueError says if another command is there.
    """
    fixed = {"command": command} | {name: value for name, value in options.items() if name not in FREE}
    words = sys.argv[1:]
    if (folder / FILE).exists():
        before = _read(folder)
        if before["options"] != fixed:
            said = f"--checkpoint: {folder} belongs to another command, guidebook {shlex.join(before['words'])}"
            raise ValueError(f"{said}: give another folder, or that command to resume it")
        if words[:1] == ["resume"]:
            return
    record = {"words": words, "folder": os.getcwd(), "options": fixed, "files": _own_files(words)}
    atomic_write(folder / FILE, as_json(record))


def read_command(folder: Path) -> list[str]:
    """Return the words of the command that a checkpoint belongs to, and go to the folder that it was given in.

    A user's own model is run only if its file lies outside of the checkpoint and is what it was.
    """
    record, inside = _read(folder), folder.resolve()
    if not Path(record["folder"]).is_dir():
        raise ValueError(f"resume: {folder} was begun in {record['folder']}, which is not there")
    os.chdir(record["folder"])
    for name, found in _own_files(record["words"]).items():
        if Path(found["path"]).is_relative_to(inside):
            raise ValueError(f"resume: {folder} brings {name} along, and what lies in a checkpoint is not run")
        if record["files"].get(name) != found:
            raise ValueError(f"resume: {name} has changed since {folder} was begun: begin anew in another folder")
        warnings.warn(f"resume: running {name}, unchanged since the fit was begun", stacklevel=2)
    return [*record["words"], "--checkpoint", str(inside)]


def _read(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / FILE).read_text(encoding="utf-8"))
        kinds = {"words": list, "folder": str, "options": dict, "files": dict}
        whole = all(isinstance(record[name], kind) for name, kind in kinds.items())
        if whole and all(isinstance(word, str) for word in record["words"]) and record["words"][0] in COMMANDS:
            return record
    except (OSError, LookupError, TypeError, ValueError, RecursionError):
        pass
    raise ValueError(f"resume: {folder} holds no command: make one with guidebook run … --checkpoint {folder}")


def _own_files(words: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return, for each function in a user's own file that words name, where it is and what the file is like."""
    return {own.given: {"path": str(own.path), "sha256": own.sha256} for own in functions_in(words)}
