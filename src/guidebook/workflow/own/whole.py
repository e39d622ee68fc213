"""Whole numbers of a file: floats, as arithmetic wants them, or indices, wherever a model takes only those."""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from guidebook.inference.traces.isolate import isolated
from guidebook.inference.traces.prepare import prepare

MOST_TRIED = 6  # arguments of whole numbers of which all combinations are tried


def with_indices(model: Callable, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return a model's arguments with those of whole numbers as floats, unless it runs only if they are whole.

    A file does not say whether 3 is a number or the place of something. A model does: an index must be whole, and the
    mean of a column is none for whole numbers.
    """
    whole = [place for place, value in enumerate(args) if not value.is_floating_point() and value.dtype != torch.bool]
    if not whole or _runs(model, _as_floats(args, whole)):
        return _as_floats(args, whole)
    if _runs(model, args):
        for place in whole:
            if _runs(model, tried := _as_floats(args, [place])):
                args = tried
        return args
    for count in range(len(whole) - 1, 0, -1) if len(whole) <= MOST_TRIED else ():
        for chosen in itertools.combinations(whole, count):
            if _runs(model, tried := _as_floats(args, chosen)):
                return tried
    return args


def _as_floats(args: tuple[Tensor, ...], places: Sequence[int]) -> tuple[Tensor, ...]:
    return tuple(value.double() if place in places else value for place, value in enumerate(args))


def _runs(model: Callable, args: tuple[Tensor, ...]) -> bool:
    """Whether the model can be run on these arguments."""
    with isolated(0):
        try:
            prepare("run", model, args, exact=False)
        except ValueError:
            return False
    return True
