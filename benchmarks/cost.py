"""What a step costs, on paper: ``python -m benchmarks.cost [FILE …]``, the formulas of ``docs/scale.md``.

A FILE has the lines that ``python -m benchmarks.scale`` printed: the smallest size of each source gives the rate, and
the others say how far the formula is off. Without it, the plan for 1e9 rows, 1e6 words and 64 GPUs is printed alone.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from .scale import COMPONENTS, DIM


class Machine(NamedTuple):
    """Rates of one worker, and of the network between them; default: a data-sheet H100 at a tenth of its peak."""

    flops: float = 6e12  # per second, float32
    memory: float = 2e12  # bytes per second
    disk: float = 3e9  # bytes per second
    network: float = 5e10  # bytes per second, per worker
    latency: float = 2e-5  # seconds per message


def em_flops(rows: float, columns: int, components: int) -> float:
    """Return operations of a pass of EM with full covariances: whitening, products of columns, and two products."""
    features = columns + columns * (columns + 1) / 2
    return rows * (2 * columns**2 + features + 4 * components * features)


def em_bytes(rows: float, columns: int) -> float:
    """Return bytes that a pass reads, float32."""
    return 4 * rows * columns


def lda_flops(entries: float, topics: int, words: float, updates: int = 30) -> float:
    """Return operations of a batch: topics of its entries, ``updates`` times, and a move of all topics."""
    return 4 * entries * topics * updates + 20 * topics * words


def all_reduce(size: float, workers: int, machine: Machine) -> float:
    """Return seconds in which workers add up ``size`` bytes by a ring: Patarasuk and Yuan (2009), theorem 1."""
    if workers == 1:
        return 0.0
    return 2 * (workers - 1) / workers * size / machine.network + 2 * (workers - 1) * machine.latency


def held_against(lines: list[dict[str, Any]]) -> list[str]:
    """Return a line per measurement of a pass of EM: what the formula says, by the rate of the smallest one."""
    found, rates = [], {}
    for line in sorted((line for line in lines if line["part"] == "em"), key=lambda line: line["rows"]):
        work = em_flops(line["rows"], DIM, COMPONENTS)
        rate = rates.setdefault(line["source"], work / line["pass_cpu_s"])
        predicted = work / rate
        found.append(
            f"{line['source']}, {line['rows']:,} rows: {line['pass_cpu_s']:.3f} s measured, "
            f"{predicted:.3f} s predicted, {rate / 1e9:.1f} Gflop/s"
        )
    return found


def plan(machine: Machine = Machine(), workers: int = 64) -> list[str]:  # noqa: B008 (immutable)
    """Return a line per model of the plan: seconds of computing, reading and adding up."""
    rows, words, topics = 1e9, 1e6, 100
    share = rows / workers
    features = DIM + DIM * (DIM + 1) // 2
    statistics = 8.0 * COMPONENTS * (features + 1)
    compute = em_flops(share, DIM, COMPONENTS) / machine.flops
    read, add = em_bytes(share, DIM) / machine.disk, all_reduce(statistics, workers, machine)
    found = [f"EM, a pass: {compute:.3f} s computing, {read:.2f} s reading, {add:.4f} s adding up"]
    entries = 1e5  # of a thousand documents per worker
    compute = lda_flops(entries, topics, words) / machine.flops
    move, add = 3 * 4 * topics * words / machine.memory, all_reduce(4 * topics * words, workers, machine)
    found.append(f"topics, a batch: {compute:.4f} s computing, {move:.4f} s moving topics, {add:.4f} s adding up")
    weights, batch = 4e5, 512
    compute = 6 * weights * batch / machine.flops
    add = all_reduce(4 * weights, workers, machine)
    found.append(f"autoencoder, a step: {compute:.6f} s computing, {add:.6f} s adding up")
    return found


if __name__ == "__main__":
    measured = [json.loads(text) for file in sys.argv[1:] for text in Path(file).read_text().splitlines()]
    print("\n".join([*held_against(measured), *plan()]))
