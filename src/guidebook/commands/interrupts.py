"""Signals that end a command: an exception wherever it is, and, if native code does not return, an end all the same."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
GRACE = 10.0  # seconds to clean up in, before the process ends whatever it is doing


class Interrupted(KeyboardInterrupt):
    """A signal has come. Of a plain KeyboardInterrupt that passes through some C code, Python would die at its end."""


class Interrupts:
    """Which signal has come, if any."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._lost = False

    @property
    def status(self) -> int:
        """Exit status of a command that a signal ended, as shells have it; Ctrl-C where nothing else is known."""
        return 128 + (self.signal or signal.SIGINT)

    def handle(self, number: int, _: FrameType | None) -> None:
        """Note the first signal and raise; later ones find the command cleaning up."""
        if self.signal is None or self._lost:
            self.signal, self._lost = self.signal or number, False
            raise Interrupted

    def unraisable(self, ignored: Any) -> None:
        """Raise again, a little later, where the interrupt came in a callback that cannot raise; hook of Python's."""
        if not isinstance(ignored.exc_value, Interrupted) or self.signal is None:
            sys.__unraisablehook__(ignored)
            return
        self._lost = True
        again = threading.Timer(0.1, os.kill, (os.getpid(), self.signal))
        again.daemon = True
        again.start()


@contextmanager
def interruptible(clean_up: Callable[[], None]) -> Iterator[Interrupts]:
    """Turn signals into KeyboardInterrupt for a block.

    If the block has not ended after some seconds (a compiler or a sampler may not return to Python for long), another
    thread cleans up and ends the process. Signals that are ignored, as nohup has it, stay ignored.
    """
    found = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, found.handle) for number in numbers}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    outer = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    hook, sys.unraisablehook = sys.unraisablehook, found.unraisable
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(reading, {*numbers}, ended, clean_up), daemon=True)
    watch.start()
    try:
        yield found
    finally:
        ended.set()
        sys.unraisablehook = hook
        signal.set_wakeup_fd(outer)
        os.close(writing)
        watch.join(1)
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(reading: int, numbers: set[int], ended: threading.Event, clean_up: Callable[[], None]) -> None:
    """Wait for a signal, which reaches this thread while the main one is in native code, and then for the end."""
    while (received := os.read(reading, 1)) and received[0] not in numbers:
        pass
    if received and not ended.wait(GRACE):
        with suppress(BaseException):
            clean_up()
            print("guidebook: interrupted", file=sys.stderr, flush=True)
        os._exit(128 + received[0])
    os.close(reading)
