"""A progress bar on standard error that can be switched off, and how long a task will take in its place."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

LONG = 30.0  # seconds from which on it is said how long a task will take
FIRST_SECONDS, FIRST_SHARE = 5.0, 0.02  # of a task, after which its pace is taken for known

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


@contextmanager
def announced(say: Callable[[str], None]) -> Iterator[None]:
    """Have long tasks say once how long they will take, if no bar shows it: those that know how many steps they take.

    ``say`` gets a sentence; it may be called from another thread.
    """
    token = _listener.set(say)
    try:
        yield
    finally:
        _listener.reset(token)


class Progress:
    """One task, with a few words about its state.

    Parameters
    ----------
    title : str
    total : int
        Steps.
    shown : bool
        Whether to show a bar.
    is_fixed : bool
        Whether the task takes all its steps, so that its pace tells how long it will take.
    """

    def __init__(self, title: str, total: int, shown: bool, *, is_fixed: bool = False) -> None:
        self._title, self._total = title, total
        self._say = _listener.get() if is_fixed and not shown else None
        self._first: tuple[float, int] | None = None  # when steps were first known to be done, and how many
        self._bar = self._task = None
        if shown:
            from rich import progress  # slow to import
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[words]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(title, total=total, words="")

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def update(self, done: int, words: str = "") -> None:
        """Show that ``done`` steps of the total are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, words=words)  # pyright: ignore[reportArgumentType]
        if self._say is not None and done:
            self._announce(self._say, time.perf_counter(), done)

    def _announce(self, say: Callable[[str], None], now: float, done: int) -> None:
        """Say how long the task will take, once its pace is known, of which compilation is no part, if that is long."""
        begin, before = self._first = self._first or (now, done)
        if done == before or now - begin < FIRST_SECONDS or done - before < FIRST_SHARE * self._total:
            return
        left = (now - begin) / (done - before) * (self._total - done)
        if left >= LONG:
            pace = f"by the pace of the first {done:,} of {self._total:,} steps"
            say(f"{self._title}: about {duration(left)} to go, {pace}")
            self._say = None

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.stop()


def duration(seconds: float) -> str:
    """Return a time in words: "40 s", "3 min", "2.5 h"."""
    if seconds < 100:
        return f"{round(seconds, -1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
