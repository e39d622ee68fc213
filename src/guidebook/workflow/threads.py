"""How many threads a fit by the command uses: one for small data, where threads would wait for one another."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from guidebook.inference.options import size_of

LARGE = 1_000_000  # numbers in the data from which threads pay


def num_threads(args: Iterable) -> int:
    """Return the number of threads for a model's arguments; what the user says by OMP_NUM_THREADS counts."""
    given = torch.get_num_threads()
    return given if "OMP_NUM_THREADS" in os.environ or size_of(tuple(args)) >= LARGE else 1


@contextmanager
def threads_for(args: Iterable) -> Iterator[None]:
    """Run a block with the threads for these arguments."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads(args))
    try:
        yield
    finally:
        torch.set_num_threads(before)
