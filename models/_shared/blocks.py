"""Rows that are not held in memory, for steps that take their rows in chunks anyway."""

from collections.abc import Iterator
from typing import Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor

FEW = 1_000_000  # rows of which a random order is made


@runtime_checkable
class Blocks(Protocol):
    """What stands for a matrix, shape (n, d): a `guidebook.inference.streams.Stream` of one."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    shuffles: bool  # whether every pass has its own order

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the rows with these numbers, in whatever order."""
        ...

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield all rows in order, ``size`` at a time; the last ones may be fewer."""
        ...


def is_blocks(x: object) -> TypeGuard[Blocks]:
    """Whether rows come in blocks, rather than in a tensor."""
    return not isinstance(x, Tensor) and isinstance(x, Blocks)


def random_places(x: Tensor | Blocks, number: int) -> Tensor:
    """Return the places of different rows at random, as many as there are at most; no order of all rows is made."""
    return places_among(len(x), number, x.device)


def places_among(num_rows: int, number: int, device: torch.device) -> Tensor:
    """Do the same for so many rows."""
    if num_rows <= FEW:
        return torch.randperm(num_rows, device=device)[:number]
    places = torch.randint(num_rows, (2 * number,), device=device).unique()
    return places[torch.randperm(len(places), device=device)[:number]]


def held(x: Tensor | Blocks) -> Tensor:
    """Return few rows as a tensor."""
    return x if isinstance(x, Tensor) else x[torch.arange(len(x))]
