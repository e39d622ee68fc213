"""Fits that neither see nor disturb one another: the parameter store and random states are restored."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyro
import torch

from .alone import alone


@contextmanager
def isolated(seed: int, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Run a fit from ``seed`` with an empty parameter store, and restore all global state afterwards.

    With ``dtype``, that is the default for floating-point tensors meanwhile.

    One thread at a time is in such a block: others wait.

    Two guides of one class share parameter names in Pyro's store: a store that is not empty would pass the values of
    one fit on to the next.
    """
    check_seed(seed)
    with alone(), _restored(), torch.random.fork_rng(), pyro.get_param_store().scope():
        seed_all(seed)
        if dtype is not None:
            torch.set_default_dtype(dtype)
        yield


@contextmanager
def _restored() -> Iterator[None]:
    """Restore the default type and the generators of Python and NumPy after a block."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    default = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(default)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and torch; where there is no GPU, torch.manual_seed spends half a millisecond on noting it."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    (torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed)(seed)


def check_seed(seed: int) -> None:
    """Raise ValueError for a seed that NumPy's generator does not take."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie between 0 and {2**32 - 1}, got {seed}")
