"""Batches of a stream on their way to a GPU: pinned, copied by a thread, in time; the same rows as on the CPU.

There need be no GPU: what torch has for one is replaced, and what is called is noted. `test_cuda` does the same on one.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from guidebook.inference import stream
from guidebook.inference.streams.batches import StreamBatches
from guidebook.inference.streams.order import gather

NUMBERS = torch.arange(23.0)[:, None]
CUDA = torch.device("cuda")
THERE: Any = (SimpleNamespace(device=CUDA, dtype=torch.float64, layout=torch.strided),)
HERE = (torch.empty(0, dtype=torch.float64),)
SECONDS = 30.0  # that a thread may take to begin


class Device:
    """A stand-in for a GPU; ``calls`` are those that matter, by the thread that made them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, bool]] = []  # what, and whether a thread of its own called it
        self.copying = 0  # copies that run on a stream of their own
        self.pinned: dict[int, torch.Tensor] = {}  # by address
        to = torch.Tensor.to

        def copied(value: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
            if CUDA not in args:
                return to(value, *args, **options)
            assert options == {"non_blocking": True}
            assert value.data_ptr() in self.pinned
            assert self.copying == 1
            assert value.dtype == torch.float64  # converted before it is copied
            self.note("copy")
            return value.clone()

        def pin(value: torch.Tensor) -> torch.Tensor:
            assert self.copying == 0
            self.note("pin")
            found = value.clone()
            self.pinned[found.data_ptr()] = found
            return found

        patch.setattr(torch.Tensor, "to", copied)
        patch.setattr(torch.Tensor, "pin_memory", pin)
        patch.setattr(torch.Tensor, "record_stream", lambda _, stream: self.note(f"used on {stream.name}"))
        patch.setattr(torch.cuda, "Stream", lambda _: self.stream("copies"))
        patch.setattr(torch.cuda, "current_stream", lambda _: self.stream("steps"))
        patch.setattr(torch.cuda, "stream", self.on)

    def note(self, what: str) -> None:
        self.calls.append((what, threading.current_thread() is not threading.main_thread()))

    def stream(self, name: str) -> Any:
        def record_event() -> str:
            self.note(f"event on {name}")
            return f"event on {name}"

        return SimpleNamespace(
            name=name, record_event=record_event, wait_event=lambda event: self.note(f"{name} wait for {event}")
        )

    @contextmanager
    def on(self, _: Any) -> Iterator[None]:
        self.copying += 1
        yield
        self.copying -= 1


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def batches() -> Iterator[torch.Tensor]:
    yield from NUMBERS.split(4)


SOURCES: dict[str, Callable[[], Any]] = {
    "array": lambda: NUMBERS,
    "callable": lambda: batches,
    "loader": lambda: DataLoader(TensorDataset(NUMBERS), 5, shuffle=True),
}


def test_a_batch_is_pinned_and_copied_by_a_thread_and_awaited_by_the_steps(device: Device) -> None:
    found = StreamBatches(stream(NUMBERS), 20, THERE)  # an epoch has one batch, after which nothing is read ahead
    assert len(next(found)[0]) == 20
    assert device.calls == [
        ("pin", True),
        ("copy", True),
        ("event on copies", True),
        ("steps wait for event on copies", False),
        ("used on steps", False),
    ]


def test_nothing_is_pinned_for_the_cpu(device: Device) -> None:
    assert next(StreamBatches(stream(NUMBERS), 5, HERE))[0].dtype == torch.float64
    assert not device.calls


@pytest.mark.parametrize("kind", SOURCES)
def test_the_rows_and_the_states_are_those_on_the_cpu(kind: str, device: Device) -> None:
    """Whatever is taken, over several epochs of four batches, with noise drawn in between; and when it is resumed."""

    def taken(found: StreamBatches, counts: list[int | None]) -> list[Any]:
        steps = []
        for count in counts:
            rows = next(found)[0] if count is None else gather(found.take(count)[0])
            steps.append((rows, torch.randn(2), found.state()))
        return steps

    def run(like: Any) -> list[Any]:
        torch.manual_seed(0)
        found = StreamBatches(stream(SOURCES[kind]()), 5, like)
        steps = taken(found, [None, None, 3, 2, 2, 1, None, 9, 1])
        generator = torch.get_rng_state()
        then = taken(found, [1, None, 6])
        again = StreamBatches(stream(SOURCES[kind]()), 5, like)
        next(again)  # as a fit does before it takes its state back
        again.restore(steps[-1][-1])
        torch.set_rng_state(generator)
        torch.testing.assert_close(taken(again, [1, None, 6]), then, rtol=0, atol=0)
        return [*steps, *then]

    torch.testing.assert_close(run(THERE), run(HERE), rtol=0, atol=0)


def test_what_comes_next_is_read_before_it_is_asked_for(device: Device) -> None:
    read, found = [threading.Event() for _ in range(5)], stream(NUMBERS)
    waiting, look_up = iter(read), found.at
    assert look_up is not None
    found.at = lambda rows: (next(waiting).set() if isinstance(rows, torch.Tensor) else None, look_up(rows))[1]
    batches = StreamBatches(found, 5, THERE)
    next(batches)
    assert read[1].wait(SECONDS)
    assert not read[2].wait(0.1)  # one, as one was asked for
    batches.take(2)
    assert read[3].wait(SECONDS)
    assert not read[4].wait(0.1)  # which would begin the next epoch


def test_an_error_of_the_source_is_raised_by_the_batch(device: Device) -> None:
    def broken() -> Iterator[torch.Tensor]:
        yield NUMBERS[:10]
        raise OSError("the disk is gone")

    found = StreamBatches(stream(broken, num_rows=23), 5, THERE)
    with pytest.raises(OSError, match="the disk is gone"):
        found.take(9)
    looked_up = stream(NUMBERS)
    batches = StreamBatches(looked_up, 5, THERE)
    looked_up.at = lambda rows: (_ for _ in ()).throw(OSError("the disk is gone"))
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
