"""Fits in folders: written by ``guidebook run --out`` or ``fit --out``, and read with their model and data again."""

import json
import warnings
from pathlib import Path
from typing import Any

from guidebook.inference import Posterior
from guidebook.workflow.files import as_json, drafted
from guidebook.workflow.fit import Task, load_task
from guidebook.workflow.own.file import SHOWN, find_function, is_own


def save_fit(folder: Path, posterior: Posterior, record: dict[str, Any]) -> None:
    """Write a posterior and what the command prints of it."""
    with drafted(folder) as draft:
        posterior.save(draft / "posterior.safetensors")
        (draft / "result.json").write_text(as_json(record), encoding="utf-8")


def load_fit(folder: Path, model: str | None = None) -> tuple[Task, Posterior]:
    """Return the task of a saved fit, and its posterior.

    A model in a user's own file is run only if the file lies outside the folder and is what it was when it was fitted.

    Parameters
    ----------
    folder : Path
    model : str, optional
        The model, also ``FILE.py:FUNCTION``, instead of the one that the folder names.

    Raises
    ------
    ValueError
        If the folder holds no fit, or its model is not to be run.
    """
    try:
        record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        made_by = (record["method"], record["guide"])
        given = model or record["model"], record["source"], record["settings"]
        if model is None and is_own(given[0]):
            given = _unchanged(folder, record["file"]), *given[1:]
    except (OSError, KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{folder} holds no fit: make one with guidebook run --out {folder}") from None
    return load_task(*given, made_by), Posterior.load(folder / "posterior.safetensors")


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
    warnings.warn(f"saved: running {name}, unchanged since the fit", stacklevel=3)
    return name
