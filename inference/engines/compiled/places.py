"""Memory that C++ reads and writes, by pointers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .works import TYPES


class Places:
    """Memory that C++ reads and writes, by pointers; ``streams`` are read at row ``t`` of an array."""

    def __init__(self, streams: Sequence[Tensor]) -> None:
        self.addresses: list[int] = []
        self.pointers: dict[tuple[int, torch.dtype], str] = {}  # declarations, by memory
        self._streams = [stream.untyped_storage().data_ptr() for stream in streams]
        self._bytes = [stream.nbytes for stream in streams]
        self._alive: list[Tensor] = []

    def pointer(self, tensor: Tensor) -> str:
        """Return a pointer to a tensor's first entry."""
        self._alive.append(tensor)
        memory, kind = tensor.untyped_storage().data_ptr(), TYPES[tensor.dtype]
        key = memory, tensor.dtype
        if key not in self.pointers:
            if memory in self._streams:
                stream = self._streams.index(memory)
                where = f"(rows[{stream}] + t * {self._bytes[stream]})"
            else:
                where = f"at[{len(self.addresses)}]"
                self.addresses.append(memory)
            self.pointers[key] = f"{kind}* const p{len(self.pointers)} = ({kind}*) {where};"
        name = f"p{list(self.pointers).index(key)}"
        return f"({name} + {offset})" if (offset := tensor.storage_offset()) else name
