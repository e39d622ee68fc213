"""Digests of tensors and data: by them a damaged file is noticed, and other data than those that were fitted."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_BYTES = 2**28  # of data that every fit takes the digest of, a fraction of a second


def digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """Return a checksum over all that a file holds: tensors by name, and text."""
    total = hashlib.blake2b(text.encode(), digest_size=16)
    for name, value in sorted(tensors.items()):
        total.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        total.update(_bytes(value))
    return total.hexdigest()


def data_sha256(args: Iterable[Any]) -> str:
    """Return the SHA-256 of a model's arguments as they are fitted: bytes of tensors, and other values."""
    total = hashlib.sha256()
    for value in args:
        if isinstance(value, Tensor):
            total.update(repr((tuple(value.shape), str(value.dtype))).encode())
            total.update(_bytes(value))
        else:
            total.update(repr(value).encode())
    return total.hexdigest()


def fitted_sha256(args: tuple) -> str | None:
    """Return `data_sha256` of plain data; None if they are large, or anything but tensors and plain values."""
    plain = all(value is None or isinstance(value, Tensor | bool | int | float | str) for value in args)
    dense = [value for value in args if isinstance(value, Tensor)]
    if not plain or not dense or any(value.layout != torch.strided for value in dense):
        return None
    size = sum(value.numel() * value.element_size() for value in dense)
    return data_sha256(args) if size <= MOST_BYTES else None


def _bytes(value: Tensor) -> memoryview:
    whole = (value.detach() if value.requires_grad else value).cpu().contiguous()
    known = whole.view(torch.int16) if whole.dtype == torch.bfloat16 else whole  # which NumPy lacks
    array: np.ndarray = np.ascontiguousarray(known.numpy()).reshape(-1).view(np.uint8)
    return array.data
