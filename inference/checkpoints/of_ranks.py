"""The checkpoint of a fit in several ranks: the first one reads and writes it, with the generators of all."""

from pathlib import Path
from typing import Any

from ..distributed.ranks import Ranks
from .checkpoint import Checkpoint
from .generators import generators, set_generators


class CheckpointOfRanks(Checkpoint):
    """One state for all ranks, who must come to `take` and `offer` together.

    What is the same on all of them is kept once, as it is on the first, whose clock says when.
    """

    def __init__(self, ranks: Ranks, method: str, folder: Path, every: float, made: dict[str, Any]) -> None:
        self._ranks = ranks
        super().__init__(method, folder, every, made)

    def _read(self, folder: Path) -> dict[str, Any] | None:
        read = super()._read
        saved = self._ranks.first(lambda: read(folder))
        self._earlier = saved["seconds"] if saved else 0.0
        return saved

    def _is_due(self) -> bool:
        return self._ranks.first(super()._is_due)

    def _generators(self) -> Any:
        return self._ranks.gather(generators())

    def _set_generators(self, states: Any) -> None:
        set_generators(states[self._ranks.rank])

    def _write(self, state: dict[str, Any]) -> None:
        if self._ranks.is_first:
            super()._write(state)
