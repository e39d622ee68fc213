"""Operations that move numbers and compute nothing, as C++ loops.

Such an operation is run once on the numbers of its entries, and what comes out says where each entry of the result
comes from: one rule for concatenations, padding, triangles, and the gradients of slices.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_LOOPS = 16  # runs of evenly spaced entries that get a loop each; more are looked up in a table
MOVES = {"cat", "stack", "constant_pad_nd", "diag_embed", "diagonal_copy", "flip", "gather", "index", "index_select"}
MOVES |= {"repeat", "tril", "triu", "select_backward", "slice_backward", "diagonal_backward"}
MOVES |= {"select_scatter", "slice_scatter", "diagonal_scatter", "as_strided_scatter"}
ADDITIONS = {"index_add", "index_put", "scatter_add"}


def origins(operation: Callable, args: tuple, kwargs: dict, varying: Callable[[Any], bool]) -> tuple[Tensor, list[int]]:
    """Return for each entry of the result which entry it comes from, and where each input's entries begin.

    Entries of the inputs are numbered from 1, one input after another; 0 is a zero that comes from none.
    """
    begins, count = [], 1

    def numbered(value: Any) -> Any:
        nonlocal count
        if isinstance(value, (list, tuple)):
            return type(value)(map(numbered, value))
        if not isinstance(value, Tensor) or not varying(value):
            return value
        begins.append(count)
        count += value.numel()
        return torch.arange(begins[-1], count).reshape(value.shape)

    found = operation(*numbered(args), **kwargs)
    return found, begins


def offsets(tensor: Tensor) -> np.ndarray:
    """Return where each entry lies in memory, counted in entries from the first."""
    where = torch.zeros((), dtype=torch.long)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        where = where.unsqueeze(-1) + torch.arange(size) * stride
    return where.reshape(-1).numpy()


def copies(
    target: str, to: np.ndarray, sources: list[str], which: np.ndarray, origin: np.ndarray, rest: str = "0"
) -> list[str]:
    """Return loops that set entries ``to`` of the target to entries ``origin`` of the source that ``which`` names.

    Where ``which`` is negative the entry becomes ``rest``.
    """
    if not len(to):
        return []
    even = (np.diff(which, 2) == 0) & (np.diff(to, 2) == 0) & ((np.diff(origin, 2) == 0) | (which[2:] < 0))
    begins, at = [0], 0
    same = np.diff(which) == 0
    while at < len(to):
        end = at + 1
        if end < len(to) and same[at]:
            end += 1
            while end < len(to) and same[end - 1] and even[end - 2]:
                end += 1
        begins.append(end)
        at = end
        if len(begins) > MAX_LOOPS:
            return _by_table(target, to, sources, which, origin, rest)
    lines = []
    for begin, end in pairwise(begins):
        left = _spaced(to[begin:end])
        right = rest if which[begin] < 0 else f"{sources[which[begin]]}[{_spaced(origin[begin:end])}]"
        lines.append(f"for (int i = 0; i < {end - begin}; ++i) {target}[{left}] = {right};")
    return lines


def additions(target: str, to: np.ndarray, source: str, origin: np.ndarray, *, replace: bool) -> list[str]:
    """Return a loop that adds entries ``origin`` of the source to entries ``to`` of the target, or replaces them."""
    tables = f"static const int to[] = {{{_listed(to)}}}, from[] = {{{_listed(origin)}}};"
    sign = "=" if replace else "+="
    return [f"{{ {tables} for (int i = 0; i < {len(to)}; ++i) {target}[to[i]] {sign} {source}[from[i]]; }}"]


def _by_table(
    target: str, to: np.ndarray, sources: list[str], which: np.ndarray, origin: np.ndarray, rest: str
) -> list[str]:
    lines = []
    for place in np.unique(which):
        chosen = which == place
        tables = f"static const int to[] = {{{_listed(to[chosen])}}}"
        right = rest
        if place >= 0:
            tables += f", from[] = {{{_listed(origin[chosen])}}}"
            right = f"{sources[place]}[from[i]]"
        lines.append(f"{{ {tables}; for (int i = 0; i < {int(chosen.sum())}; ++i) {target}[to[i]] = {right}; }}")
    return lines


def _spaced(where: np.ndarray) -> str:
    step = int(where[1] - where[0]) if len(where) > 1 else 0
    return f"{int(where[0])} + i * {step}"


def _listed(numbers: np.ndarray) -> str:
    return ",".join(map(str, numbers.tolist()))
