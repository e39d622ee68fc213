"""Matrix Market's .mtx files of real numbers, dense or by coordinates.

SciPy's reader parses in several threads without checks: a damaged file can end the process.

Boisvert, Pozo and Remington (1996), The Matrix Market exchange formats: initial design, NISTIR 5935.
"""

import warnings
from typing import Any, BinaryIO

import numpy as np

from ..table import Table, quoted
from .archives import check_cells, dense_table, no_labels

FIELDS = ("real", "double", "integer", "unsigned-integer", "pattern")
SIGNS = {"general": 0, "symmetric": 1, "skew-symmetric": -1}  # of an entry on the other side of the diagonal


def read_mtx(where: str, file: BinaryIO, target: str | None, supervised: bool) -> Table:
    """Read a Matrix Market file; ``where``: name used in error messages."""
    words = file.readline(200).decode("utf-8", "replace").split()
    if not words or words[0] != "%%MatrixMarket":
        raise ValueError(f"{where}: this is not a Matrix Market file: its first line must begin with %%MatrixMarket")
    no_labels(where, target, supervised)
    kind, layout, field, symmetry = (word.lower() for word in [*words[1:], "", "", "", ""][:4])
    if field in ("complex", "hermitian"):
        raise ValueError(f"{where}: values are complex, and real numbers are needed")
    if kind != "matrix" or layout not in ("array", "coordinate") or field not in FIELDS or symmetry not in SIGNS:
        raise ValueError(f"{where}: cannot be read: its header is {quoted(' '.join(words))}")
    sizes = _sizes(where, file, 2 if layout == "array" else 3)
    check_cells(where, *sizes[:2])
    values = _numbers(where, file)
    x = (
        _by_column(where, values, sizes, symmetry)
        if layout == "array"
        else _placed(where, values, sizes, field, symmetry)
    )
    return dense_table(where, x)


def _sizes(where: str, file: BinaryIO, count: int) -> list[int]:
    """Return the numbers of the first line that is no comment: rows, columns and, if given, entries."""
    line = next((line for line in file if line.strip() and not line.startswith(b"%")), b"")
    words = line.split()
    if len(words) != count or not all(word.isdigit() and len(word) < 16 for word in words):
        raise ValueError(f"{where}: cannot be read: its sizes are {quoted(line.decode('utf-8', 'replace'))}")
    return [int(word) for word in words]


def _numbers(where: str, file: BinaryIO) -> np.ndarray:
    """Return the rest of a file, a row per line."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*no data", UserWarning)
            return np.loadtxt(file, comments="%", ndmin=2, encoding="utf-8")
    except ValueError as error:
        raise ValueError(f"{where}: cannot be read: {str(error).splitlines()[0][:200]!r}") from error


def _by_column(where: str, values: np.ndarray, sizes: list[int], symmetry: str) -> np.ndarray:
    """Return a dense matrix, whose entries stand column by column: below the diagonal only, if it is symmetric."""
    rows, columns = sizes
    sign, start = SIGNS[symmetry], {"general": -columns, "symmetric": 0, "skew-symmetric": 1}[symmetry]
    if sign:
        _check(where, rows == columns, "a symmetric matrix must have as many rows as columns")
    across, down = np.nonzero(np.triu(np.ones((columns, rows), dtype=bool), start)) if sign else (None, None)
    expected = rows * columns if across is None else len(across)
    _check(where, values.size == expected, f"there are {values.size} numbers, and {expected} are needed")
    if across is None:
        return values.reshape(columns, rows).T
    x = np.zeros((rows, columns))
    x[across, down] = sign * values.ravel()
    x[down, across] = values.ravel()
    return x


def _placed(where: str, values: np.ndarray, sizes: list[int], field: str, symmetry: str) -> np.ndarray:
    """Return a matrix of which entries are given by row and column, counted from 1; those given twice are added."""
    rows, columns, count = sizes
    width = 2 if field == "pattern" else 3
    _check(where, len(values) == count, f"there are {len(values)} entries, and its sizes promise {count}")
    _check(
        where, not count or values.shape[1] == width, f"an entry has {values.shape[1]} numbers, and {width} are needed"
    )
    x = np.zeros((rows, columns))
    if not count:
        return x
    place = values[:, :2] - 1
    inside = (place >= 0) & (place < [rows, columns]) & (place % 1 == 0)
    _check(where, bool(inside.all()), "an entry lies outside of the matrix")
    (down, across), numbers = place.T.astype(np.int64), values[:, 2] if width == 3 else np.ones(count)
    np.add.at(x, (down, across), numbers)
    if sign := SIGNS[symmetry]:
        _check(where, rows == columns, "a symmetric matrix must have as many rows as columns")
        off = down != across
        np.add.at(x, (across[off], down[off]), sign * numbers[off])
    return x


def _check(where: str, holds: Any, why: str) -> None:
    if not holds:
        raise ValueError(f"{where}: cannot be read: {why}")
