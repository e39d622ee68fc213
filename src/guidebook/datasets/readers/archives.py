"""What readers of arrays and matrices ask before they unpack one, or make it dense."""

from typing import Any

import numpy as np

from ..table import Table, check_matrix, finite

MOST_CELLS = 200_000_000  # 1.6 GB of float64: the largest matrix that is made dense, or unpacked


def check_unpacked(where: str, archive: Any) -> None:
    """Raise ValueError if the arrays of an opened .npz take more than 1.6 GB; ``where``: name used in the message.

    What an array takes is written beside it, and no more than that is ever unpacked.
    """
    total = sum(member.file_size for member in archive.zip.infolist())
    if total > 8 * MOST_CELLS:
        raise ValueError(
            f"{where}: its arrays unpack to {total / 1e9:.1f} GB, and {8 * MOST_CELLS / 1e9:.1f} GB are read at most: "
            "save the matrix as a .npy"
        )


def check_cells(where: str, rows: int, columns: int) -> None:
    """Raise ValueError for more cells than are made dense."""
    if rows * columns > MOST_CELLS:
        raise ValueError(
            f"{where}: {rows} × {columns} is more than {MOST_CELLS:,} cells, too many to make dense: "
            "leave out rare words, or give the sparse matrix to the model in Python"
        )


def no_labels(where: str, target: str | None, supervised: bool) -> None:
    """Raise ValueError if labels are wanted of a file that holds one matrix."""
    if supervised or target is not None:
        raise ValueError(f"{where}: a sparse matrix has no place for labels: give a .csv, .npy or .npz with a target")


def dense_table(where: str, x: np.ndarray) -> Table:
    """Return a matrix as a table whose columns are named by their places; ValueError unless all numbers are finite."""
    check_matrix(where, x)
    return Table(finite(where, x, range(x.shape[1])), [f"x{index}" for index in range(x.shape[1])])
