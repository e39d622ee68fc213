"""Rows that are read in blocks, pass after pass, whatever holds them."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .prefetch import prefetched

READ = 2**20  # numbers that are read at once, unless a batch has more
EXAMPLE = 10_000  # rows for one-off work: initialisation, tracing

Block = tuple[Tensor, ...]  # the arguments of a model, each with as many rows


class Stream:
    """Rows that are read in blocks, pass after pass: `guidebook.inference.streams.stream` makes one.

    Memory holds the blocks that are being worked on, not the data. Where a model's steps take their rows in chunks, a
    stream of one matrix stands for that matrix: it has its ``shape``, ``dtype`` and ``split``.

    Attributes
    ----------
    name : str
        What the data are called in error messages.
    at : callable or None
        ``rows -> block``: the rows of a slice, or with these numbers; None for data that can only be read in order.
    shuffles : bool
        Whether a pass has the rows in a random order of the source's own.
    files : tuple of (str, int, int)
        Path, size in bytes and time of the last change, in nanoseconds, of files that are read again in every pass: a
        fit that is resumed is refused if one has changed.
    batch_size : int or None
        Rows per batch, if the source says so.
    sparse_at : callable or None
        As ``at``, of the same rows as a sparse matrix has them, if they come from one.
    rows_held, bytes_held : int
        Rows of the largest block so far, and its size. Of files, some blocks more are read ahead.
    """

    def __init__(
        self,
        name: str,
        num_rows: int | None,
        *,
        at: Callable[[slice | Tensor], Block] | None = None,
        passes: Callable[[int | None], Iterator[Block]] | None = None,
        reads_ahead: bool = False,
        files: Sequence[str] = (),
    ) -> None:
        self.name, self.at = name, at
        self.files = tuple((file, os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files)
        self.shuffles = False
        self.batch_size: int | None = None
        self.sparse_at: Callable[[slice | Tensor], Block] | None = None
        self.rows_held = self.bytes_held = 0
        self._num_rows, self._passes, self._reads_ahead = num_rows, passes, reads_ahead
        self._first: Block | None = None

    def __len__(self) -> int:
        """How many rows there are; counted by a pass if the source does not know."""
        if self._num_rows is None:
            with torch.random.fork_rng():  # a DataLoader draws numbers for every pass
                self._num_rows = sum(len(block[0]) for block in self._read(None))
            if not self._num_rows:
                raise ValueError(f"{self.name}: there are no rows")
        return self._num_rows

    def __getitem__(self, rows: Any) -> Tensor:
        """Return the rows with these numbers, in the order of a pass where data can only be read so."""
        return self.rows(rows)[0]

    @property
    def first(self) -> Block:
        """A block of rows at the beginning."""
        if self._first is None:
            with torch.random.fork_rng():
                blocks = self._read(None) if self.at is None else iter([self.at(slice(0, 1))])
                self._first = next((block for block in blocks if len(block[0])), None)
            if self._first is None:
                raise ValueError(f"{self.name}: there are no rows")
        return self._first

    @property
    def shape(self) -> torch.Size:
        """That of the first argument, all its rows."""
        return torch.Size([len(self), *self.first[0].shape[1:]])

    @property
    def dtype(self) -> torch.dtype:
        """That of the first argument."""
        return self.first[0].dtype

    @property
    def device(self) -> torch.device:
        """That of the first argument."""
        return self.first[0].device

    def rows_for(self, *, sparse: bool) -> "Stream":
        """Return these rows as they are; or, if ``sparse`` and they come from a sparse matrix, as they are there."""
        return Stream(self.name, len(self), at=self.sparse_at) if sparse and self.sparse_at is not None else self

    def mapped(self, function: Callable[[Block], Block]) -> "Stream":
        """Return these rows with each block replaced by what ``function`` makes of it, with as many rows."""
        at, passes = self.at, self._passes
        made = Stream(
            self.name,
            self._num_rows,
            at=None if at is None else lambda rows: function(at(rows)),
            passes=None if passes is None else lambda seed: map(function, passes(seed)),
            reads_ahead=self._reads_ahead,
        )
        made.shuffles, made.batch_size = self.shuffles, self.batch_size
        return made

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield the rows of a stream of one matrix in order, so many at a time."""
        return (block[0] for block in self.blocks(size))

    def blocks(self, size: int | None = None, seed: int | None = None) -> Iterator[Block]:
        """Yield one pass, so many rows at a time (default: as they are read); the last block may have fewer.

        With a ``seed``, sources that can do so read their parts in a random order.

        Raises
        ------
        ValueError
            If a pass has not as many rows as there are.
        """
        if self.at is not None:
            step = size or max(1, READ // max(1, self.first[0][0].numel()))
            for start in range(0, len(self), step):
                yield self._noted(self.at(slice(start, min(start + step, len(self)))))
            return
        blocks, count = self._read(seed), 0
        for block in blocks if size is None else in_blocks_of(size, blocks):
            count += len(block[0])
            yield self._noted(block)
        if count != len(self):
            raise ValueError(f"{self.name}: a pass has {count:,} rows, and there were to be {len(self):,}")

    def rows(self, index: Tensor) -> Block:
        """Return the rows with these numbers: as asked where they can be looked up, else sorted, from one pass."""
        if self.at is not None:
            return self.at(index)
        wanted, start, found = index.sort().values, 0, []
        for block in self._read(None):
            end = start + len(block[0])
            here = wanted[(wanted >= start) & (wanted < end)] - start
            if len(here):
                found.append(tuple(value.index_select(0, here.to(value.device)) for value in block))
            start = end
        return _joined(found)

    def look_up(self, index: Tensor) -> Block:
        """Return the rows with these numbers as a block that is worked on; only where rows can be looked up."""
        assert self.at is not None
        return self._noted(self.at(index))

    def example(self, least: int) -> Block:
        """Return `EXAMPLE` rows, or ``least`` if that is more, or all: spread evenly, or the first ones in order."""
        count = min(len(self), max(EXAMPLE, least))
        if self.at is not None:
            return self.at(torch.arange(count) * (len(self) // count))
        return next(in_blocks_of(count, self._read(None)))

    def held(self) -> dict[str, int]:
        """Return what a run's record says: the rows of the data, those of the largest block, and the bytes of these."""
        return {"rows": len(self), "rows_held": self.rows_held, "bytes_held": self.bytes_held}

    def _read(self, seed: int | None) -> Iterator[Block]:
        """Yield a pass as the source reads it."""
        if self.at is not None:
            yield from self.blocks()
            return
        assert self._passes is not None
        read = self._passes(seed)
        for block in prefetched(read) if self._reads_ahead else read:
            yield self._noted(block)

    def _noted(self, block: Block) -> Block:
        self.rows_held = max(self.rows_held, len(block[0]))
        self.bytes_held = max(self.bytes_held, sum(_num_bytes(value) for value in block))
        return block


def check_blocks(method: str, streams: Sequence[Stream], by_blocks: bool) -> None:
    """Raise ValueError if steps cannot read their rows from these streams."""
    if streams and not by_blocks:
        raise ValueError(f"{method}: these steps need all rows at once, in memory")
    for one in streams:
        if len(one.first) != 1:
            raise ValueError(f"{method}: the steps read one matrix in blocks, and a batch has {len(one.first)} parts")


def in_blocks_of(size: int, blocks: Iterator[Block]) -> Iterator[Block]:
    """Yield the rows of blocks of any size in blocks of ``size``, and the rest."""
    parts: list[Block] = []
    missing = size
    for block in blocks:
        start, rows = 0, len(block[0])
        while rows - start >= missing:
            parts.append(_part(block, start, start + missing))
            yield _joined(parts)
            start, missing, parts = start + missing, size, []
        if start < rows:
            parts.append(_part(block, start, rows))
            missing -= rows - start
    if parts:
        yield _joined(parts)


def _part(block: Block, start: int, stop: int) -> Block:
    if start == 0 and stop == len(block[0]):
        return block
    rows = torch.arange(start, stop)
    return tuple(value.index_select(0, rows) if value.is_sparse else value[start:stop] for value in block)


def _joined(parts: list[Block]) -> Block:
    shapes = [[tuple(value.shape[1:]) for value in part] for part in parts]
    for shape in shapes:
        if shape != shapes[0]:
            raise ValueError(f"stream: batches have rows of different shapes, {shapes[0]} and {shape}")
    return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))


def _num_bytes(value: Tensor) -> int:
    if value.is_sparse:
        return value._values().nbytes + value._indices().nbytes
    return value.nbytes
