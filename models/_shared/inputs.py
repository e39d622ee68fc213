"""The door of every model: data as floating-point tensors, or a sentence that says what is wrong with them.

Nothing is filled in, left out or scaled. Whole numbers and truth values become float64, half precision float32. Values
are looked at once per tensor, not at every call, and never those of a tensor that is traced or vectorised.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .blocks import Blocks, is_blocks
from .cache import is_transformed, untransformed

LARGEST = 2.0**53  # count: past it float64 skips whole numbers
_CHUNK = 2**13  # numbers looked at together
_SEEN: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # tensor -> its version, and by check what came of it


def rows_of(model: str, x: Any, what: str = "x") -> Any:
    """Return rows for a model: shape (n, d), floating point, one row and one column at least, all numbers finite and
    not too large to be squared. `Blocks` are read once for that, and returned as they are.

    Raises
    ------
    ValueError
        If ``x`` is none of that; the sentence begins with the name of the model.
    """
    check_shape(model, x, what)
    if is_blocks(x):
        _check_finite(model, what, x)
        return x
    return seen_once(x, (model, what), partial(as_floating, model, what), partial(_check_finite, model, what))


def check_shape(model: str, x: Any, what: str = "x") -> None:
    """Raise ValueError unless ``x`` is a dense tensor of shape (rows, columns), with at least one of both."""
    if not is_blocks(x):
        _check_tensor(model, x, what)
    if len(x.shape) != 2:
        raise ValueError(f"{model}: {what} must have shape (rows, columns), got {tuple(x.shape)}")
    if 0 in x.shape:
        raise ValueError(f"{model}: {what} has no {'columns' if len(x) else 'rows'}: its shape is {tuple(x.shape)}")


def target_of(model: str, y: Any, x: Tensor, check: Callable[[Tensor], object] | None = None) -> Tensor:
    """Return what a regression is to explain: shape (n,), a number for each row of ``x``, in floating point.

    ``check``, if given, looks at the numbers; else they must be finite. ValueError if there is not one for each row.
    """
    _check_tensor(model, y, "y")
    if y.dim() != 1:
        raise ValueError(f"{model}: y must have shape (rows,), got {tuple(y.shape)}")
    if len(y) != len(x):
        raise ValueError(f"{model}: x has {len(x)} rows, and y has {len(y)}")
    return seen_once(
        y,
        (model, "y", x.dtype),
        partial(as_floating, model, "y", dtype=x.dtype),
        check or partial(_check_finite, model, "y"),
    )


def check_spread(model: str, x: Tensor | Blocks, variance: Tensor | None = None) -> None:
    """Raise ValueError for a column that varies, and whose variance is too large or too small for its dtype.

    Columns whose ``variance``, if it is known already, lies in that range are not looked at. That of `Blocks` is
    computed in float64, whatever their dtype, and has room enough.
    """
    least = torch.finfo(x.dtype).tiny
    if not isinstance(x, Tensor) or (variance is not None and bool(((variance >= least) & variance.isfinite()).all())):
        return
    variance = x.var(0, correction=0)
    wrong = ~torch.isfinite(variance)
    for column in (variance < least).nonzero().flatten().tolist():
        wrong[column] = bool((x[:, column] != x[0, column]).any())
    if wrong.any():
        column, dtype = int(wrong.nonzero()[0]), str(x.dtype).removeprefix("torch.")
        raise ValueError(f"{model}: the variance of column {column} leaves the range of {dtype}: rescale it")


def check_precision(model: str, columns: Tensor, prior: float, weight: float) -> None:
    """Raise ValueError if six digits are lost in factorising ``weight`` × columnsᵀ columns + ``prior`` × I.

    A Cholesky factorisation loses as many as the condition number has, rows and columns scaled to a unit diagonal:
    Higham (2002), Accuracy and Stability of Numerical Algorithms, section 10.1.
    """
    precision = weight * (columns.mT @ columns)
    precision.diagonal().add_(prior)
    scale = precision.diagonal().rsqrt()
    scaled = precision * scale * scale[:, None]
    values = torch.linalg.eigvalsh(scaled) if bool(torch.isfinite(scaled).all()) else scaled.new_zeros(1)
    if not float(values[0]) > float(values[-1]) * 1e6 * torch.finfo(precision.dtype).eps:
        raise ValueError(
            f"{model}: the columns are collinear, or so far from 0 for their spread or so large, that fewer than six "
            "digits of the weights can be computed: standardise them"
        )


def seen_once(x: Tensor, key: tuple, convert: Callable[[Tensor], Tensor], check: Callable[[Tensor], object]) -> Tensor:
    """Return ``convert(x)``, checked, both done once for a tensor until torch writes to it.

    ``key`` names the two among those of the tensor. Values that are traced or vectorised are not checked.
    """
    if type(x) is not Tensor or is_transformed(x):
        return convert(x)
    with untransformed():
        if x.is_inference() or x.requires_grad:  # without a version, or with a graph that is not to be kept
            found = convert(x)
            check(found)
            return found
        known = _SEEN.get(x)
        if known is None or known[0] != x._version:
            known = _SEEN[x] = (x._version, {})
        if key not in known[1]:
            found = convert(x)
            check(found)
            known[1][key] = None if found is x else found  # a reference to x would keep it alive
        found = known[1][key]
    return x if found is None else found


def _check_tensor(model: str, value: Any, what: str) -> None:
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise ValueError(f"{model}: {what} must be a tensor, got {kind}: torch.as_tensor makes one of an array")
    if value.layout != torch.strided:
        raise ValueError(f"{model}: {what} is sparse, and a dense tensor is needed: .to_dense() makes one")


def as_floating(model: str, what: str, value: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return numbers in floating point: whole ones in ``dtype``."""
    if value.is_complex():
        raise ValueError(f"{model}: {what} holds complex numbers, and real ones are needed")
    if not value.is_floating_point():
        return value.to(dtype)
    return value.float() if value.dtype.itemsize < 4 else value


def _check_finite(model: str, what: str, value: Tensor | Blocks) -> None:
    """Raise ValueError with the place of the first number that is not finite, or too large to be squared."""
    if not value.dtype.is_floating_point:
        return
    start, most = 0, torch.finfo(value.dtype).max ** 0.5
    for part in value.split(max(1, _CHUNK // max(1, math.prod(value.shape[1:])))):
        fine = part.abs() < most
        if not bool(fine.all()):
            place = (~fine).nonzero()[0].tolist()
            where = f"row {start + place[0]}" + "".join(f", column {column}" for column in place[1:])
            bad = float(part[tuple(place)])
            why = "and finite numbers are needed"
            if math.isfinite(bad):
                why = f"too large to be squared in {str(value.dtype).removeprefix('torch.')}: rescale it"
            raise ValueError(f"{model}: {what} is {bad:g} in {where}, {why}")
        start += len(part)
