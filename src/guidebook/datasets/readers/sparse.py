"""Sparse matrices of counts (Matrix Market's .mtx, SciPy's .npz), and the words of their columns."""

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from ..table import Table, check_matrix, finite, quoted, shown

MOST_CELLS = 200_000_000  # 1.6 GB of float64: the largest matrix that is made dense


def read_mtx(where: str, file: BinaryIO, target: str | None, supervised: bool) -> Table:
    """Read a Matrix Market file, coordinates or array; ``where``: name used in error messages."""
    from scipy import io  # slow to import

    if not file.read(14).startswith(b"%%MatrixMarket"):
        raise ValueError(f"{where}: this is not a Matrix Market file: its first line must begin with %%MatrixMarket")
    return _dense(where, file, io.mmread, supervised or target is not None)


def is_scipy(names: list[str]) -> bool:
    """Whether the arrays of a .npz are what ``scipy.sparse.save_npz`` writes."""
    return {"format", "shape", "data"} <= set(names)


def read_scipy(where: str, file: BinaryIO, target: str | None, supervised: bool) -> Table:
    """Read what ``scipy.sparse.save_npz`` wrote."""
    from scipy import sparse

    return _dense(where, file, sparse.load_npz, supervised or target is not None)


def read_vocabulary(source: str, columns: int) -> list[str]:
    """Names of columns, one per line; ValueError if they do not fit the data."""
    where = shown(source)
    try:
        with open(source, encoding="utf-8") as file:
            words = [" ".join(line.split()) for line in file.read().splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: this is not UTF-8 text, and a vocabulary has one word per line") from error
    except OSError as error:
        raise type(error)(f"{where}: cannot be read: {error.strerror or error}") from error
    if len(words) != columns:
        raise ValueError(f"{where}: the vocabulary has {len(words)} lines, and the data have {columns} columns")
    seen: dict[str, int] = {}
    for line, word in enumerate(words, 1):
        if not word:
            raise ValueError(f"{where}: line {line} is empty, and a word is needed")
        if seen.setdefault(word, line) != line:
            raise ValueError(f"{where}: line {line} repeats {quoted(word)} of line {seen[word]}")
    return words


def _dense(where: str, file: BinaryIO, read: Callable[[BinaryIO], Any], wants_labels: bool) -> Table:
    if wants_labels:
        raise ValueError(f"{where}: a sparse matrix has no place for labels: give a .csv, .npy or .npz with a target")
    file.seek(0)
    try:
        matrix = read(file)
    except Exception as error:  # a damaged file raises anything
        why = shown(str(error)) or type(error).__name__
        raise ValueError(f"{where}: the sparse matrix in it cannot be read: {why}") from error
    check_matrix(where, matrix)
    rows, columns = matrix.shape
    if rows * columns > MOST_CELLS:
        raise ValueError(
            f"{where}: {rows} × {columns} is more than {MOST_CELLS:,} cells, too many to make dense: "
            "leave out rare words, or give the sparse matrix to the model in Python"
        )
    x: np.ndarray = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    return Table(finite(where, x, range(columns)), [f"x{index}" for index in range(columns)])
