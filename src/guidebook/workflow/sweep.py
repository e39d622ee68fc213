"""A sweep: one cell fitted by a worker, and all of them as a table."""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from guidebook.workflow.fit import fit, load_task
from guidebook.workflow.ladder import judge_alone
from guidebook.workflow.names import split_method
from guidebook.workflow.output import run_json
from guidebook.workflow.record import draws_sha256
from guidebook.workflow.resolve import find_row
from guidebook.workflow.sweep_cells import Cell, Gap
from guidebook.workflow.tasks import run_tasks

KEPT = ("data", "seconds", "converged", "stopped_because", "log_likelihood", "elbo", "k_hat", "judgement", "sentence")
LOST = "its worker was lost, and lost again when it was retried: memory may be short"


def run_cell(cell: Cell) -> dict[str, Any]:
    """Fit one cell; the record says why if it fails. On like processors, all workers find the same numbers."""
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what fits say of themselves is in the record
        try:
            method, guide = split_method(find_row(cell.model, cell.settings), cell.method)
            task = load_task(cell.model, cell.data, cell.settings, (method, guide))
            counts: Any = cell.counts
            posterior = fit(task, method, guide, **counts, seed=cell.seed, device=cell.device)
            found = judge_alone(task, posterior, cell.seed) if cell.judged else None
            record = run_json(task, posterior, found)
        except Exception as error:  # users' models can fail in any way, and the other cells go on
            kind = "" if isinstance(error, ValueError | ArithmeticError | OSError) else f"{type(error).__name__}: "
            words = " ".join(str(error).split())
            return _about(cell) | failed(f"{kind}{words}", time.perf_counter() - begin)
    kept = {name: record[name] for name in KEPT}
    return _about(cell) | kept | {"draws_sha256": draws_sha256(posterior), "failed": None}


def _about(cell: Cell) -> dict[str, Any]:
    about = {"model": cell.model, "method": cell.method, "data": None, "source": cell.data}
    return about | {"seed": cell.seed}


def failed(reason: str, seconds: float | None) -> dict[str, Any]:
    """Return the fields of a cell without a fit."""
    return dict.fromkeys(KEPT[1:]) | {"seconds": seconds, "draws_sha256": None, "failed": reason}


def sweep(
    cells: Sequence[Cell],
    gaps: Sequence[Gap] = (),
    *,
    workers: int | None = None,
    cluster: str | None = None,
    note: Callable[[int], Any] = lambda count: None,
) -> dict[str, Any]:
    """Fit all cells, by `run_tasks`, and return the record of the sweep.

    Returns
    -------
    dict
        ``cells``: a record of each, as ``guidebook run`` has it but for parameters, with ``draws_sha256``, ``failed``
        (None, or why) and ``lost``, how many workers were lost while it was being fitted. ``table``: a row for each
        model, data set and method, over the seeds. ``gaps``: models without a method, and why.
    """
    records, names = [], {}
    for cell, done in zip(cells, run_tasks(run_cell, cells, workers=workers, cluster=cluster, note=note), strict=True):
        record = _about(cell) | failed(LOST, None) if done.result is None else done.result
        if record["failed"] is None:
            names[cell.model, cell.method, cell.data] = record["data"]
        records.append(record | {"lost": done.lost})
    for cell, record in zip(cells, records, strict=True):  # one that failed need not have known its default data
        given = cell.data and (Path(cell.data).name if Path(cell.data).exists() else cell.data)
        record["data"] = names.get((cell.model, cell.method, cell.data), given)
    return {"table": summary(records), "cells": records, "gaps": [gap._asdict() for gap in gaps]}


def summary(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each model, data set and method: figures over its seeds.

    ``elbo`` and ``log_likelihood`` are means in nats, with their standard deviations over seeds in ``elbo_sd`` and
    ``log_likelihood_sd``; ``k_hat`` is the largest, ``seconds`` the median; ``judgements`` counts them.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["model"], record["method"], record["source"]), []).append(record)
    rows = []
    for (model, method, _), group in groups.items():
        data = group[0]["data"]
        sound = [record for record in group if record["failed"] is None]
        judgements = [record["judgement"] for record in sound if record["judgement"]]
        row: dict[str, Any] = {"model": model, "data": data, "method": method, "fits": len(sound)}
        row |= {"failed": len(group) - len(sound), "unconverged": sum(not record["converged"] for record in sound)}
        for name in ("elbo", "log_likelihood"):
            values = [record[name] for record in sound if record[name] is not None]
            row[name] = statistics.fmean(values) if values else None
            row[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
        row["k_hat"] = max((r["k_hat"] for r in sound if r["k_hat"] is not None), default=None)
        row["judgements"] = {each: judgements.count(each) for each in dict.fromkeys(judgements)}
        row["seconds"] = statistics.median(record["seconds"] for record in sound) if sound else None
        rows.append(row)
    return rows


def in_words(record: dict[str, Any]) -> list[str]:
    """Return sentences on a sweep: how many fits, what failed and why, what was retried, what there is not."""
    cells = record["cells"]
    lost = [cell for cell in cells if cell["lost"]]
    bad = [cell for cell in cells if cell["failed"]]
    count = f"{len(cells) - len(bad)} of {len(cells)} fits succeeded"
    words = [f"{count}; {len(lost)} had to be begun again, since a worker was lost." if lost else f"{count}."]
    words += [f"{name_of(cell)} failed: {cell['failed'].rstrip('.')}." for cell in bad]
    words += [f"{name_of(cell)} was begun again." for cell in lost if not cell["failed"]]
    return words + [f"Not fitted: {gap['reason'].rstrip('.')}." for gap in record["gaps"]]


def name_of(cell: dict[str, Any]) -> str:
    """Return a cell as it is called in sentences."""
    data = f" on {cell['data']}" if cell["data"] else ""
    return f"{cell['model']}{data} by {cell['method']}, seed {cell['seed']}"
