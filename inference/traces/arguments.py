"""A user's data as tensors: NumPy arrays, SciPy's sparse matrices, pandas series and frames, lists of numbers.

Whole numbers stay whole, since they may be indices; `Promote` makes floats of those that a distribution wants so. Plain
numbers, words, tuples, lists that hold tensors, and whatever else is no array stay as they are: they may be options.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..streams.arrays import without_copy

CODES = "give whole numbers, such as those of .astype('category').cat.codes"
CATEGORIES = "give categories, as .astype('category') does"


def as_arguments(method: str, values: Sequence[Any], names: Sequence[str]) -> tuple[Any, ...]:
    """Return arguments with arrays, series, frames and lists of numbers as tensors; ``names`` are for error messages.

    Raises
    ------
    ValueError
        For text, dates, complex numbers, other objects and ragged lists.
    """
    return tuple(as_data(f"{method}: {name}", value) for name, value in zip(names, values, strict=True))


def as_data(what: str, value: Any) -> Any:
    """Return one argument as a tensor if it is an array of numbers, else as it is; ``what`` opens error messages.

    Series of categories become their codes, from 0; a frame becomes a matrix of floats.
    """
    if isinstance(value, Tensor | torch.nn.Module):
        return value
    if isinstance(value, np.generic):
        return value.item()
    pandas: Any = sys.modules.get("pandas")
    if pandas and isinstance(value, pandas.DataFrame):
        return _frame(what, value)
    if pandas and isinstance(value, pandas.Series) and isinstance(value.dtype, pandas.CategoricalDtype):
        codes = value.cat.codes.to_numpy()
        if (codes < 0).any():
            raise ValueError(f"{what} has a missing category in row {int((codes < 0).argmax())}")
        return torch.tensor(codes, dtype=torch.int64)
    if pandas and isinstance(value, pandas.Series | pandas.Index):
        return _series(what, value, CATEGORIES)
    if isinstance(value, list):
        return _list(what, value)
    if hasattr(value, "tocoo") and hasattr(value, "nnz"):
        return _sparse(what, value)
    if isinstance(value, np.memmap) and value.dtype.kind == "f":
        return without_copy(what, value)
    if isinstance(value, np.ndarray) or (hasattr(value, "__array__") and not isinstance(value, type)):
        return as_tensor(what, np.asarray(value))
    return value


def names_of(value: Any) -> tuple[str, ...]:
    """Return the names that come with an argument: a frame's columns, or the categories of a series; else none."""
    pandas: Any = sys.modules.get("pandas")
    if pandas and isinstance(value, pandas.DataFrame):
        return tuple(map(str, value.columns))
    if pandas and isinstance(value, pandas.Series) and isinstance(value.dtype, pandas.CategoricalDtype):
        return tuple(map(str, value.cat.categories))
    return ()


def index_of(value: Any) -> tuple[str, ...]:
    """Return the words or dates of a frame's or series' index, if it has any; none for numbers, which say nothing."""
    pandas: Any = sys.modules.get("pandas")
    if not pandas or not isinstance(value, pandas.DataFrame | pandas.Series):
        return ()
    return () if value.index.dtype.kind in "iufb" else tuple(map(str, value.index))


def _sparse(what: str, matrix: Any) -> Tensor:
    """Return one of SciPy's sparse matrices as a sparse tensor."""
    coo = matrix.tocoo()
    index = torch.as_tensor(np.stack([coo.row, coo.col]).astype(np.int64))
    return torch.sparse_coo_tensor(index, as_tensor(what, coo.data), coo.shape, check_invariants=True).coalesce()


def as_tensor(what: str, values: np.ndarray, for_text: str = CODES) -> Tensor:
    """Return an array of numbers as a tensor: floats as they are, whole numbers in int64, truth values as such.

    ``for_text`` says what to give instead of text.
    """
    kind = values.dtype.kind
    if kind == "b":
        return torch.tensor(values)
    if kind in "iu":
        if values.size and values.max() > np.iinfo(np.int64).max:
            raise ValueError(f"{what} has whole numbers beyond the range of int64")
        return torch.tensor(values.astype(np.int64))
    if kind == "f":
        return torch.tensor(values.astype(np.float64) if values.dtype.itemsize > 8 else values)
    if kind == "O" and values.size and all(isinstance(value, int | float | np.number) for value in values.flat):
        found = np.array(values.tolist())
        if found.dtype.kind == "O":
            raise ValueError(f"{what} has whole numbers beyond the range of int64")
        return as_tensor(what, found)
    known = {"c": "complex numbers", "U": "text", "S": "text", "M": "dates", "m": "durations"}
    held = known.get(kind) or _objects(values)
    raise ValueError(f"{what} holds {held}, and numbers are needed{_hint(values, for_text)}")


def _objects(values: np.ndarray) -> str:
    first = next((value for value in values.flat if not isinstance(value, int | float)), None)
    return f"objects, such as {first!r:.40}"


def _hint(values: np.ndarray, for_text: str) -> str:
    has_text = values.dtype.kind == "U" or (values.dtype.kind == "O" and any(isinstance(v, str) for v in values.flat))
    return f": {for_text}" if has_text else ""


def _series(what: str, series: Any, for_text: str = CODES) -> Tensor:
    """Return a series, or an index, as a tensor; nullable dtypes too, if nothing is missing."""
    kind = series.dtype.kind
    if isinstance(series.dtype, np.dtype) or kind not in "iufb":
        return as_tensor(what, series.to_numpy(), for_text)
    if kind != "f" and bool(series.isna().any()):
        raise ValueError(f"{what} has a missing value in row {int(series.isna().to_numpy().argmax())}")
    if kind == "f":
        return as_tensor(what, series.to_numpy(dtype=np.float64, na_value=np.nan))
    return as_tensor(what, series.to_numpy(dtype=np.bool_ if kind == "b" else np.int64))


def _frame(what: str, frame: Any) -> Tensor:
    columns = []
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        if str(column.dtype) == "category":
            raise ValueError(f"{what} has a column {str(name)!r} of categories, and numbers are needed: {CODES}")
        columns.append(_series(f"{what}, column {str(name)!r},", column).to(torch.float64))
    if not columns:
        raise ValueError(f"{what} is a frame without columns")
    return torch.stack(columns, 1)


def _list(what: str, values: list[Any]) -> Any:
    """Return a list of numbers, or of lists or arrays of them, as a tensor in the default dtype; others as they are."""
    kinds = {type(leaf) for leaf in _leaves(values)}
    if not kinds or not all(issubclass(kind, int | float | complex | np.generic) for kind in kinds):
        return values
    try:
        found = np.array(values)
    except ValueError:
        found = np.array(None)
    if found.dtype.kind == "O":
        raise ValueError(f"{what} is a ragged list, with rows of different lengths, and no tensor can hold it")
    tensor = as_tensor(what, found)
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _leaves(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple | np.ndarray):
            yield from _leaves(value if not isinstance(value, np.ndarray) else value.flat)
        else:
            yield value
