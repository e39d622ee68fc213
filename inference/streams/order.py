"""The order in which minibatches take rows: epochs without replacement, in memory that does not grow with the rows."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

MAX_ROWS = 1_000_000  # whose order is kept; that of more rows is computed
_ROUNDS = 4
_FACTORS = 0x9E3779B1 - 2**32, 0x85EBCA6B - 2**32  # odd, of 32 bits with their sign
_MASK = 2**31 - 1
_SMALL = 2**30  # rows: a place along a row or column has 15 bits, and its product with 15 more fits in int32


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
    computed batch by batch: a Feistel network of four rounds (Luby and Rackoff 1988) on the cells of a table, repeated
    until a number is in range (Black and Rogaway 2002, Ciphers with arbitrary finite domains, section 4).
    """

    def __init__(self, num_rows: int, batch_size: int, device: torch.device) -> None:
        self.num_rows, self.batch_size, self.device = num_rows, batch_size, device
        self._kept, self._at = torch.empty(0, dtype=torch.long), num_rows  # a permutation, or keys

    @property
    def left(self) -> int:
        """How many batches this epoch has yet."""
        return (self.num_rows - self._at) // self.batch_size

    def take(self, count: int) -> Tensor:
        """Return the next row numbers, shape (count, batch)."""
        parts = []
        while count:
            if not self.left:
                self._begin()
            batches = min(count, self.left)
            places = slice(self._at, self._at + batches * self.batch_size)
            parts.append(self._rows(places).view(batches, self.batch_size))
            self._at, count = places.stop, count - batches
        return torch.cat(parts)

    def state(self) -> Any:
        """Return this epoch's order, and how many rows have been taken."""
        return {"order": self._kept, "at": self._at}

    def restore(self, state: Any) -> None:
        """Go back to a place in an epoch."""
        self._kept, self._at = state["order"].to(self.device), state["at"]

    def _begin(self) -> None:
        """Choose the order of an epoch."""
        if self.num_rows <= MAX_ROWS:
            self._kept = torch.randperm(self.num_rows, device=self.device)
        else:
            self._kept = torch.randint(2**31, (_ROUNDS,), device=self.device)
        self._at = 0

    def _rows(self, places: slice) -> Tensor:
        if self.num_rows <= MAX_ROWS:
            return self._kept[places]
        return permuted(torch.arange(places.start, places.stop, device=self.device), self.num_rows, self._kept)


def permuted(places: Tensor, size: int, keys: Tensor) -> Tensor:
    """Return the images of ``places``, numbers below ``size``, under the permutation that ``keys`` choose."""
    columns = math.isqrt(size - 1) + 1
    shape = -(-size // columns), columns  # of a table whose cells are permuted; hardly more than there are rows
    dtype = torch.int32 if size <= _SMALL else torch.int64
    keys, found = keys.to(dtype), _feistel(places.to(dtype), shape, keys.to(dtype))
    while int(found.max()) >= size:
        outside = found >= size
        found = found.index_put((outside,), _feistel(found[outside], shape, keys))
    return found.long()


def _feistel(number: Tensor, shape: tuple[int, int], keys: Tensor) -> Tensor:
    """Move each cell along its row and its column in turn, by what the other place and a key say."""
    bits, sign = (15, 31) if number.dtype == torch.int32 else (31, 63)
    row = number // shape[1]
    place = [row, number - row * shape[1]]
    for turn, key in enumerate(keys):
        moving = turn % 2
        length = shape[moving]
        step = _hashed(place[1 - moving] ^ key).bitwise_right_shift_(31 - bits).mul_(length).bitwise_right_shift_(bits)
        past = step.add_(place[moving]).sub_(length)
        place[moving] = past.add_((past >> sign).bitwise_and_(length))  # a length more where that is negative
    return place[0] * shape[1] + place[1]


def _hashed(number: Tensor) -> Tensor:
    """Return 31 bits, all of which depend on those of the number: multiplicative hashing (Knuth 1998, section 6.4)."""
    found = (number * _FACTORS[0]).bitwise_and_(_MASK)
    return found.bitwise_xor_(found >> 15).mul_(_FACTORS[1]).bitwise_and_(_MASK)
