"""What methods do with their options and data before they begin; an error names the method and the option."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def options_by_name(method: Callable[P, T]) -> Callable[P, T]:
    """Have a method say, of a keyword that it does not take, where data and a model's own options go."""
    taken = signature(method).parameters

    @wraps(method)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in taken:
                raise TypeError(
                    f"{method.__name__}: there is no option {name!r}: data go by position, after the model, and a "
                    f"model's keyword arguments are bound to it, by functools.partial(model, {name}=…)"
                )
        return method(*args, **kwargs)

    return checked


def at_least_one(method: str, **counts: int | None) -> None:
    """Raise ValueError for the first count below one; None stands for an option that was not given."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{method}: {name} must be at least 1, got {value}")


def positive(method: str, **values: float) -> None:
    """Raise ValueError for the first value that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{method}: {name} must be positive, got {value}")


def to_device(method: str, data: tuple, device: str | torch.device | None) -> tuple[Any, ...]:
    """Return the data with its tensors on ``device``; unchanged for None. ValueError if there is no such device."""
    if device is None:
        return data
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"{method}: device {str(device)!r} is not available: torch finds no GPU; leave device out")
    return tuple(value.to(device) if isinstance(value, Tensor) else value for value in data)


def device_of(data: tuple) -> torch.device:
    """Return the device of the data: of the first tensor that is not on the CPU, if there is one."""
    devices = (value.device for value in data if isinstance(value, Tensor) and value.device.type != "cpu")
    return next(devices, torch.device("cpu"))


def size_of(data: tuple) -> int:
    """Return how many numbers the tensors of the data have."""
    return sum(value.numel() for value in data if isinstance(value, Tensor))


def as_double(data: tuple) -> tuple:
    """Return floating-point tensors in float64, all others as they are."""
    return tuple(value.double() if value.is_floating_point() else value for value in data)
