"""A method's call with a checkpoint: opened, held against what it depends on, and ended with its result."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from inspect import BoundArguments
from pathlib import Path
from typing import Any

from ..distributed.ranks import ALONE, ranks_of
from ..info import INFO_TYPES
from ..posterior import Posterior
from .checkpoint import Checkpoint
from .files import clear_drafts
from .fingerprint import fingerprint, versions
from .of_ranks import CheckpointOfRanks

FREE = {"checkpoint", "every", "progress", "callback"}  # options that may differ when a fit goes on


@contextmanager
def opened(method: str, call: BoundArguments) -> Iterator["Kept"]:
    """Open the checkpoint that a call names, which the call then has in place of the folder.

    Of `svi` in several ranks, it is the first one's.

    Raises
    ------
    ValueError
        If it is of another fit, another process is at it, or ``every`` is negative.
    OSError
        If the folder cannot be written to.
    """
    call.apply_defaults()
    given = call.arguments
    if not given["every"] >= 0:
        raise ValueError(f"{method}: every must be a number of seconds, got {given['every']}")
    folder = Path(given["checkpoint"])
    options = {name: fingerprint(value) for name, value in given.items() if name not in FREE}
    if "callback" in given:  # its steps are kept in another way
        options["callback"] = fingerprint(given["callback"] is None)
    ranks = ranks_of(method) if method == "svi" else ALONE
    if ranks.size > 1:
        options["ranks"] = fingerprint(ranks.size)
    made = {"method": method, "versions": versions(), "options": options}
    with ExitStack() as stack:

        def hold() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_alone(method, folder))
            clear_drafts(folder)

        ranks.first(hold)
        kind = Checkpoint if ranks.size == 1 else partial(CheckpointOfRanks, ranks)
        states = kind(method, folder, given["every"], made)
        states.begin()
        given["checkpoint"] = states
        yield Kept(states)


class Kept:
    """The result of a call: as it was kept, or to be kept."""

    def __init__(self, states: Checkpoint) -> None:
        self._states = states

    @property
    def result(self) -> Any:
        """The posterior, if the fit has ended before."""
        saved = self._states.result
        if saved is None:
            return None
        return Posterior(saved["draws"], INFO_TYPES[saved["info"]["method"]](**saved["info"]), saved["params"])

    def keep(self, posterior: Any) -> Any:
        """Keep a posterior, its seconds being those of all runs, and return it."""
        info = replace(posterior.info, seconds=posterior.info.seconds + self._states.seconds)
        found = replace(posterior, info=info)
        self._states.finish({"draws": dict(found.draws), "params": dict(found.params), "info": dict(vars(info))})
        return found


@contextmanager
def _alone(method: str, folder: Path) -> Iterator[None]:
    """Hold a folder, which another process may not hold meanwhile; the system lets go of it when a process ends."""
    if os.name != "posix":
        yield
        return
    import fcntl  # not there on other systems

    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{method}: another process keeps its checkpoint in {folder}") from None
        yield
