"""Endless minibatches of a stream, as `optim.minibatch.Batches` has them of tensors."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .order import Order, RowIndex
from .rows import Block, Stream
from .transfer import moved, transfer_to

BUFFER = 2**22  # numbers among which rows are shuffled, if they can only be read in order


class StreamBatches:
    """Endless batches: epochs without replacement; the last incomplete batch is dropped.

    Rows that can be looked up are shuffled among all. Others are shuffled within a buffer of `BUFFER` numbers, or of a
    batch if that is more; a source that shuffles by itself, as a DataLoader may, is read as it comes.

    For a GPU, as many batches as were asked for last are on their way there meanwhile, up to the end of the epoch: so
    random numbers are drawn, and epochs resumed, as on the CPU.

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
        self._transfer = transfer_to(like)
        self._coming: deque[Callable[[], Block]] = deque()

    def __iter__(self) -> Iterator[tuple]:
        return self

    def __next__(self) -> tuple:
        return self._next(1)[0]

    def take(self, count: int) -> list[RowIndex]:
        """Return the next ``count`` batches."""
        if self._transfer is not None:
            return _in_turn(_joined(self._next(count)), count)
        if self._order is not None:
            block = self._stream.look_up(self._order.take(count).flatten())
            return _in_turn(moved(block, self._like), count)
        parts = [self._part() for _ in range(count)]
        buffer = parts[0].buffer
        if all(part.buffer is buffer for part in parts) and all(map(_is_like, buffer, self._like)):
            rows = torch.stack([part.rows for part in parts])
            return [RowIndex(value, rows.to(value.device)) for value in buffer]
        return _in_turn(moved(_joined([part.gathered() for part in parts]), self._like), count)

    def state(self) -> Any:
        """Return where in an epoch the batches are; those on their way have not been taken."""
        if self._order is not None:
            state = self._order.state()
            return state | {"at": state["at"] - len(self._coming) * self._batch_size}
        return {"generator": self._generator, "taken": self._taken - len(self._coming)}

    def restore(self, state: Any) -> None:
        """Go back to a place in an epoch; data that can only be read in order are read up to there."""
        self._coming.clear()
        if self._order is not None:
            return self._order.restore(state)
        torch.set_rng_state(state["generator"])
        self._generator, self._batches, self._taken = state["generator"], self._epoch(), state["taken"]
        for _ in range(self._taken):
            next(self._batches)

    def _next(self, count: int) -> list[Block]:
        """Return the next batches where they are needed."""
        if self._transfer is None:
            return [moved(self._chosen()(), self._like) for _ in range(count)]
        self._send(count)
        found = [self._coming.popleft() for _ in range(count)]
        self._send(min(count, len(self._coming) + self._left()))
        return [arrived() for arrived in found]

    def _send(self, count: int) -> None:
        """Have so many batches on their way."""
        assert self._transfer is not None
        while len(self._coming) < count:
            self._coming.append(self._transfer.begin(self._chosen()))

    def _chosen(self) -> Callable[[], Block]:
        """Choose the next batch; return what reads it."""
        if self._order is not None:
            return partial(self._stream.look_up, self._order.take(1)[0])
        return self._part().gathered

    def _part(self) -> "_Part":
        part = next(self._batches, None)
        if part is None:
            self._generator, self._taken = torch.get_rng_state(), 0
            self._batches = self._epoch()
            part = next(self._batches)
        self._taken += 1
        return part

    def _left(self) -> int:
        """How many batches of this epoch have not been chosen."""
        return self._order.left if self._order is not None else len(self._stream) // self._batch_size - self._taken

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

    def gathered(self) -> Block:
        return tuple(value.index_select(0, self.rows.to(value.device)) for value in self.buffer)


def _joined(blocks: Sequence[Block]) -> Block:
    return tuple(map(torch.cat, zip(*blocks, strict=True)))


def _in_turn(block: Block, count: int) -> list[RowIndex]:
    """Return batches that follow one another in a block."""
    rows = torch.arange(len(block[0]), device=block[0].device).view(count, -1)
    return [RowIndex(value, rows) for value in block]


def _is_like(value: Tensor, like: Tensor) -> bool:
    return (value.dtype, value.device) == (like.dtype, like.device)
