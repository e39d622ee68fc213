"""The order in which minibatches take rows: epochs without replacement, in memory that does not grow with the rows."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

MAX_ROWS = 1_000_000  # whose order is kept; that of more rows is computed
_ROUNDS = 6
_FACTOR = 0x9E3779B1  # odd, of 32 bits: products with 31 bits fit in int64


class RowIndex(NamedTuple):
    """Batches of one tensor's rows that have not been gathered yet."""

    data: Tensor  # (n, …)
    rows: Tensor  # (count, batch): indices


def gather(values: Tensor | RowIndex) -> Tensor:
    """Return the rows indexed, shape (count, batch, …); a tensor as it is."""
    if isinstance(values, Tensor):
        return values
    data, rows = values
    return data.index_select(0, rows.flatten()).view(*rows.shape, *data.shape[1:])


class Order:
    """Endless batches of row numbers: every epoch shuffles all rows; its last incomplete batch is dropped.

    Up to `MAX_ROWS` rows, an epoch is a random permutation. More rows are permuted by a keyed bijection that is
    computed batch by batch (Black and Rogaway 2002, Ciphers with arbitrary finite domains, section 4: a Feistel network
    on the next power of four, repeated until a number is in range).
    """

    def __init__(self, num_rows: int, batch_size: int, device: torch.device) -> None:
        self.num_rows, self.batch_size, self.device = num_rows, batch_size, device
        self._kept, self._at = torch.empty(0, dtype=torch.long), num_rows  # a permutation, or keys

    def take(self, count: int) -> Tensor:
        """Return the next row numbers, shape (count, batch)."""
        return torch.stack([self._next() for _ in range(count)])

    def state(self) -> Any:
        """Return this epoch's order, and how many rows have been taken."""
        return {"order": self._kept, "at": self._at}

    def restore(self, state: Any) -> None:
        """Go back to a place in an epoch."""
        self._kept, self._at = state["order"].to(self.device), state["at"]

    def _next(self) -> Tensor:
        kept = self.num_rows <= MAX_ROWS
        if self._at + self.batch_size > self.num_rows:
            if kept:
                self._kept, self._at = torch.randperm(self.num_rows, device=self.device), 0
            else:
                self._kept, self._at = torch.randint(2**31, (_ROUNDS,), device=self.device), 0
        self._at += self.batch_size
        places = slice(self._at - self.batch_size, self._at)
        if kept:
            return self._kept[places]
        return permuted(torch.arange(places.start, places.stop, device=self.device), self.num_rows, self._kept)


def permuted(places: Tensor, size: int, keys: Tensor) -> Tensor:
    """Return the images of ``places``, numbers below ``size``, under the permutation that ``keys`` choose."""
    half = max(1, -(-(size - 1).bit_length() // 2))
    found = _feistel(places, half, keys)
    while bool((outside := found >= size).any()):
        found = torch.where(outside, _feistel(found, half, keys), found)
    return found


def _feistel(number: Tensor, half: int, keys: Tensor) -> Tensor:
    mask = (1 << half) - 1
    left, right = number >> half, number & mask
    for key in keys:
        left, right = right, left ^ ((((right ^ key) * _FACTOR) >> 20) & mask)
    return left << half | right
