"""ATen operations and constants of a recorded graph in JAX."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from ..graph import is_operation
from .table import TABLE

MAX_MASK = 100_000  # entries of a mask that is compiled into the program
# Overloads that share the entry of the default, unless the table has one for them.
SHARED = {"default", "Tensor", "Tensor_mode", "Tensor_Scalar", "Tensor_Tensor", "dim", "dims", "dim_int", "dim_IntList"}
SHARED |= {"Scalar", "Scalar_mode", "Scalar_Other", "Scalar_Self"}
_STORAGE = ("device", "layout", "memory_format", "non_blocking", "pin_memory")  # arguments that JAX has no need of


def knows(operation: Any) -> bool:
    """Return whether `TABLE` has an operation."""
    return name_of(operation) in TABLE


def name_of(operation: Any) -> str:
    """Return the name of an operation in `TABLE`: ``exp``, ``mul`` (of ``mul.Tensor``), ``max.dim``."""
    packet, _, overload = str(operation).removeprefix("aten.").rpartition(".")
    name = f"{packet}.{overload}"
    return packet if overload in SHARED and name not in TABLE else name


def apply(operation: Any, *args: Any, like: Any = None, **kwargs: Any) -> Any:
    """Run an operation on JAX arrays; results are cast to the dtypes of torch's in ``like``."""
    if not is_operation(operation):
        return operation(*args, **kwargs)
    args = tuple(_dtype(value) for value in args)
    kwargs = {key: _dtype(value) for key, value in kwargs.items() if key not in _STORAGE}
    return _cast(TABLE[name_of(operation)](*args, **kwargs), like)


def _dtype(value: Any) -> Any:
    return jnp.dtype(str(value).removeprefix("torch.")) if isinstance(value, torch.dtype) else value


def _cast(value: Any, like: Any) -> Any:
    if isinstance(like, Tensor) and value is not None:
        return jnp.asarray(value, _dtype(like.dtype))
    if isinstance(like, (tuple, list)) and value is not None:
        return [_cast(part, other) for part, other in zip(value, like, strict=True)]
    return value


def constant(value: Any, arguments: list[np.ndarray]) -> Callable[[tuple], Any]:
    """Return how to read a constant from the arguments given; append it to them unless it is compiled in.

    A dimension along which it does not vary gets length one, and single numbers are written into the program.
    """
    if isinstance(value, (tuple, list)):
        parts = [constant(part, arguments) for part in value]
        return lambda given: [part(given) for part in parts]
    if not isinstance(value, Tensor):
        return lambda given: value
    shape, slim = value.shape, value.detach()
    for dim in range(slim.dim()):
        first = slim.narrow(dim, 0, min(1, slim.shape[dim]))
        slim = first if bool((slim == first).all()) else slim
    array = slim.cpu().numpy()
    if array.dtype == bool and value.numel() <= MAX_MASK:
        return lambda given: np.broadcast_to(array, shape)  # a constant at compile time, so JAX can index with it
    if array.size <= 1:
        return lambda given: jnp.broadcast_to(array, shape)
    arguments.append(np.ascontiguousarray(array))
    place = len(arguments) - 1
    return lambda given: jnp.broadcast_to(given[place], shape)
