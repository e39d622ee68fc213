"""What a minibatch step costs as the data grow, the rows in a memory-mapped file."""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guidebook import guides
from guidebook.inference import svi
from guidebook.models import logistic

from .measure import Record, in_process, record

COLUMNS, BATCH, FEW, MANY = 8, 256, 2_000, 52_000


def rows(quick: bool) -> Iterator[Record]:
    sizes, repeats = ((1_000, 100_000), 1) if quick else ((1_000, 100_000, 10_000_000), 5)
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            write(Path(folder), size)
        runs: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
        for _ in range(repeats):
            for size in sizes:
                runs[size].append(in_process("minibatch:fits", folder=folder, size=size))
    least = sizes[0]
    for size in sizes[1:]:
        micro = [[1e6 * run["step"] for run in runs[n]] for n in (size, least)]
        peaks = [float(np.median([run["mib"] for run in runs[n]])) for n in (size, least)]
        yield record(
            "minibatch",
            f"minibatch SVI step, {size:,} rows",
            f"ours, {least:,} rows",
            micro[0],
            micro[1],
            "µs",
            asked=1.5,
            share=True,
            memory=(peaks[0], peaks[1]),
            what=f"logistic, {COLUMNS} columns, batches of {BATCH}, float32 file, compiled; memory of the whole fit, "
            f"its start and end included, pages of the file not; flat is asked for, read as at most 1.5 times",
        )


def write(folder: Path, size: int) -> None:
    """Features and labels as float32 files, a piece at a time."""
    rng = np.random.default_rng(0)
    with (folder / f"x{size}").open("wb") as features, (folder / f"y{size}").open("wb") as labels:
        for start in range(0, size, 1_000_000):
            x = rng.standard_normal((min(1_000_000, size - start), COLUMNS), dtype=np.float32)
            y = rng.random(len(x), dtype=np.float32) < 1 / (1 + np.exp(-x.sum(1)))
            x.tofile(features)
            y.astype(np.float32).tofile(labels)


def mapped(folder: str, size: int) -> tuple[Tensor, Tensor]:
    x = torch.from_file(f"{folder}/x{size}", size=size * COLUMNS).view(size, COLUMNS)
    return x, torch.from_file(f"{folder}/y{size}", size=size)


def fits(folder: str, size: int, few: int = FEW, many: int = MANY) -> dict[str, float]:
    """Seconds a step, and the peak memory of a fit."""
    from .measure import peak_memory, step_time

    warnings.simplefilter("ignore")
    x, y = mapped(folder, size)

    def fit(rows: int, num_steps: int) -> None:
        svi(
            logistic.model,
            guides.mean_field,
            x[:rows],
            y[:rows],
            batch_size=BATCH,
            num_steps=num_steps,
            num_draws=1,
            engine="compiled",
            progress=False,
        )

    fit(BATCH, few)  # compiles
    with peak_memory() as peak:
        fit(size, few)
    return {"step": step_time(lambda num_steps: fit(size, num_steps), few, many), "mib": peak.mib}
