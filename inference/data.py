"""What a method does to its data before it starts: floating point to float64, tensors to a device."""

from typing import Any

import torch
from torch import Tensor


def as_double(data: tuple) -> tuple:
    """Floating-point tensors in float64, all others as they are."""
    return tuple(value.double() if value.is_floating_point() else value for value in data)


def to_device(data: tuple[Any, ...], device: str | torch.device | None) -> tuple[Any, ...]:
    """Tensors on ``device``, or where they are if it is None; other arguments as they are."""
    if device is None:
        return data
    return tuple(value.to(device) if isinstance(value, Tensor) else value for value in data)
