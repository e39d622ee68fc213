"""Data that do not fit in memory: ``python -m benchmarks.scale [--quick] [--only PART …]``, results as JSON lines.

Parts: ``svi`` (time and memory of a minibatch step as rows grow, from mapped and sparse files), ``em`` (a pass in
memory, from a mapped file, from Parquet, as rows grow), ``lda`` (a million simulated documents). Files are made in a
temporary folder, 4 GB at most, and deleted. ``docs/scale.md`` holds its formulas against these figures.
"""

import argparse
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .measure import in_process

PIECE = 1_000_000  # rows written at a time
BATCH, COLUMNS = 256, 8  # of svi
DIM, COMPONENTS = 16, 8  # of em
TOPICS, WORDS, LENGTH, ALPHA, ETA = (10, 20), 2000, 64, 0.1, 0.05  # of lda
DOCUMENTS, START = 1000, 5000  # per batch, and those that coordinate ascent starts from


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help=", ".join(PARTS))
    given = parser.parse_args()
    for part in given.only:
        with tempfile.TemporaryDirectory() as folder:
            for found in PARTS[part](Path(folder), 100 if given.quick else 1):
                print(json.dumps({"part": part, **found}), flush=True)


def svi_rows(folder: Path, divide: int) -> Iterator[dict[str, Any]]:
    """Steps from mapped and from sparse files of 1e4 to 1e8 rows."""
    for size in sorted({10_000, 1_000_000 // divide, 100_000_000 // divide}):
        write_rows(folder, size)
        for kind, function in (("mapped file", "svi_mapped"), ("mapped file, in blocks", "svi_blocks")):
            yield {"source": kind, **in_process(f"scale:{function}", folder=str(folder), size=size)}
        for file in folder.iterdir():
            file.unlink()
    for size in sorted({10_000, 1_000_000 // divide, 10_000_000 // divide}):
        write_sparse(folder, size)
        yield {"source": "sparse file", **in_process("scale:svi_sparse", folder=str(folder), size=size)}


def em_rows(folder: Path, divide: int) -> Iterator[dict[str, Any]]:
    """A pass of EM in memory, from a mapped file and from Parquet, in turn."""
    for size in (100_000 // divide, 1_000_000 // divide, 4_000_000 // divide):
        write_clusters(folder, size)
        for source in ("memory", "mapped file", "parquet"):
            found = in_process("scale:em_pass", folder=str(folder), size=size, source=source)
            yield {"source": source, **found}


def lda_rows(folder: Path, divide: int) -> Iterator[dict[str, Any]]:
    """Topics from documents that are simulated as they are read, and how well they predict as more are seen."""
    for num_topics in TOPICS:
        yield in_process("scale:topics", num_topics=num_topics, total=1_000_000 // divide)


PARTS: dict[str, Callable[[Path, int], Iterator[dict[str, Any]]]] = {"svi": svi_rows, "em": em_rows, "lda": lda_rows}


def write_rows(folder: Path, size: int) -> None:
    """Features and labels as .npy files of float32, a piece at a time."""
    rng = np.random.default_rng(0)
    features = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (size, COLUMNS))
    labels = np.lib.format.open_memmap(folder / "y.npy", "w+", np.float32, (size,))
    for start in range(0, size, PIECE):
        x = rng.standard_normal((min(PIECE, size - start), COLUMNS), dtype=np.float32)
        features[start : start + PIECE] = x
        labels[start : start + PIECE] = rng.random(len(x), dtype=np.float32) < 1 / (1 + np.exp(-x.sum(1)))


def write_sparse(folder: Path, size: int, columns: int = 64, filled: int = 6) -> None:
    """The three arrays of a compressed sparse row matrix as .npy files."""
    rng = np.random.default_rng(0)
    starts = np.lib.format.open_memmap(folder / "indptr.npy", "w+", np.int64, (size + 1,))
    starts[:] = np.arange(0, filled * size + 1, filled)
    places = np.lib.format.open_memmap(folder / "indices.npy", "w+", np.int32, (filled * size,))
    counts = np.lib.format.open_memmap(folder / "data.npy", "w+", np.float32, (filled * size,))
    for start in range(0, size, PIECE):
        rows = min(PIECE, size - start)
        first = rng.integers(0, columns // filled, (rows, filled))
        part = slice(filled * start, filled * (start + rows))
        places[part] = (first + np.arange(filled) * (columns // filled)).ravel()
        counts[part] = rng.poisson(1.0, rows * filled) + 1


def write_clusters(folder: Path, size: int) -> None:
    """Rows of a Gaussian mixture as a .npy file and as a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    centres = 0.7 * rng.standard_normal((COMPONENTS, DIM))
    x = np.lib.format.open_memmap(folder / "c.npy", "w+", np.float32, (size, DIM))
    schema = pyarrow.schema([(f"x{k}", pyarrow.float32()) for k in range(DIM)])
    with parquet.ParquetWriter(folder / "c.parquet", schema) as writer:
        for start in range(0, size, PIECE):
            rows = min(PIECE, size - start)
            part = centres[rng.integers(COMPONENTS, size=rows)] + rng.standard_normal((rows, DIM))
            x[start : start + rows] = part
            columns = [pyarrow.array(x[start : start + rows, k]) for k in range(DIM)]
            writer.write_table(pyarrow.table(columns, schema=schema), row_group_size=PIECE // 8)


def svi_mapped(folder: str, size: int) -> dict[str, Any]:
    """Steps of a logistic regression, rows looked up one by one at random."""
    from guidebook.models import logistic

    data = tuple(np.load(f"{folder}/{name}.npy", mmap_mode="r") for name in "xy")
    return svi_steps(logistic.model, data, size)


def svi_blocks(folder: str, size: int) -> dict[str, Any]:
    """The same, rows shuffled within blocks that are read one after the other."""
    from guidebook.inference import stream
    from guidebook.models import logistic

    data = tuple(np.load(f"{folder}/{name}.npy", mmap_mode="r") for name in "xy")
    return svi_steps(logistic.model, (stream(data, by="blocks"),), size)


def svi_sparse(folder: str, size: int) -> dict[str, Any]:
    """Steps of a Poisson regression on nothing but a rate per column, from a sparse matrix on mapped arrays."""
    import pyro
    import pyro.distributions as dist
    import torch
    from scipy import sparse

    parts = tuple(np.load(f"{folder}/{name}.npy", mmap_mode="r") for name in ("data", "indices", "indptr"))
    matrix = sparse.csr_array((size, 64), dtype=np.float32)
    matrix.data, matrix.indices, matrix.indptr = parts  # the constructor would look at all of them

    def model(x: torch.Tensor) -> None:
        rate = pyro.sample("rate", dist.LogNormal(x.new_zeros(x.shape[-1]), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)

    return svi_steps(model, (matrix,), size)


def svi_steps(model: Callable, data: tuple, size: int, few: int = 20_000, many: int = 220_000) -> dict[str, Any]:
    """CPU seconds per compiled step, and the peak memory of a fit without mapped files."""
    from guidebook import guides
    from guidebook.inference import svi

    from .measure import peak_memory

    warnings.simplefilter("ignore")
    held: list[Any] = []

    def fit(num_steps: int) -> float:
        begin = time.process_time()
        how: dict[str, Any] = {"num_draws": 1, "engine": "compiled", "progress": False}
        held.append(svi(model, guides.mean_field, *data, batch_size=BATCH, num_steps=num_steps, **how).info.streamed)
        return time.process_time() - begin

    fit(few)  # compiles
    with peak_memory() as peak:
        first = fit(few)
    second = fit(many)
    return {"rows": size, "step_us": 1e6 * (second - first) / (many - few), "peak_mib": peak.mib, "streamed": held[-1]}


def em_pass(folder: str, size: int, source: str) -> dict[str, Any]:
    """Wall and CPU seconds of an iteration of EM on a Gaussian mixture with full covariances, and the peak memory."""
    import torch

    from guidebook.inference import em, stream
    from guidebook.models import gmm

    from .measure import peak_memory

    warnings.simplefilter("ignore")
    x: Any = stream(f"{folder}/c.parquet" if source == "parquet" else f"{folder}/c.npy")
    if source == "memory":
        x = torch.from_numpy(np.load(f"{folder}/c.npy"))
    steps = gmm.em_steps(COMPONENTS)
    seconds, cpu, passes = [], [], []
    with peak_memory() as peak:
        for num_steps in (2, 10):
            begin, used = time.perf_counter(), time.process_time()
            found = em(steps, x, num_restarts=1, num_steps=num_steps, tol=1e-300, accelerate=False)
            seconds.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - used)
            passes.append(len(found.info.objective))
    return {
        "rows": size,
        "passes": passes[1] - passes[0],
        "pass_s": (seconds[1] - seconds[0]) / (passes[1] - passes[0]),
        "pass_cpu_s": (cpu[1] - cpu[0]) / (passes[1] - passes[0]),
        "start_cpu_s": cpu[0],
        "log_likelihood": found.info.log_likelihood,
        "peak_mib": peak.mib,
        "streamed": found.info.streamed,
    }


def topics(num_topics: int, total: int) -> dict[str, Any]:
    """Perplexity of held-out documents, and the truth's, as more are seen; how near the topics are to the truth."""
    import torch

    from guidebook.inference import online, stream
    from guidebook.models import lda

    from .measure import peak_memory

    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.full(WORDS, ETA), num_topics)
    cumulative = truth.cumsum(1)

    def documents(seed: int, count: int = DOCUMENTS) -> Any:
        draw = np.random.default_rng([1, seed])
        shares = draw.dirichlet(np.full(num_topics, ALPHA), count).cumsum(1)
        topic = (draw.random((count, LENGTH, 1)) > shares[:, None, :-1]).sum(-1).ravel()
        chance, word = draw.random(topic.size), np.empty(topic.size, np.int64)
        for k in range(num_topics):
            word[topic == k] = np.searchsorted(cumulative[k], chance[topic == k])
        places = torch.from_numpy(np.stack([np.arange(count).repeat(LENGTH), word.clip(max=WORDS - 1)]))
        ones = torch.ones(topic.size, dtype=torch.float64)
        return torch.sparse_coo_tensor(places, ones, (count, WORDS), check_invariants=False).coalesce()

    held_out, curve = documents(10**6), []
    begin, used = time.perf_counter(), time.process_time()
    steps = lda.online_steps(num_topics, ALPHA, ETA)
    marks = [DOCUMENTS * 10**k for k in range(1 + round(math.log10(total // DOCUMENTS)))]
    with peak_memory() as peak:
        first = [documents(10**6 + 1, START)]  # online learning does not leave the optimum in whose reach it starts
        fitted = online(steps, stream(first, num_rows=START), batch_size=START, num_draws=1, progress=False)
        for start, stop in pairwise([0, *marks]):

            def some(start: int = start, stop: int = stop) -> Iterator[Any]:
                return (documents(batch) for batch in range(start // DOCUMENTS, stop // DOCUMENTS))

            source = stream(some, num_rows=stop - start)
            how: dict[str, Any] = {"batch_size": DOCUMENTS, "num_rows": total, "num_draws": 1, "progress": False}
            fitted = online(steps, source, init=fitted, **how)
            mean = fitted.params["topic_words.concentration"]
            mean = mean / mean.sum(-1, keepdim=True)
            affinity = (mean.sqrt() @ torch.from_numpy(truth).sqrt().mT).amax(0)
            perplexity = lda.perplexity(mean, held_out, alpha=ALPHA)
            near = {"least_affinity": float(affinity.min()), "found": int((affinity > 0.95).sum())}
            curve.append({"documents": stop, "perplexity": perplexity, **near})
    best = lda.perplexity(torch.from_numpy(truth), held_out, alpha=ALPHA)
    found = {"topics": num_topics, "curve": curve, "perplexity_of_truth": best}
    times = {"seconds": time.perf_counter() - begin, "cpu_s": time.process_time() - used}
    return {**found, **times, "peak_mib": peak.mib, "held": fitted.info.streamed}


if __name__ == "__main__":
    main()
