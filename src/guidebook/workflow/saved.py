"""Fits in folders: written by ``guidebook run --out`` or ``fit --out``, and read with their model and data again."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from guidebook.inference import Posterior
from guidebook.workflow.files import as_json, drafted
from guidebook.workflow.fit import Task, load_task
from guidebook.workflow.fitted import model_of, read_record
from guidebook.workflow.output import told
from guidebook.workflow.own.inputs import NewData, read_inputs
from guidebook.workflow.own.rows import fitted_rows
from guidebook.workflow.record import run_record
from guidebook.workflow.rows import as_csv, parameter_table, row_table, write_rows


def save_fit(folder: Path, task: Task, posterior: Posterior, record: dict[str, Any]) -> None:
    """Write a posterior, what the command prints of it, a page, and tables of the quantities and of the rows."""
    from guidebook.report import write_fit  # matplotlib is slow to load

    identified = task.identify(posterior.draws) if task.identify else posterior.draws
    tables = {"parameters.csv": parameter_table(identified, task.coords)}
    if all(figures["r_hat"] is None for figures in record["parameters"].values()):  # of chains that need not agree
        tables["parameters.csv"]["r_hat"] = math.nan
    rows = _rows(task, posterior, record)
    if rows is not None:
        tables["rows.csv"] = rows
    run = run_record(task, record["seed"], {"posterior": posterior})
    with drafted(folder, run) as draft:
        posterior.save(draft / "posterior.safetensors", about=run)
        (draft / "result.json").write_text(as_json(record), encoding="utf-8")
        for name, table in tables.items():
            (draft / name).write_text(as_csv(table), encoding="utf-8")
        about = {"model": task.model, "data": task.args, "run": run}
        write_fit(posterior, draft / "report.html", told(task, record), tables["parameters.csv"], **about)


def save_in_blocks(folder: Path, task: Task, posterior: Posterior, record: dict[str, Any]) -> None:
    """Write what `save_fit` does where rows are read in blocks, in two more passes; the page has no figures of rows."""
    from guidebook.report import write_fit  # matplotlib is slow to load

    identified = task.identify(posterior.draws) if task.identify else posterior.draws
    table = parameter_table(identified, task.coords)
    run = run_record(task, record["seed"], {"posterior": posterior})
    with drafted(folder, run) as draft:
        posterior.save(draft / "posterior.safetensors", about=run)
        (draft / "result.json").write_text(as_json(record), encoding="utf-8")
        (draft / "parameters.csv").write_text(as_csv(table), encoding="utf-8")
        write_rows(draft / "rows.csv", task, posterior)
        write_fit(posterior, draft / "report.html", told(task, record), table, run=run)


def _rows(task: Task, posterior: Posterior, record: dict[str, Any]) -> pd.DataFrame | None:
    if task.own is None:
        return row_table(task.row, posterior, task.data, task.options)
    tensors = dict(zip(task.own.arguments, task.args, strict=True))
    data = NewData(task.model, tensors, task.data.rows, task.data.ids)
    return fitted_rows(data, read_inputs(record["inputs"]), posterior)


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
    record = read_record(folder)
    made_by = (record["method"], record["guide"])
    task = load_task(model or model_of(folder, record), record["source"], record["settings"], made_by)
    return task, Posterior.load(folder / "posterior.safetensors")
