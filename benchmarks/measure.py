"""How things are measured: in turn, by medians and quartiles, memory by the peak of a process of its own."""

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
KIB = 1024  # in a MiB
REST = 0.3  # seconds before each turn: threads of the other side's libraries wait for work by spinning


class Record(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    area : str
        File of this folder that measured it.
    name, peer : str
        What is measured, and what it is measured against.
    ours, theirs : float or None
        Medians, in ``unit``.
    unit : str
    ratio : tuple of float, or None
        Median and quartiles of the runs' ratios: how many times as good ours is, or where ``share``, ours over theirs.
    share : bool
    asked : float or None
        Least ratio asked for, or where ``share``, the largest; without a ``ratio``, the largest of ``ours``.
    runs : int
        Runs that the medians are of.
    memory : tuple of float, or None
        Peak of ours and of theirs, in MiB above what the process held before.
    what : str
        Settings, sizes, and what else was found.
    """

    area: str
    name: str
    peer: str
    ours: float
    theirs: float | None
    unit: str
    ratio: tuple[float, float, float] | None
    share: bool
    asked: float | None
    runs: int
    memory: tuple[float, float] | None
    what: str

    @property
    def met(self) -> bool | None:
        """Whether what was asked for was reached; None where nothing was."""
        if self.asked is None:
            return None
        if self.ratio is None:
            return self.ours <= self.asked
        return self.ratio[0] <= self.asked if self.share else self.ratio[0] >= self.asked


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def ratios(ours: Sequence[float], theirs: Sequence[float], *, share: bool, higher: bool = False) -> list[float]:
    """Run by run, how many times as good ours is (or with ``share``, ours over theirs).

    Runs that took turns are paired; where there are not as many of either, each is held against the other's median.
    """
    if len(ours) > len(theirs):
        theirs = [float(np.median(theirs))] * len(ours)
    elif len(theirs) > len(ours):
        ours = [float(np.median(ours))] * len(theirs)
    return [a / b if share or higher else b / a for a, b in zip(ours, theirs, strict=True)]


def record(
    area: str,
    name: str,
    peer: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    unit: str,
    *,
    what: str,
    asked: float | None = None,
    share: bool = False,
    higher: bool = False,
    memory: tuple[float, float] | None = None,
) -> Record:
    """A line from runs; ``higher``: more of the unit is better."""
    found = quartiles(ratios(ours, theirs, share=share, higher=higher))
    medians = float(np.median(ours)), float(np.median(theirs))
    return Record(area, name, peer, *medians, unit, found, share, asked, len(ours), memory, what)


def bound(area: str, name: str, ours: Sequence[float], unit: str, *, what: str, asked: float | None = None) -> Record:
    """A line about us alone."""
    return Record(area, name, "–", float(np.median(ours)), None, unit, None, True, asked, len(ours), None, what)


def seconds(action: Callable[[], Any], device: str = "cpu") -> float:
    """Wall time of a call, with what it left to the device."""
    begin = time.perf_counter()
    action()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def in_turn(repeats: int, *actions: Callable[[], float]) -> list[list[float]]:
    """What each action returns, one after the other and over again: a list for each."""
    found: list[list[float]] = [[] for _ in actions]
    for _ in range(repeats):
        for values, action in zip(found, actions, strict=True):
            time.sleep(REST)
            values.append(action())
    return found


def timed(repeats: int, *actions: Callable[[], Any], device: str = "cpu") -> list[list[float]]:
    """Wall times of the actions in turn, after one round that does not count."""
    for action in actions:
        action()
    return in_turn(repeats, *(lambda action=action: seconds(action, device) for action in actions))


def step_time(fit: Callable[[int], Any], few: int, many: int) -> float:
    """Seconds a step: a fit of many steps less one of few, so that start, compilation and end do not count."""
    first, second = seconds(lambda: fit(few)), seconds(lambda: fit(many))
    if second <= first:
        raise ArithmeticError(f"benchmarks: {many} steps took no longer than {few}: the machine is too busy")
    return (second - first) / (many - few)


def smallest_ess(sites: dict[str, Tensor]) -> float:
    """Least effective sample size of all entries that vary; draws are shaped (chain, draw, …)."""
    from guidebook.inference.diagnostics import ess

    sizes = [ess(value) for value in sites.values()]
    return min(float(size.nan_to_num(torch.inf).min()) for size in sizes)


def in_process(function: str, environment: dict[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
    """Call ``benchmarks.MODULE:FUNCTION`` in a fresh process; it takes and returns what JSON holds.

    Nothing compiled, cached or allocated by other runs helps or hinders it. Imports and data are as the function has
    them: it measures for itself.
    """
    command = [sys.executable, "-m", "benchmarks.measure", function, json.dumps(arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | (environment or {}), capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"benchmarks: {function} failed in its process: {last}")
    return json.loads(done.stdout.splitlines()[-1])


class Peak:
    """What `peak_memory` fills in: MiB."""

    mib = float("nan")


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """How far this process's memory rose above where it stood, mapped files not counted; nan where Linux is not.

    The kernel's own high-water mark, set back at the start, after what earlier work left behind was given back.
    """
    peak = Peak()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        yield peak
        return
    before = _memory()
    yield peak
    after = _memory()
    files = max(0, after["RssFile"] - before["RssFile"])
    peak.mib = max(0, after["VmHWM"] - before["VmRSS"] - files) / KIB


def _memory() -> dict[str, int]:
    """What the kernel says of this process, in KiB."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) for line in lines if line[0] in ("VmHWM:", "VmRSS:", "RssFile:")}


def _child() -> None:
    module, name = sys.argv[1].split(":")
    import importlib
    import warnings

    warnings.simplefilter("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    answer = getattr(importlib.import_module(f"benchmarks.{module}"), name)(**json.loads(sys.argv[2]))
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _child()
