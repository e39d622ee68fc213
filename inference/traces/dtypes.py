"""One floating-point dtype for data and model, so that no operation mixes two."""

from collections.abc import Callable

import torch
from pyro import poutine
from torch import Tensor

from ..options import device_of
from .errors import explained
from .handlers import Promote
from .isolate import isolated
from .sites import nodes


def in_one_dtype(
    method: str,
    model: Callable,
    guide: Callable | None,
    data: tuple,
    shown: Callable[[tuple], tuple],
    least: torch.dtype | None = None,
) -> tuple[tuple, torch.dtype, list[str]]:
    """Return the data in the widest floating-point dtype among them, the model's values and torch's default.

    If model and guide run only on data in the dtypes given, because they mix them by design, those are kept; if only on
    data in torch's default dtype, those are rounded. With ``least``, the dtype is at least as wide as that, where model
    and guide allow it.
    """
    default = torch.get_default_dtype()
    if least is not None and torch.promote_types(default, least) != default:
        wide = _in(least, data)
        _, wrong = _dtypes(Promote(least)(model), guide, shown(wide), least)
        return (wide, least, []) if not wrong else in_one_dtype(method, model, guide, data, shown)
    given = {value.dtype for value in data if isinstance(value, Tensor) and value.is_floating_point()}
    found, failed = _dtypes(model, None, shown(data), default)
    dtype = default
    for other in given | found:
        dtype = torch.promote_types(dtype, other)
    note = [f"computed in {str(dtype).removeprefix('torch.')}"] if dtype != default else []
    if not failed and given <= {dtype} and dtype == default:
        return data, dtype, note
    wide = _in(dtype, data)
    _, wrong = _dtypes(Promote(dtype)(model), None if given <= {dtype} else guide, shown(wide), dtype)
    if not wrong:
        return wide, dtype, note
    if not failed:
        mixed = sorted(str(other).removeprefix("torch.") for other in given | found)
        return data, default, [f"computed in {' and '.join(mixed)}, since it does not run in {mixed[-1]} alone"]
    narrow = _in(default, data)
    if not _dtypes(Promote(default)(model), guide, shown(narrow), default)[1]:
        name = str(default).removeprefix("torch.")
        return narrow, default, [f"data rounded to {name}, which numbers in the model are in"]
    raise ValueError(f"{explained(method, wrong)}; convert data and parameters to one dtype") from None


def draws_dtype(data: tuple) -> torch.dtype:
    """Return the dtype in which a user gets draws, whatever they were computed in: the widest of data and default."""
    dtype = torch.get_default_dtype()
    for value in data:
        if isinstance(value, Tensor) and value.is_floating_point():
            dtype = torch.promote_types(dtype, value.dtype)
    return dtype


def as_data(values: dict[str, Tensor], data: tuple, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return values of sites on the device of the data, floating-point ones in ``dtype``."""
    device = device_of(data)
    return {n: v.to(device, dtype) if v.is_floating_point() else v.to(device) for n, v in values.items()}


def _in(dtype: torch.dtype, data: tuple) -> tuple:
    return tuple(v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for v in data)


def _dtypes(
    model: Callable, guide: Callable | None, data: tuple, dtype: torch.dtype
) -> tuple[set[torch.dtype], RuntimeError | None]:
    """Return the floating-point dtypes of a model's values, and the error if it or the guide refuse those of the data.

    Any other error is explained when the model is run next.
    """
    with isolated(0, dtype), torch.no_grad():
        try:
            values = [
                s["value"] for s in nodes(poutine.trace(model).get_trace(*data)).values() if s["type"] == "sample"
            ]
            if guide is not None:
                with poutine.block():
                    guide(*data)
        except RuntimeError as error:
            if "dtype" in str(error) or "scalar type" in str(error):
                return set(), error
        except Exception:
            pass
        else:
            return {v.dtype for v in values if isinstance(v, Tensor) and v.is_floating_point()}, None
    return set(), None
