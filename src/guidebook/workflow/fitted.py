"""What was printed of a saved fit, read before torch is imported, and whether its model may be run."""

import json
import warnings
from pathlib import Path
from typing import Any

from guidebook.workflow.own.file import SHOWN, find_function, is_own


def read_record(folder: Path) -> dict[str, Any]:
    """Return what was printed of a saved fit; ValueError if the folder holds none."""
    try:
        record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        needed = {"method", "guide", "model", "source", "settings"}
        if needed <= record.keys() and (not is_own(record["model"]) or "file" in record):
            return record
    except (OSError, AttributeError, RecursionError, TypeError, ValueError):
        pass
    raise ValueError(f"{folder} holds no fit: make one with guidebook run --out {folder}")


def model_of(folder: Path, record: dict[str, Any]) -> str:
    """Return the name of a saved fit's model; ValueError if it is a user's own and not to be run."""
    return _unchanged(folder, record["file"]) if is_own(record["model"]) else record["model"]


def _unchanged(folder: Path, file: dict[str, str]) -> str:
    """Return the name of a saved fit's own model if its file may be run, with a warning that it is."""
    path, name = Path(file["path"]), f"{file['path']}:{file['function']}"
    another = f"give --model {SHOWN} if it is to be run"
    if not path.is_absolute() or path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder} brings its model along, in {path}, and what lies in a folder of fits is not run")
    if not path.is_file():
        raise ValueError(f"{folder} was fitted by the model {name}, and there is no such file now: {another}")
    if find_function(name).sha256 != file["sha256"]:
        raise ValueError(f"{path} has changed since it was fitted in {folder}: {another}")
    warnings.warn(f"saved: running {name}, unchanged since the fit", stacklevel=4)
    return name
