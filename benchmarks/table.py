"""The table: on the screen, and as Markdown for the README."""

import datetime
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from .measure import Record

HEADER = ("what", "against", "ours", "peer", "ratio (quartiles)", "asked", "memory, MiB", "runs")
PACKAGES = ("torch", "pyro-ppl", "numpyro", "jax", "scikit-learn", "lda", "tomotopy")


def cells(record: Record) -> tuple[str, ...]:
    """What a record says, as in `HEADER`."""
    sign = "≤" if record.share or record.ratio is None else "≥"
    unit = f" {record.unit}" if record.ratio is None else "×"
    asked = "–" if record.asked is None else f"{sign} {record.asked:g}{unit} {'✓' if record.met else '✗'}"
    ratio = "–"
    if record.ratio is not None:
        middle, low, high = map(number, record.ratio)
        ratio = f"{middle}× ({low}–{high})"
    theirs = "–" if record.theirs is None else f"{number(record.theirs)} {record.unit}"
    memory = "–" if record.memory is None else " / ".join(f"{value:.0f}" for value in record.memory)
    ours = f"{number(record.ours)} {record.unit}"
    return record.name, record.peer, ours, theirs, ratio, asked, memory, str(record.runs)


def number(value: float) -> str:
    """Three digits, and no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def show(records: Sequence[Record], title: str) -> None:
    """Print records as a table."""
    table = Table(title=title, title_justify="left")
    for column in HEADER:
        table.add_column(column, overflow="fold")
    for record in records:
        table.add_row(*cells(record))
    Console(width=max(140, Console().width)).print(table)


def machine() -> str:
    """The machine in words: no names, no paths."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = named[0].split(":", 1)[1].strip() if named else model
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    found = [f"{name} {installed}" for name in PACKAGES if (installed := _version(name))]
    device = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{model}, {os.cpu_count()} cores{device}; OMP_NUM_THREADS={threads} for all; "
        f"Python {platform.python_version()}, {', '.join(found)}"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def markdown(records: Sequence[Record], notes: Sequence[str], *, quick: bool) -> str:
    """The table and what was measured, as a document."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    command = "python -m benchmarks --quick" if quick else "make bench"
    lines = [f"Written by `{command}` on {today}.", "", f"{machine()}.", "", f"| {' | '.join(HEADER)} |"]
    lines.append(f"|{'---|' * len(HEADER)}")
    lines += [f"| {' | '.join(cells(record))} |" for record in records]
    lines += [
        "",
        "A ratio says how many times as fast (or as productive) ours is; where at most (≤) is asked for, it is",
        "ours over theirs. Median and quartiles of runs in turn. Memory: peaks of ours / theirs above the start.",
        "",
        "What was measured:",
        "",
    ]
    for record in records:
        against = "" if record.theirs is None else f", against {record.peer}"
        lines.append(f"- {record.name}{against}: {record.what}.")
    lines += [f"- {note}" for note in notes]
    return "\n".join(lines) + "\n"
