"""Random numbers of ranks: one order of the rows that all share, and noise that each has for itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..optim.minibatch import Batches, RowIndex
from ..traces.isolate import seed_all
from .ranks import Ranks


class RankBatches(Batches):
    """A rank's part of larger batches, ``batch_size`` rows for each rank, which all ranks draw alike.

    So no two ranks take the same row in one step, nor, in epochs, before all rows have been taken.
    """

    def __init__(self, data: tuple, batch_size: int, ranks: Ranks) -> None:
        super().__init__(data, batch_size * ranks.size)
        if batch_size * ranks.size > len(data[0]):
            raise ValueError(
                f"{ranks.method}: {ranks.size} ranks with batch_size={batch_size} take {batch_size * ranks.size} rows "
                f"per step, and there are {len(data[0])}"
            )
        self._part = slice(ranks.rank * batch_size, (ranks.rank + 1) * batch_size)
        self._device = data[0].device
        self._shared = ranks.gather(_generator_state(self._device))[0]

    def take(self, count: int) -> list[RowIndex]:
        """Return this rank's part of the next ``count`` batches."""
        with self._shared_generator():
            found = super().take(count)
        return [RowIndex(values, rows[:, self._part]) for values, rows in found]

    def state(self) -> Any:
        """Return where the epoch stands, and the generator that orders the next one."""
        return {"epoch": super().state(), "generator": self._shared}

    def restore(self, state: Any) -> None:
        """Go back to a place in an epoch."""
        super().restore(state["epoch"])
        self._shared = state["generator"]

    @contextmanager
    def _shared_generator(self) -> Iterator[None]:
        own = _generator_state(self._device)
        _set_generator(self._device, self._shared)
        try:
            yield
        finally:
            self._shared = _generator_state(self._device)
            _set_generator(self._device, own)


def own_noise(seed: int, stream: int) -> None:
    """Seed all generators with a stream of its own for each number: those of ranks, and one after them for all."""
    seed_all(int(np.random.SeedSequence([seed, stream]).generate_state(1)[0]))


def _generator_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_generator(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
