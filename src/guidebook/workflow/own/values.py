"""What a file gives a model's arguments, and text as codes."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from guidebook.datasets.table import listed, quoted

Names = Mapping[str, Sequence[str]]  # of the columns of a matrix, or of the categories behind codes, by argument
NONE: Names = MappingProxyType({})


class OwnData(NamedTuple):
    """What a file gives a model's arguments.

    Attributes
    ----------
    values : dict
        Tensors, and plain numbers, truth values and words of a .json, by argument.
    names : dict of tuple of str
        See `Names`.
    unused : tuple of str
        Keys or columns that are no argument's.
    rows : sequence of int
        Places of the rows of a .csv, from 0; some are left out if rows with gaps are. Empty for other files.
    ids : dict of list of str
        Columns that identify the rows, by name.
    left_out : int
        Number of rows that were left out for their gaps.
    """

    values: dict[str, Any]
    names: dict[str, tuple[str, ...]]
    unused: tuple[str, ...]
    rows: Sequence[int] = ()
    ids: Mapping[str, Sequence[str]] = MappingProxyType({})
    left_out: int = 0


def coded(what: str, texts: Sequence[str], categories: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Return the place of each text among the categories, and these; by default they are in alphabetical order.

    ValueError, which begins with ``what``, for a text that is none of them.
    """
    categories = tuple(sorted(set(texts)) if categories is None else categories)
    places = {category: place for place, category in enumerate(categories)}
    if new := [text for text in texts if text not in places]:
        raise ValueError(f"{what}: {quoted(new[0])} is none of the categories of the fit, {listed(categories)}")
    return torch.tensor([places[text] for text in texts]), categories
