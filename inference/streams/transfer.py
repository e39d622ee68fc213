"""Batches on their way to a GPU, read and copied by a thread while steps are taken with those before."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from .rows import Block


def transfer_to(like: tuple[Tensor, ...]) -> "Transfer | None":
    """Return what brings batches to the GPU that ``like`` are on; None if they are on the CPU, or sparse."""
    there = all(value.device.type == "cuda" and value.layout == torch.strided for value in like)
    return Transfer(like) if there else None


def moved(block: Block, like: tuple[Tensor, ...]) -> Block:
    """Return a batch in the dtypes and on the devices of ``like``, once it is there."""
    return tuple(value.to(target.device, target.dtype) for value, target in zip(block, like, strict=True))


class Transfer:
    """Batches that go to a GPU by way of pinned memory, in the dtypes of ``like``.

    The copy is asynchronous, and on a CUDA stream of its own: it does not wait for the kernels of the steps, nor they
    for it. PyTorch's notes on CUDA semantics: "Use pinned memory buffers", "CUDA streams".
    """

    def __init__(self, like: tuple[Tensor, ...]) -> None:
        self._like, self._device = like, like[0].device
        self._copies = torch.cuda.Stream(self._device)
        self._reader = ThreadPoolExecutor(1, "guidebook-transfer")

    def begin(self, read: Callable[[], Block]) -> Callable[[], Block]:
        """Have a batch read and copied; what is returned gives it to the current CUDA stream, or raises its error."""
        coming = self._reader.submit(self._copied, read)
        return lambda: self._arrived(*coming.result())

    def _copied(self, read: Callable[[], Block]) -> tuple[Block, Any]:
        """Return a batch whose copy has begun, and the event that ends it."""
        values = [value.to(target.dtype) for value, target in zip(read(), self._like, strict=True)]
        values = [value.pin_memory() if value.device.type == "cpu" else value for value in values]
        with torch.cuda.stream(self._copies):
            return tuple(value.to(self._device, non_blocking=True) for value in values), self._copies.record_event()

    def _arrived(self, block: Block, copied: Any) -> Block:
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copied)
        for value in block:
            value.record_stream(current)  # the allocator knows only of the stream that the copy was made on
        return block
