"""Arrays in memory, or in files that are mapped into it: rows that can be looked up."""

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .rows import READ, Block, Stream


def array_stream(name: str, arrays: Sequence[Any], *, by: str = "rows") -> Stream:
    """Return arrays or tensors with as many rows as a stream; ``by`` as for `stream`."""
    parts = tuple(value if isinstance(value, Tensor) else _as_they_lie(name, value) for value in arrays)
    sizes = [len(value) if value.ndim else 0 for value in parts]
    if len(set(sizes)) != 1 or not sizes[0]:
        raise ValueError(f"{name}: arrays must have as many rows, and at least one; they have {sizes}")

    def at(rows: slice | Tensor) -> Block:
        return tuple(_taken(name, value, rows) for value in parts)

    if by == "rows":
        return Stream(name, sizes[0], at=at)
    step = max(1, READ // max(1, sum(math.prod(value.shape[1:]) for value in parts)))

    def passes(seed: int | None) -> Iterator[Block]:
        starts = np.arange(0, sizes[0], step)
        for start in starts if seed is None else np.random.default_rng(seed).permutation(starts):
            yield at(slice(int(start), int(start) + step))

    return Stream(name, sizes[0], passes=passes, reads_ahead=True)


def without_copy(name: str, values: np.ndarray) -> Tensor:
    """Return an array of numbers as a tensor on the same memory, which nobody writes to.

    Big-endian numbers, and unsigned ones of 16 bits or more, are copied: torch has none, or cannot compute with them.
    ValueError for what is no number, or is past the range of int64.
    """
    found = _as_they_lie(name, values)
    if isinstance(found, Tensor):
        return found
    if found.dtype.kind == "u":
        if found.dtype.itemsize == 8 and found.size and found.max() > np.iinfo(np.int64).max:
            raise ValueError(f"{name}: an array has whole numbers beyond the range of int64")
        return torch.from_numpy(found.astype(np.int64))
    return torch.from_numpy(found.astype(found.dtype.newbyteorder("=")))


def _as_they_lie(name: str, values: np.ndarray) -> np.ndarray | Tensor:
    """Return an array as a tensor on the same memory, or as it is if torch has no such numbers."""
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise ValueError(f"{name}: an array is of {values.dtype}, and numbers of 64 bits at most are needed")
    if not values.dtype.isnative or values.dtype in (np.uint16, np.uint32, np.uint64):
        return values
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(values)


def _taken(name: str, values: np.ndarray | Tensor, rows: slice | Tensor) -> Tensor:
    """Return some rows, in numbers that torch computes with."""
    if isinstance(values, np.ndarray):
        return without_copy(name, values[rows if isinstance(rows, slice) else rows.cpu().numpy()])
    return values[rows] if isinstance(rows, slice) else values.index_select(0, rows.to(values.device))


def mapped(what: str, path: Path) -> np.ndarray:
    """Return the array of a .npy file, mapped into memory; ``what`` opens error messages."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{what}: this is no .npy file of numbers, or it is damaged: {error}") from None
    if not found.ndim:
        raise ValueError(f"{what}: this is one number, and rows are needed")
    return found


def mapped_parts(what: str, files: Sequence[Path]) -> Stream:
    """Return .npy files whose rows follow one another; minibatches are taken from one after the other."""
    parts = [_as_they_lie(what, mapped(f"stream: {file}", file)) for file in files]
    if len({(part.shape[1:], part.dtype) for part in parts}) != 1:
        raise ValueError(f"{what}: the .npy files differ in their columns or types")
    step = max(1, READ // max(1, math.prod(parts[0].shape[1:])))

    def passes(seed: int | None) -> Iterator[Block]:
        pieces = [(part, start) for part in parts for start in range(0, len(part), step)]
        order = range(len(pieces)) if seed is None else np.random.default_rng(seed).permutation(len(pieces))
        for place in order:
            part, start = pieces[place]
            yield (_taken(what, part, slice(start, start + step)),)

    return Stream(what, sum(map(len, parts)), passes=passes, reads_ahead=True)
