"""Fits killed −9 at random moments and resumed: ``python -m reliability.kills``; exit status 1 if a result differs."""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when libraries are imported
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/guidebook-reliability")

import torch

from guidebook.inference import Posterior
from guidebook.inference.checkpoints.trees import take_apart

PATIENCE = 600.0  # seconds after which a fit that does not end is a fault


class Outcome:
    """What became of a case: kills, and what differed from the fit that was never stopped."""

    def __init__(self, kills: int, fits: int, seconds: float, differing: list[str]) -> None:
        self.kills, self.fits, self.seconds, self.differing = kills, fits, seconds, differing


def kill_and_resume(case: Callable[..., Posterior], kills: int, folder: Path, seed: int = 0) -> Outcome:
    """Kill a fit so many times in all, each time resuming it; where it ends before the next kill, begin it anew.

    Every result is held against the one of a run without a checkpoint, bit for bit.
    """
    chance, out = random.Random(seed), folder / "result.safetensors"
    begin = time.perf_counter()
    ended_before(lambda: case().save(out), None)
    seconds = time.perf_counter() - begin
    expected, killed, fits, differing = Posterior.load(out), 0, 0, []
    while killed < kills or not fits:
        out.unlink()
        shutil.rmtree(folder / "kept", ignore_errors=True)

        def resumable() -> None:
            case(checkpoint=folder / "kept", every=0.0).save(out)

        while not ended_before(resumable, chance.uniform(0, seconds) if killed < kills else None):
            killed += 1
        fits += 1
        differing += differences(expected, Posterior.load(out))
    return Outcome(killed, fits, seconds, differing)


def differences(one: Posterior, other: Posterior) -> list[str]:
    """Return the names of what differs in any bit, but for the seconds that a fit took."""

    def parts(posterior: Posterior) -> dict[str, object]:
        info = {f"info.{name}": _untimed(value) for name, value in vars(posterior.info).items() if name != "seconds"}
        return {**posterior.draws, **{f"params.{name}": value for name, value in posterior.params.items()}, **info}

    first, second = parts(one), parts(other)
    return [name for name in first.keys() | second.keys() if not _same(first.get(name), second.get(name))]


def _untimed(value: Any) -> Any:
    """Return the rows of a record without the seconds in them."""
    rows = isinstance(value, list) and all(isinstance(row, dict) for row in value)
    return [row | {"seconds": None} for row in value] if rows else value


def _same(one: object, other: object) -> bool:
    (tensors, text), (others, words) = take_apart(one), take_apart(other)
    pairs = zip(tensors.values(), others.values(), strict=False)
    return text == words and all(a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes() for a, b in pairs)


def ended_before(work: Callable[[], None], kill_after: float | None) -> bool:
    """Run something in a process and its own group; kill all of that after so many seconds. Whether it ended before."""
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setsid()
            warnings.simplefilter("ignore")
            torch.set_num_threads(1)
            work()
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    begin = time.perf_counter()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                raise RuntimeError(f"the fit ended with status {status}")
            return True
        taken = time.perf_counter() - begin
        if kill_after is not None and taken >= kill_after:
            _kill(child)
            return False
        if taken > PATIENCE:
            _kill(child)
            raise RuntimeError(f"the fit did not end within {PATIENCE:g} s")
        time.sleep(0.002)


def _kill(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has not made its group yet
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def main() -> int:
    """Kill fits by every method, and commands, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m reliability.kills", description="Fits killed −9 and resumed.")
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="kills per method; default: 50")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="methods and commands, as they are printed")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments")
    parser.add_argument("--record", action="store_true", help="put the counts into the table of docs/reliability.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        from .commands import COMMANDS, kill_command  # which use the functions above
        from .fits import CASES
        from .record import record

        if unknown := set(given.only or ()) - {*CASES, *COMMANDS}:
            parser.error(f"unknown method {unknown.pop()!r}: there is {', '.join([*CASES, *COMMANDS])}")
        failed = False
        for name in given.only or [*CASES, *COMMANDS]:
            place = Path(folder) / "case"
            place.mkdir(exist_ok=True)
            try:
                if name in CASES:
                    found = kill_and_resume(CASES[name], given.kills, place, given.seed)
                else:
                    found = kill_command(name, given.kills, place, given.seed)
            except RuntimeError as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed = True
                continue
            failed = failed or bool(found.differing)
            if given.record:
                record(name, found.kills, found.fits, found.differing)
            what = f"differing: {', '.join(found.differing)}" if found.differing else "0 differences"
            print(f"{name}: {found.kills} kills in {found.fits} fits of {found.seconds:.1f} s, {what}", flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
