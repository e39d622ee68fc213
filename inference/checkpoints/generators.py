"""The states of all random generators that a fit may draw from."""

import random
from typing import Any

import numpy as np
import torch


def generators() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators, on every device that has been used."""
    version, numbers, normal = random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, np.array(numbers), normal],
        "numpy": [name, np.asarray(keys), *rest],
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else [],
    }


def set_generators(states: dict[str, Any]) -> None:
    """Set all generators to the states that `generators` returned."""
    version, numbers, normal = states["python"]
    random.setstate((version, tuple(numbers.tolist()), normal))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys, *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
