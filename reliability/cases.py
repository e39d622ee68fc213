"""Odd input for a model: what a user may pass in for its data, one case per row of the table in ``docs/inputs.md``."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
import torch

ROWS, COLUMNS = 24, 4
COUNTS = ("mixture", "lda")  # models of counts
SUPERVISED = ("logistic", "linear")
EVERY = ("logistic", "linear", "gmm", "mixture", "ppca", "factor_analysis", "lda", "vae")


class Case(NamedTuple):
    """A way to give data.

    Attributes
    ----------
    name : str
        What it is called in the table.
    change : callable
        ``(x, y) -> (x, y)`` from float64 arrays, y None for models without a target.
    models : tuple of str
        Those that it is for.
    same : bool
        Whether the numbers are those of the plain data, so that the answer must be, too.
    """

    name: str
    change: Callable[[np.ndarray, np.ndarray | None], tuple[Any, Any]]
    models: tuple[str, ...] = EVERY
    same: bool = False
    array: bool = False


def base(model: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return plain data for a model, whole numbers in float64: x (24, 4), and y (24) or None."""
    rng = np.random.default_rng(0)
    if model in COUNTS:
        segment = np.arange(ROWS) % 2
        rates = np.array([[9.0, 3.0, 1.0, 2.0], [1.0, 2.0, 8.0, 4.0]])
        return rng.poisson(rates[segment]).astype(np.float64), None
    factor = rng.normal(size=(ROWS, 1))
    x = np.round(9 * factor * np.array([1.0, -1.0, 0.5, 0.2]) + 5 * rng.normal(size=(ROWS, COLUMNS)))
    if model == "logistic":
        x = np.clip(np.round(x / 5), -3, 3)
        return x, (x[:, 0] + rng.normal(size=ROWS) > 0).astype(np.float64)
    return x, np.round(3 * x[:, 0] + 4 * rng.normal(size=ROWS)) if model == "linear" else None


def _of_x(change: Callable[[np.ndarray], Any]) -> Callable:
    return lambda x, y: (change(x), None if y is None else torch.from_numpy(y))


def _of_y(change: Callable[[np.ndarray], Any]) -> Callable:
    return lambda x, y: (torch.from_numpy(x), change(y))


def _with(value: float) -> Callable:
    def change(x: np.ndarray) -> torch.Tensor:
        x = x.copy()
        x[3, 1] = value
        return torch.from_numpy(x)

    return _of_x(change)


def _rows(number: int) -> Callable:
    return lambda x, y: (torch.from_numpy(x[:number]), None if y is None else torch.from_numpy(y[:number]))


def _read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def _mapped(x: np.ndarray) -> np.ndarray:
    file = Path(tempfile.mkdtemp(prefix="validate_")) / "x.npy"
    np.save(file, x)
    return np.load(file, mmap_mode="r")


def _constant(x: np.ndarray) -> torch.Tensor:
    x = x.copy()
    x[:, 1] = 2.0
    return torch.from_numpy(x)


def _empty_document(x: np.ndarray) -> torch.Tensor:
    x = x.copy()
    x[3] = 0
    return torch.from_numpy(x)


def _tensor(dtype: torch.dtype) -> Callable:
    return _of_x(lambda x: torch.from_numpy(x).to(dtype))


REAL = tuple(name for name in EVERY if name not in COUNTS)

CASES: tuple[Case, ...] = (
    Case("float64 tensor", _of_x(torch.from_numpy), same=True),
    Case("float32 tensor", _tensor(torch.float32), same=True),
    Case("float16 tensor", _tensor(torch.float16), same=True),
    Case("whole numbers (int64 tensor)", _tensor(torch.int64), same=True),
    Case("whole numbers (int8 tensor)", _tensor(torch.int8), same=True),
    Case("NumPy array", _of_x(lambda x: x), same=True, array=True),
    Case("read-only array", _of_x(_read_only), same=True, array=True),
    Case("array in Fortran's order", _of_x(np.asfortranarray), same=True, array=True),
    Case("memory-mapped .npy", _of_x(_mapped), same=True, array=True),
    Case("pandas DataFrame", _of_x(pd.DataFrame), same=True, array=True),
    Case("list of lists", _of_x(lambda x: x.tolist()), same=True, array=True),
    Case("SciPy sparse matrix", _of_x(scipy.sparse.csr_matrix), same=True, array=True),
    Case("torch sparse tensor", _of_x(lambda x: torch.from_numpy(x).to_sparse()), same=True),
    Case("array of objects that are numbers", _of_x(lambda x: x.astype(object)), same=True, array=True),
    Case("array of other objects", _of_x(lambda x: np.where(x > 0, np.array(None), x)), array=True),
    Case("array of text", _of_x(lambda x: x.astype(str)), array=True),
    Case("complex numbers", _of_x(lambda x: torch.from_numpy(x).to(torch.complex128))),
    Case("truth values", _of_x(lambda x: torch.from_numpy(x) > 1)),
    Case("nothing (None)", _of_x(lambda x: None)),
    Case("no rows", _rows(0)),
    Case("one row", _rows(1)),
    Case("two rows", _rows(2)),
    Case("fewer rows than columns", _rows(3)),
    Case("no columns", _of_x(lambda x: torch.from_numpy(x[:, :0]))),
    Case("one column", _of_x(lambda x: torch.from_numpy(x[:, :1]))),
    Case("1-d", _of_x(lambda x: torch.from_numpy(x[:, 0]))),
    Case("3-d", _of_x(lambda x: torch.from_numpy(x[:, :, None]))),
    Case("NaN in it", _with(float("nan"))),
    Case("infinity in it", _with(float("inf"))),
    Case("1e200 in it", _with(1e200)),
    Case("1e-200 in it", _with(1e-200)),
    Case("all of it times 1e200", _of_x(lambda x: torch.from_numpy(x * 1e200))),
    Case("all of it times 1e-200", _of_x(lambda x: torch.from_numpy(x * 1e-200))),
    Case("a constant column", _of_x(_constant)),
    Case("all rows the same", _of_x(lambda x: torch.from_numpy(np.tile(x[:1] + 1, (ROWS, 1))))),
    Case("two distinct rows", _of_x(lambda x: torch.from_numpy(x[np.arange(ROWS) % 2]))),
    Case("every row twice", lambda x, y: (torch.from_numpy(np.tile(x, (2, 1))), _twice(y))),
    Case("a column twice", _of_x(lambda x: torch.from_numpy(x[:, [0, 1, 2, 3, 3]]))),
    Case("a negative number", _with(-1.0), COUNTS),
    Case("a fraction", _with(0.5), COUNTS),
    Case("an empty document", _of_x(_empty_document), COUNTS),
    Case("nothing but zeros", _of_x(lambda x: torch.from_numpy(0 * x)), COUNTS),
    Case("more rows of x than of y", lambda x, y: (torch.from_numpy(x), torch.from_numpy(y[:-1])), SUPERVISED),
    Case("y as a column, (n, 1)", _of_y(lambda y: torch.from_numpy(y[:, None])), SUPERVISED),
    Case("y of int64", _of_y(lambda y: torch.from_numpy(y).long()), SUPERVISED, same=True),
    Case("y of float32", _of_y(lambda y: torch.from_numpy(y).float()), SUPERVISED, same=True),
    Case("y of truth values", _of_y(lambda y: torch.from_numpy(y) > 0), SUPERVISED),
    Case("y of text", _of_y(lambda y: y.astype(str)), SUPERVISED, array=True),
    Case("y with NaN", _of_y(lambda y: torch.from_numpy(np.where(np.arange(ROWS) == 3, np.nan, y))), SUPERVISED),
    Case("y of one class, or constant", _of_y(lambda y: torch.ones(ROWS).double()), SUPERVISED),
    Case("labels of three classes", _of_y(lambda y: torch.arange(ROWS).double() % 3), ("logistic",)),
    Case("labels -1 and 1", _of_y(lambda y: torch.from_numpy(2 * y - 1)), ("logistic",)),
    Case("an offset of 1e8", _of_x(lambda x: torch.from_numpy(x + 1e8)), REAL),
    Case("an offset of 1e6 in float32", _of_x(lambda x: (torch.from_numpy(x) + 1e6).float()), REAL),
    Case("all of it times 1e100", _of_x(lambda x: torch.from_numpy(x * 1e100)), REAL),
    Case("all of it times 1e-100", _of_x(lambda x: torch.from_numpy(x * 1e-100)), REAL),
)


def _twice(y: np.ndarray | None) -> torch.Tensor | None:
    return None if y is None else torch.from_numpy(np.tile(y, 2))
