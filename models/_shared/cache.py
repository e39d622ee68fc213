"""Remember what a function makes of a tensor, as long as the tensor lives and holds the same numbers."""

import functools
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

try:  # private to torch: if they move, nothing is remembered
    from torch._C import _DisableFuncTorch, _len_torch_dispatch_stack
    from torch._C._functorch import is_functorch_wrapped_tensor
    from torch.utils._python_dispatch import _disable_current_modes

    _CAN_TELL = True
except ImportError:
    _CAN_TELL = False

R = TypeVar("R")


def remembered(function: Callable[..., R]) -> Callable[..., R]:
    """Remember results of ``function(x, *options)`` by the content of tensor ``x`` and by the options.

    A result is dropped with its tensor, and worked out again if the numbers have changed in any way: in place, through
    NumPy's memory, or by ``x.data``. Results for a tensor that is traced, vectorised or differentiated are not
    remembered; those for constants in the same computation are. Options must be hashable.
    """
    memory = WeakTensorKeyDictionary()

    @functools.wraps(function)
    def call(x: Any, *options: Any) -> R:
        if type(x) is not Tensor or x.layout is not torch.strided or x.requires_grad or is_transformed(x):
            return function(x, *options)
        with untransformed():
            content = _checksum(x)
            known = memory.get(x)
            if known is None or known[0] != content:
                known = memory[x] = (content, {})
            results = known[1]
            if options not in results:
                results[options] = function(x, *options)
        return results[options]

    return call


def is_transformed(x: Tensor) -> bool:
    """Whether x is an input of ``torch.vmap``, ``torch.func.grad`` or ``make_fx``, or nobody can tell."""
    if not _CAN_TELL or is_functorch_wrapped_tensor(x):  # pyright: ignore[reportPossiblyUnboundVariable]
        return True
    if not _len_torch_dispatch_stack():  # pyright: ignore[reportPossiblyUnboundVariable]
        return False
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    mode = get_proxy_mode()
    return mode is not None and x in mode.tracer.tensor_tracker


@contextmanager
def untransformed() -> Iterator[None]:
    """Work on plain tensors as they are, whatever is traced, vectorised or differentiated around it."""
    if not _CAN_TELL:
        yield
        return
    with _DisableFuncTorch(), _disable_current_modes():  # pyright: ignore[reportPossiblyUnboundVariable]
        yield


def _checksum(x: Tensor) -> tuple:
    """Shape, type, device and a checksum of the bytes."""
    data = x.detach().contiguous().reshape(-1).view(torch.uint8)
    if data.device.type == "cpu":
        total = zlib.crc32(data.numpy().data)
    else:  # copying would cost more than reading: bytes weighted by their place, modulo 2⁶⁴
        total = int((data.long() * torch.arange(1, 2 * len(data), 2, device=data.device)).sum())
    return x.shape, x.dtype, str(x.device), total
