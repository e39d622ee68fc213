"""Data-parallel steps: rows per second of two ranks against those of one, a thread and a batch each."""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from guidebook.guides import vae as vae_guides
from guidebook.inference import svi
from guidebook.models import vae

from .measure import ROOT, Record, in_turn, record
from .vae import COLUMNS, FACTORS, HIDDEN, pixels

BATCH = 512  # rows per step and rank


def rows(quick: bool) -> Iterator[Record]:
    repeats, few, many = (1, 10, 60) if quick else (5, 20, 220)
    found = in_turn(repeats, *(lambda size=size: rate(size, few, many) for size in (2, 1)))
    (two, busy), (one, alone) = ([[run[key] for run in runs] for key in ("rows", "cpu")] for runs in found)
    yield record(
        "ranks",
        f"two ranks, VAE {COLUMNS}-{HIDDEN}-{HIDDEN}-{FACTORS}, batches of {BATCH} each",
        "one rank",
        two,
        one,
        "rows/s",
        asked=1.6,
        higher=True,
        what=f"gloo, float32, eager, one thread per rank; processor time per step and rank: {1e3 * min(busy):.0f} ms "
        f"with two ranks and {1e3 * min(alone):.0f} ms with one (least of the runs)",
    )


def rate(size: int, few: int, many: int) -> dict[str, float]:
    """Rows per second of so many ranks, and processor seconds per step of the first."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        words = [str(Path(folder) / "group"), str(size), str(few), str(many)]
        command = [sys.executable, "-m", "benchmarks.ranks", *words]
        others = [subprocess.Popen([*command, str(rank)], cwd=ROOT, env=environment) for rank in range(1, size)]
        first = subprocess.run([*command, "0"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        for process in others:
            process.wait()
    if first.returncode:
        raise RuntimeError(f"benchmarks: a rank failed: {(first.stderr.strip() or 'no message').splitlines()[-1]}")
    return json.loads(first.stdout.splitlines()[-1])


def _child(group: str, size: int, few: int, many: int, rank: int) -> None:
    torch.set_num_threads(1)
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{group}", rank=rank, world_size=size)
    options: dict[str, Any] = {"latent_dim": FACTORS, "hidden": (HIDDEN, HIDDEN)}
    model, guide, x = partial(vae.model, **options), partial(vae_guides.encoder, **options), pixels()
    how: dict[str, Any] = {"batch_size": BATCH, "lr": 1e-3, "num_draws": 1, "local_draws": False, "engine": "eager"}
    marks: list[tuple[float, float]] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "svi: took")
        for steps in (few, few, many):  # the first does not count
            begin = time.perf_counter(), time.process_time()
            svi(model, guide, x, num_steps=steps, progress=False, **how)
            marks.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    wall, busy = ((late - early) / (many - few) for early, late in zip(*marks[1:], strict=True))
    if rank == 0:
        print(json.dumps({"rows": size * BATCH / wall, "cpu": busy}), flush=True)
    if size > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _child(sys.argv[1], *map(int, sys.argv[2:]))
