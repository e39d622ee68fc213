"""What can happen to a fit: killed, signalled, a full disk, damaged files, NaN; each returns what came of it."""

import errno
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe
from multiprocessing.context import ForkProcess, SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import torch
from safetensors.torch import save

from guidebook import cli
from guidebook.catalog import METHODS
from guidebook.inference import Posterior
from guidebook.inference.checkpoints import checkpoint
from guidebook.inference.checkpoints.trees import Tree

from .fits import SHORT, Case
from .kills import differences
from .nan import EDGE

GOES_ON, ANEW, THE_SAME, REFUSED, ENDS = "goes on", "begins anew", "the same", "a sentence", "ends"
SMALLER, OUTSIDE, WARNED = "smaller steps", "not drawn", "a warning"
RAW, WRONG = "raw", "wrong"
PATIENCE = 300.0  # seconds


class Outcome(NamedTuple):
    """What came of a fault: a kind, and what was said."""

    kind: str
    words: str = ""


def killed(method: str, expected: Posterior, folder: Path) -> Outcome:
    """Kill −9 a fit in the middle of its states, and resume it; ``folder`` keeps the checkpoint as it was then."""
    case = SHORT[method]
    with _counted() as writes, quiet():
        case(checkpoint=folder / "whole", every=0.0)
    within = writes[1:-1]  # the first says what the folder is for, the last has the result
    after = 1 + (len(within) + 1) // 2
    if (status := _status(_started(_until_killed, method, folder / "kept", after))) != -signal.SIGKILL:
        return Outcome(WRONG, f"it ended with status {status} instead of being killed")
    shutil.copytree(folder / "kept", folder / "resumed")
    with _counted() as again, quiet():
        found = case(checkpoint=folder / "resumed", every=0.0)
    return _beside(expected, found, GOES_ON if within and len(again) < len(writes) - 1 else ANEW)


def damaged(case: Case, expected: Posterior, folder: Path, damage: Callable[[bytes], bytes]) -> Outcome:
    """Damage the last state in each folder that `killed` left (of the fit, its chains and restarts), and resume."""
    with _copied(folder) as place:
        last = {state.parent: state for state in sorted(place.rglob("state-*.safetensors"))}
        for state in last.values():
            state.write_bytes(damage(state.read_bytes()))
        found, said = _heard(lambda: case(checkpoint=place, every=0.0))
        words = next((words for words in said if "is damaged, or no checkpoint: " in words), None)
        if words is None:
            return Outcome(WRONG, f"{[*last.values()]} were taken as they were")
        words = re.sub(r"state-\d+", "state-…", _without(place, words))
        return _beside(expected, found, THE_SAME)._replace(words=re.sub(r"…/\S*state", "…/state", words))


def another_fit(case: Case, folder: Path) -> Outcome:
    """Go on with the checkpoint of a fit that had another seed."""
    with _copied(folder) as place:
        return _refused(lambda: case(seed=1, checkpoint=place), place)


def full_disk(case: Case, expected: Posterior) -> Outcome:
    """Fit where no state can be written after the first."""
    sync, written = os.fsync, 0

    def full(file: int) -> None:
        nonlocal written
        written += 1
        if written > 2:  # the file, and its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    with tempfile.TemporaryDirectory() as folder:
        try:
            os.fsync = full
            found, said = _heard(lambda: case(checkpoint=folder, every=0.0))
        finally:
            os.fsync = sync
        words = next((words for words in said if "no state could be written" in words), None)
        if words is None:
            return Outcome(WRONG, f"nothing was said of it: {said}")
        return _beside(expected, found, THE_SAME)._replace(words=_without(folder, words))


def signalled(words: str, number: int) -> Outcome:
    """Send a command a signal while it fits, over and over; it ends with its status, and leaves nothing."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "out").mkdir()
        reading, writing = Pipe(duplex=False)
        process = _started(_command_for_ever, words, folder, writing)
        writing.close()  # so that a command that ends without a fit is not waited for
        with suppress(EOFError):
            reading.recv_bytes()
        reading.close()
        time.sleep(0.3)
        assert process.pid is not None
        os.kill(process.pid, number)
        status = _status(process)
        said = (folder / "said").read_text().replace("guidebook: warning:", "")
        left = [path.name for path in (folder / "out").iterdir()]
        if status != 128 + number or "guidebook: interrupted\n" not in said or "Traceback" in said or left:
            return Outcome(WRONG, f"status {status}, said {said!r}, left {left}")
        return Outcome(ENDS, f"interrupted (exit status {status})")


def saved(posterior: Posterior, damage: Callable[[bytes], bytes]) -> Outcome:
    """Read a saved posterior that has been damaged since."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "posterior.safetensors"
        posterior.save(file)
        file.write_bytes(damage(file.read_bytes()))
        return _refused(lambda: Posterior.load(file), folder)


def not_a_number(case: Callable[[], Posterior], method: str) -> Outcome:
    """Fit where the loss stops being a number: a sentence, or a fit that has no part in it."""
    try:
        found, said = _heard(case)
    except (ValueError, ArithmeticError) as error:
        return _judged(error, "", method)
    if infinite := [name for name, value in found.draws.items() if not torch.isfinite(value).all()]:
        return Outcome(WRONG, f"{infinite[0]} has draws that are not finite")
    words = "; ".join(said)
    if "went on from the best parameters" in words:
        return Outcome(SMALLER, words)
    beyond = "w" in found.draws and bool((found.draws["w"] > EDGE).any())
    return Outcome(WARNED if beyond and words else WRONG if beyond else OUTSIDE, words)


def cut_short(content: bytes) -> bytes:
    """Return the first half."""
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    """Return it with one bit flipped, four fifths of the way."""
    place = len(content) * 4 // 5
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def foreign(_: bytes) -> bytes:
    """Return a file of the same format that something else has written."""
    return save({"x": torch.ones(3)})


DAMAGES = {"cut short": cut_short, "a flipped bit": flipped, "a foreign file": foreign}


def _beside(expected: Posterior, found: Posterior, kind: str) -> Outcome:
    differing = differences(expected, found)
    return Outcome(WRONG, f"other {', '.join(differing)}") if differing else Outcome(kind)


def _refused(work: Callable[[], Any], place: str | Path) -> Outcome:
    try:
        with quiet():
            work()
    except ValueError as error:
        return _judged(error, place)
    return Outcome(WRONG, "it was not refused")


def _judged(error: Exception, place: str | Path, method: str = "") -> Outcome:
    words = _without(place, str(error)) if place else str(error)
    is_sentence = "\n" not in words and words.startswith(f"{method}: " if method else "")
    return Outcome(REFUSED if is_sentence else RAW, words)


def _without(place: str | Path, words: str) -> str:
    return re.sub(re.escape(str(place)) + r"[\w/.-]*", lambda found: f"…{found[0][len(str(place)) :]}", words)


def _heard(work: Callable[[], Posterior]) -> tuple[Posterior, list[str]]:
    """Return what a fit returns, and what it warned of."""
    with warnings.catch_warnings(record=True) as said, joblib.parallel_config("sequential"):
        warnings.simplefilter("always")
        found = work()
    return found, [str(each.message) for each in said if issubclass(each.category, UserWarning)]


@contextmanager
def quiet() -> Iterator[None]:
    """Pass over warnings, and run chains one after another in this process."""
    with warnings.catch_warnings(), joblib.parallel_config("sequential"):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _copied(folder: Path) -> Iterator[Path]:
    """Give a copy of the checkpoint that `killed` left."""
    place = folder / "copy"
    shutil.copytree(folder / "kept", place)
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextmanager
def _counted(last: int | None = None) -> Iterator[list[Path]]:
    """Count the states that are written, and kill this process after the last of so many."""
    write, written = checkpoint.write_state, []

    def counted(folder: Path, tree: Tree) -> None:
        write(folder, tree)
        written.append(folder)
        if len(written) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.write_state = counted
    try:
        yield written
    finally:
        checkpoint.write_state = write


def _until_killed(method: str, place: Path, after: int) -> None:
    with _counted(after), quiet():
        SHORT[method](checkpoint=place, every=0.0)


def _command_for_ever(words: str, folder: Path, started: Connection) -> None:
    _fit_for_ever(started)
    for each in ("SIGINT", "SIGTERM"):  # a shell may have had them ignored
        signal.signal(getattr(signal, each), signal.default_int_handler)
    os.dup2(os.open(folder / "said", os.O_CREAT | os.O_WRONLY), 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 (as long as the process)
    sys.argv = ["guidebook", *words.split(), "--out", str(folder / "out" / "fit")]
    cli.main()


def _fit_for_ever(started: Connection) -> None:
    """Have every method say that it begins, and repeat its fit until something ends it."""

    def repeated(method: Callable) -> Callable:
        def fit(*args: Any, **kwargs: Any) -> None:
            started.send_bytes(b".")
            while True:
                method(*args, **kwargs)

        return fit

    for name, method in METHODS.items():
        METHODS[name] = method._replace(function=repeated(method.function))


def _started(work: Callable[..., None], *args: Any) -> SpawnProcess | ForkProcess:
    """Run a function in another process: a fork, or a fresh one if JAX, whose threads a fork lacks, was loaded here."""
    made = (get_context("spawn") if "jax" in sys.modules else get_context("fork")).Process
    process = made(target=_alone, args=(work, *args))
    process.start()
    return process


def _alone(work: Callable[..., None], *args: Any) -> None:
    torch.set_num_threads(1)
    work(*args)


def _status(process: SpawnProcess | ForkProcess) -> int | None:
    """Return the exit status of a process, which is killed if it does not end."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode
