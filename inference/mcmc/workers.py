"""Processes side by side that end with the process that started them, however that ends."""

import os
import platform
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

SECONDS = 0.5  # between looks at whether the process that started this one is there


def parallel(processes: int, **options: Any) -> Any:
    """Return ``joblib.Parallel`` for so many processes, which share this one's threads, and end with it."""
    import joblib  # slow to import

    threads = max(1, torch.get_num_threads() // processes)
    return joblib.Parallel(n_jobs=processes, initializer=_begin, initargs=(os.getpid(), threads), **options)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a temporary folder for a block; workers remove it if this process is killed, and a later run if they are."""
    for folder in _scratch_of("*"):
        process = folder.name.split("-")[-2]
        if process.isdecimal() and not _is_running(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_prefix(os.getpid())}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _prefix(process: int | str) -> str:
    return f"guidebook-{platform.node()}-{process}"


def _scratch_of(process: int | str) -> list[Path]:
    return [*Path(tempfile.gettempdir()).glob(f"{_prefix(process)}-*")]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _begin(parent: int, threads: int) -> None:
    """Begin a worker: what interrupts a run is for the process that started it, which ends its workers."""
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS)
    for folder in _scratch_of(parent):
        gone = folder.with_suffix(".gone")
        with suppress(OSError):  # another worker may have been first
            folder.rename(gone)  # since the chain of this worker still writes to it
            shutil.rmtree(gone, ignore_errors=True)
    os._exit(1)
