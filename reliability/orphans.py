"""Commands that signals end at random moments: no process of theirs is left, no file, and the status says which signal.

``python -m reliability.orphans [--times 20] [--signals SIGTERM SIGKILL] [--seed 0]``
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

COMMANDS = (
    "run logistic --method hmc --draws 20000 --out OUT",  # chains in processes
    "run gmm --method gibbs --draws 100000 --set num_components=3 --out OUT",
    "compare logistic --methods nuts,svi:mean_field --draws 100000 --warmup 100000 --out OUT",  # compiled chains
    "run logistic --method svi:full_rank --steps 2000000 --out OUT",  # a compiler, and compiled steps
    "choose linear --set prior_scale=1,2,3,4 --method nuts --draws 20000 --out OUT",
)
NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGKILL")
SECONDS_TO_END = 20.0  # that a command and its processes have after the signal
SECONDS_TO_START = 120.0


class Left(NamedTuple):
    """What is left of a command after a signal: status (negative: the signal ended it), words, processes, files."""

    status: int
    said: str
    processes: list[str]
    files: list[str]


def ended(
    words: Sequence[str], number: int, after: float, folder: Path, *, group: bool = False, until: str | None = None
) -> Left:
    """Run a command, send it a signal, and return what is left of it.

    Parameters
    ----------
    words : sequence of str
        The command's words after ``guidebook``; OUT stands for a folder to write to.
    number : int
        The signal.
    after : float
        Seconds after the start at which it is sent.
    folder : Path
        An empty folder, for its temporary files and its results.
    group : bool
        Whether its worker processes are sent the signal, too, as a terminal does on Ctrl-C.
    until : str, optional
        Text of a process of the command to wait for first.
    """
    mark, out, temporary = f"GUIDEBOOK_MARK={uuid.uuid4().hex}", folder / "out", folder / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "guidebook", *(str(out) if word == "OUT" else word for word in words)]
    environment = os.environ | {"TMPDIR": str(temporary)} | dict([mark.split("=")])
    begin = time.time()
    with tempfile.TemporaryFile() as errors:  # a pipe would stay open as long as the last of its processes
        run = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
        _wait_for(until, mark, run)
        time.sleep(after)
        (os.killpg if group else os.kill)(run.pid, number)
        deadline = time.monotonic() + SECONDS_TO_END
        while (run.poll() is None or _processes(mark)) and time.monotonic() < deadline:
            time.sleep(0.1)
        left = _processes(mark)
        for process in left:
            os.kill(int(process.split()[0]), signal.SIGKILL)
        status = run.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    return Left(status, said, left, _files(folder, run.pid, begin))


def _wait_for(until: str | None, mark: str, run: subprocess.Popen) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while until is not None and not any(until in words for words in _processes(mark)):
        if time.monotonic() > deadline or run.poll() is not None:
            raise AssertionError(f"no process {until!r} came up")
        time.sleep(0.1)


def _files(folder: Path, process: int, begin: float) -> list[str]:
    """Return the files of a command, but for compiled code that it keeps, and its shared memory.

    Older files there are those of an earlier process with the same number.
    """
    found = [path for path in (folder / "tmp").iterdir() if not path.name.startswith("torchinductor_")]
    found += [path for path in folder.iterdir() if path.name != "tmp"]
    shared = Path("/dev/shm")
    number = re.compile(rf"(?<!\d){process}(?!\d)")
    names = [path for path in shared.iterdir() if number.search(path.name)] if shared.is_dir() else []
    found += [path for path in names if path.stat().st_mtime >= begin]
    return [str(path) for path in found]


def _processes(mark: str) -> list[str]:
    """Return number and words of every process whose environment has the mark (Linux)."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdecimal() and mark.encode() in (place / "environ").read_bytes():
                words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{place.name} {words}")
        except OSError:
            continue
    return found


def main() -> int:
    """Signal commands in turn, print what is left of each, and return how many left anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="commands per signal")
    parser.add_argument("--signals", nargs="+", choices=NAMES, default=["SIGTERM"])
    parser.add_argument("--latest", type=float, default=40.0, help="seconds after the start, at most")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random.seed(given.seed)
    faults = 0
    for name in given.signals:
        number = getattr(signal, name)
        for place in range(given.times):
            command, after = COMMANDS[place % len(COMMANDS)], random.uniform(1.0, given.latest)
            with tempfile.TemporaryDirectory() as folder:
                left = ended(command.split(), number, after, Path(folder), group=number == signal.SIGINT)
            fault = faults_of(left, number)
            faults += bool(fault)
            print(f"{name} after {after:4.1f} s: {fault or 'nothing left'}: {command}", flush=True)
    print(f"{faults} of {given.times * len(given.signals)} left something")
    return faults


def faults_of(left: Left, number: int) -> str:
    """Return what is wrong with what is left; empty if nothing is. A command killed -9 may leave its draft."""
    wrong = [f"process {words}" for words in left.processes]
    if number != signal.SIGKILL:
        wrong += [f"file {file}" for file in left.files]
        if left.status != 128 + number:  # negative: of a signal that was not handled
            wrong.append(f"status {left.status}")
        if "guidebook: interrupted\n" not in left.said or "Traceback" in left.said:
            wrong.append(f"said {left.said!r}")
    else:
        wrong += [f"file {file}" for file in left.files if ".guidebook-" not in file]
    return "; ".join(wrong)


if __name__ == "__main__":
    sys.exit(main())
