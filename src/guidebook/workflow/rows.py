"""Tables of a fit: a line per quantity, with the data's names, and a line per row, with its identifiers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from guidebook.catalog import Row
from guidebook.datasets import Dataset
from guidebook.inference import Posterior
from guidebook.inference.diagnostics import ess, r_hat
from guidebook.inference.quantities import Coords, label

if TYPE_CHECKING:
    from guidebook.workflow.fit import Task

_AT_ONCE = 2**22  # numbers


def parameter_table(quantities: Mapping[str, Tensor], coords: Coords) -> pd.DataFrame:
    """Return mean, sd, the central 90 %, R̂ and effective draws of each entry of each site, (chain, draw, *site)."""
    frames = []
    for site, draws in quantities.items():
        names = [label(site, index, coords) for index in np.ndindex(*draws.shape[2:])]
        flat = draws.detach().cpu().double().reshape(*draws.shape[:2], -1)
        size = max(1, _AT_ONCE // flat.shape[:2].numel())
        columns = [_figures(part) for part in flat.split(size, -1)]
        figures = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]} if columns else {}
        frames.append(pd.DataFrame({"quantity": names, **figures}))
    return pd.concat(frames, ignore_index=True)


def row_table(row: Row, posterior: Posterior, data: Dataset, options: Mapping[str, Any]) -> pd.DataFrame | None:
    """Return what a fit says of each row: its place in the source, its identifiers, and the model's own columns.

    None if the model says nothing of rows, or this fit does not, as of an autoencoder without an encoder.
    """
    if row.per_row is None:
        return None
    try:
        found = row.per_row(posterior, data, options)
    except ValueError:
        return None
    columns: dict[str, Any] = {"row": list(data.rows), **{name: list(values) for name, values in data.ids.items()}}
    for name, values in found.items():
        columns[name if name not in columns else f"{name}_"] = values.numpy() if isinstance(values, Tensor) else values
    return pd.DataFrame(columns)


def write_rows(file: Path, task: "Task", posterior: Posterior) -> None:
    """Write the table of rows that are read in blocks, block by block; nothing if there is none."""
    assert task.stream is not None
    start = 0
    for x, *rest in task.stream.blocks():
        x, y = x.double(), rest[0].double() if rest else None
        block = task.data._replace(x=x, y=y, rows=range(start, start + len(x)))
        table = row_table(task.row, posterior, block, task.options)
        if table is None:
            return
        with file.open("a", encoding="utf-8") as opened:
            opened.write(as_csv(table, header=not start))
        start += len(x)


def as_csv(table: pd.DataFrame, *, header: bool = True) -> str:
    """Return a table as the text of a .csv, six digits per number."""
    return table.to_csv(index=False, header=header, float_format="%.6g", lineterminator="\n")


def completed(row: Row, posterior: Posterior, data: Dataset, most_draws: int = 20) -> Dataset:
    """Return new rows with each NaN replaced by its mean given the row's other entries, averaged over draws.

    ValueError if the model cannot do so.
    """
    if not data.x.isnan().any():
        return data
    if row.data.complete is None:
        raise ValueError(f"{row.name}: cannot impute missing values: leave these rows out")
    flat = {name: value.flatten(0, 1).double() for name, value in posterior.draws.items()}
    length = len(next(iter(flat.values())))
    chosen = torch.linspace(0, length - 1, min(most_draws, length)).round().long().tolist()
    filled = [row.data.complete({name: value[k] for name, value in flat.items()}, data.x) for k in chosen]
    return data._replace(x=torch.stack(filled).mean(0))


def _figures(draws: Tensor) -> dict[str, np.ndarray]:
    """Return the columns of the table for draws of scalars, (chain, draw, scalar); NaN where a point has no figure."""
    flat = draws.flatten(0, 1)
    found = {"mean": flat.mean(0)}
    if bool((flat == flat[:1]).all()):
        nothing = torch.full_like(found["mean"], torch.nan)
        found |= dict.fromkeys(("sd", "low", "high", "r_hat", "ess"), nothing)
    else:
        low, high = torch.from_numpy(np.quantile(flat.numpy(), [0.05, 0.95], axis=0))
        found |= {"sd": flat.std(0), "low": low, "high": high, "r_hat": r_hat(draws), "ess": ess(draws)}
    return {name: value.numpy() for name, value in found.items()}
