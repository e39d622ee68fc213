"""Fits in folders: written by ``guidebook run --out`` or ``fit --out``, and read with their model and data again."""

import json
from pathlib import Path
from typing import Any

from guidebook.inference import Posterior
from guidebook.workflow.files import as_json, drafted
from guidebook.workflow.fit import Task, load_task
from guidebook.workflow.output import told
from guidebook.workflow.rows import as_csv, parameter_table, row_table


def save_fit(folder: Path, task: Task, posterior: Posterior, record: dict[str, Any]) -> None:
    """Write a posterior, what the command prints of it, a page, and tables of the quantities and of the rows."""
    from guidebook.report import write_fit  # matplotlib is slow to load

    tables = {"parameters.csv": parameter_table(task.identify(posterior.draws), task.coords)}
    rows = row_table(task.row, posterior, task.data, task.options)
    if rows is not None:
        tables["rows.csv"] = rows
    with drafted(folder) as draft:
        posterior.save(draft / "posterior.safetensors")
        (draft / "result.json").write_text(as_json(record), encoding="utf-8")
        for name, table in tables.items():
            (draft / name).write_text(as_csv(table), encoding="utf-8")
        about = {"model": task.model, "data": task.args}
        write_fit(posterior, draft / "report.html", told(task, record), tables["parameters.csv"], **about)


def load_fit(folder: Path) -> tuple[Task, Posterior]:
    """Return the task of a saved fit, and its posterior.

    Raises
    ------
    ValueError
        If the folder holds no fit.
    """
    record = read_record(folder)
    made_by = (record["method"], record["guide"])
    task = load_task(record["model"], record["source"], record["settings"], made_by)
    return task, Posterior.load(folder / "posterior.safetensors")


def read_record(folder: Path) -> dict[str, Any]:
    """Return what was printed of a saved fit; ValueError if the folder holds none."""
    try:
        record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        if {"method", "guide", "model", "source", "settings"} <= record.keys():
            return record
    except (OSError, AttributeError, ValueError):
        pass
    raise ValueError(f"{folder} holds no fit: make one with guidebook run --out {folder}")
