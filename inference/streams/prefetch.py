"""Blocks read ahead by a thread, while those before are computed with."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")

AHEAD = 2  # blocks


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """Yield items that a thread gets from an iterator, `AHEAD` of them in advance; an error of it is raised here."""
    waiting: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def put(kind: str, value: T | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return waiting.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as error:  # whatever a reader raises
            put("error", error)

    threading.Thread(target=read, daemon=True, name="guidebook-prefetch").start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # pyright: ignore[reportReturnType]
    finally:
        stopped.set()
