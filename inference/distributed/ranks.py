"""The processes of one fit: which of them this one is, and what they tell one another."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

# what libraries say where a rank has ended
LOST = re.compile("connect|time(d )?out|peer|socket|broken pipe|abort|heartbeat|remote process", re.IGNORECASE)


class Ranks(NamedTuple):
    """A process group, in which every method must be called by all ranks, in the same order.

    Methods raise ConnectionError, in the name of ``method``, if one of the other ranks has ended.
    """

    method: str
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and shows progress."""
        return self.rank == 0

    def add(self, values: Tensor) -> None:
        """Replace values by their sum over all ranks, in place, to the same bits on each."""
        with self._together():
            dist.all_reduce(values)

    def share(self, values: Sequence[Tensor]) -> None:
        """Replace values by those of the first rank, in place."""
        if self.size > 1:
            with self._together(), torch.no_grad():
                for value in values:
                    sent = value.detach().contiguous()
                    dist.broadcast(sent, 0)
                    value.copy_(sent)

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order; they are pickled."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(found, value)
        return found

    def first(self, function: Callable[[], T]) -> T:
        """Return what a function returns on the first rank, where alone it is called.

        An error there is raised by all: by the others as a RuntimeError with its words, unless it is a ValueError or an
        OSError, which tell a user of a mistake.
        """
        if self.size == 1:
            return function()
        told: list[Any] = [None, None]
        if self.is_first:
            try:
                told[0] = function()
            except (ValueError, OSError) as error:
                told[1] = error
            except Exception as error:
                self._tell([None, RuntimeError(f"{self.method}: rank 0 failed: {type(error).__name__}: {error}")])
                raise
        self._tell(told)
        if told[1] is not None:
            raise told[1]
        return told[0]

    def _tell(self, told: list[Any]) -> None:
        """Replace entries by those of the first rank; they are pickled."""
        with self._together():
            dist.broadcast_object_list(told, 0)

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not LOST.search(str(error)):
                raise
            raise ConnectionError(
                f"{self.method}: rank {self.rank} of {self.size} lost the others: one of them has ended or hangs; "
                f"begin again, and with a checkpoint that goes on from its last state ({_reason(error)})"
            ) from None


ALONE = Ranks("")


def ranks_of(method: str) -> Ranks:
    """Return the ranks of the process group that has been initialised; one rank if none has."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks(method)
    return Ranks(method, dist.get_rank(), dist.get_world_size())


def _reason(error: Exception) -> str:
    """Return what the library says of a lost connection, without where in its source that is and what it guesses."""
    return re.split(r"\. |\n", re.sub(r"^\[\S+:\d+\] | in: \S+:\d+(?=,)", "", str(error).strip()))[0].rstrip(".")
