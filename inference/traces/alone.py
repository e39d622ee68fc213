"""One fit at a time per process: Pyro's handlers and parameters, and random generators, are the process's own."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Run a block while no other thread is in one; threads wait their turn, and a thread may go in again."""
    with _lock:
        yield


def _renew() -> None:
    """In a forked process nobody is left to give the lock back."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
