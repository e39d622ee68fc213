"""Fits in folders: written by ``guidebook run --out`` or ``fit --out``, and read with their model and data again."""

import json
from pathlib import Path
from typing import Any

from guidebook.inference import Posterior
from guidebook.workflow.files import as_json, drafted
from guidebook.workflow.fit import Task, load_task


def save_fit(folder: Path, posterior: Posterior, record: dict[str, Any]) -> None:
    """Write a posterior and what the command prints of it."""
    with drafted(folder) as draft:
        posterior.save(draft / "posterior.safetensors")
        (draft / "result.json").write_text(as_json(record), encoding="utf-8")


def load_fit(folder: Path) -> tuple[Task, Posterior]:
    """Return the task of a saved fit, and its posterior.

    Raises
    ------
    ValueError
        If the folder holds no fit.
    """
    try:
        record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        made_by = (record["method"], record["guide"])
        given = record["model"], record["source"], record["settings"]
    except (OSError, KeyError, TypeError, ValueError):
        raise ValueError(f"{folder} holds no fit: make one with guidebook run --out {folder}") from None
    return load_task(*given, made_by), Posterior.load(folder / "posterior.safetensors")
