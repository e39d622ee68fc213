"""Endless minibatches of a stream, as `optim.minibatch.Batches` has them of tensors."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .order import Order, RowIndex
from .rows import Block, Stream

BUFFER = 2**22  # numbers among which rows are shuffled, if they can only be read in order


class StreamBatches:
    """Endless batches: epochs without replacement; the last incomplete batch is dropped.

    Rows that can be looked up are shuffled among all. Others are shuffled within a buffer of `BUFFER` numbers, or of a
    batch if that is more; a source that shuffles by itself, as a DataLoader may, is read as it comes.

    Parameters
    ----------
    stream : Stream
    batch_size : int
    like : tuple of Tensor
        Data whose dtypes and device the batches have.
    """

    def __init__(self, stream: Stream, batch_size: int, like: tuple) -> None:
        self.positions = list(range(len(stream.first)))
        self._stream, self._batch_size, self._like = stream, batch_size, like
        self._order = None if stream.at is None else Order(len(stream), batch_size, torch.device("cpu"))
        self._batches: Iterator[_Part] = iter(())
        self._taken = 0
        self._generator = torch.get_rng_state()  # at the start of the pass

    def __iter__(self) -> Iterator[tuple]:
        return self

    def __next__(self) -> tuple:
        if self._order is not None:
            return self._moved(self._stream.look_up(self._order.take(1)[0]))
        return self._moved(_gathered([self._next()]))

    def take(self, count: int) -> list[RowIndex]:
        """Return the next ``count`` batches."""
        if self._order is not None:
            index = self._order.take(count)
            return self._in_turn(self._stream.look_up(index.flatten()), count)
        parts = [self._next() for _ in range(count)]
        buffer = parts[0].buffer
        if all(part.buffer is buffer for part in parts) and all(map(_is_like, buffer, self._like)):
            rows = torch.stack([part.rows for part in parts])
            return [RowIndex(value, rows.to(value.device)) for value in buffer]
        return self._in_turn(_gathered(parts), count)

    def state(self) -> Any:
        """Return where in an epoch the batches are."""
        if self._order is not None:
            return self._order.state()
        return {"generator": self._generator, "taken": self._taken}

    def restore(self, state: Any) -> None:
        """Go back to a place in an epoch; data that can only be read in order are read up to there."""
        if self._order is not None:
            return self._order.restore(state)
        torch.set_rng_state(state["generator"])
        self._generator, self._batches, self._taken = state["generator"], self._epoch(), state["taken"]
        for _ in range(self._taken):
            next(self._batches)

    def _in_turn(self, block: Block, count: int) -> list[RowIndex]:
        """Return batches that follow one another in a block."""
        found = self._moved(block)
        rows = torch.arange(len(block[0]), device=found[0].device).view(count, -1)
        return [RowIndex(value, rows) for value in found]

    def _moved(self, block: Block) -> tuple:
        return tuple(_to(value, like) for value, like in zip(block, self._like, strict=True))

    def _next(self) -> "_Part":
        part = next(self._batches, None)
        if part is None:
            self._generator, self._taken = torch.get_rng_state(), 0
            self._batches = self._epoch()
            part = next(self._batches)
        self._taken += 1
        return part

    def _epoch(self) -> Iterator["_Part"]:
        if self._stream.shuffles:
            for block in self._stream.blocks(self._batch_size):
                if len(block[0]) == self._batch_size:
                    yield _Part(block, torch.arange(self._batch_size))
            return
        numbers = sum(value[0].numel() for value in self._stream.first)
        most = max(1, BUFFER // max(1, numbers) // self._batch_size) * self._batch_size
        seed = int(torch.randint(2**31 - 1, ()))
        generator = torch.Generator().manual_seed(seed)  # its own: noise is drawn between one block and the next
        for block in self._stream.blocks(most, seed):
            order = torch.randperm(len(block[0]), generator=generator)
            for rows in order.split(self._batch_size):
                if len(rows) == self._batch_size:
                    yield _Part(block, rows)


class _Part(NamedTuple):
    """A batch that has not been gathered yet."""

    buffer: Block
    rows: Tensor


def _gathered(parts: Sequence[_Part]) -> Block:
    found = [[value.index_select(0, part.rows.to(value.device)) for value in part.buffer] for part in parts]
    return tuple(map(torch.cat, zip(*found, strict=True)))


def _is_like(value: Tensor, like: Tensor) -> bool:
    return (value.dtype, value.device) == (like.dtype, like.device)


def _to(value: Tensor, like: Tensor) -> Tensor:
    """Return a batch in the dtype and on the device of ``like``; by way of pinned memory, so that the copy is quick."""
    value = value.to(like.dtype)
    if value.device.type == "cpu" and like.device.type == "cuda":
        return value.pin_memory().to(like.device, non_blocking=True)
    return value.to(like.device)
