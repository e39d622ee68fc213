"""SciPy's sparse matrices, and the words of a matrix's columns."""

from typing import Any, BinaryIO

import numpy as np

from ..table import Table, check_matrix, quoted, shown
from .archives import check_cells, dense_table, no_labels


def is_scipy(names: list[str]) -> bool:
    """Whether the arrays of a .npz are what ``scipy.sparse.save_npz`` writes."""
    return {"format", "shape", "data"} <= set(names)


def read_scipy(where: str, file: BinaryIO, target: str | None, supervised: bool) -> Table:
    """Read what ``scipy.sparse.save_npz`` wrote; ``where``: name used in error messages."""
    from scipy import sparse  # slow to import

    no_labels(where, target, supervised)
    file.seek(0)
    try:
        matrix: Any = sparse.load_npz(file)
        _check_structure(matrix)
    except Exception as error:  # a damaged file raises anything
        why = shown(str(error))[:200] or type(error).__name__
        raise ValueError(f"{where}: the sparse matrix in it cannot be read: {why}") from error
    check_matrix(where, matrix)
    check_cells(where, *matrix.shape)
    return dense_table(where, matrix.toarray())


def _check_structure(matrix: Any) -> None:
    """Raise ValueError for indices out of range, by which a matrix that is made dense would write to any memory."""
    pointers = np.asarray(getattr(matrix, "indptr", []))
    if (pointers[1:] < pointers[:-1]).any():  # their difference may overflow
        raise ValueError("indptr must not decrease")
    if hasattr(matrix, "check_format"):
        matrix.check_format(full_check=True)


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
